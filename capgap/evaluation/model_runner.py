"""One model after the other: asked or looked up, scored, and entered into the run directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap import schema
from capgap.battery import PreparedTask
from capgap.errors import StoreError
from capgap.evaluation.exposure import exposure_of, prompt_digest
from capgap.evaluation.external_scores import ExternalScores
from capgap.evaluation.plan import EvaluationPlan
from capgap.evaluation.requests import Tasks, build_requests, n_requests, refuse_impossible
from capgap.evaluation.run_summary import ModelRunSummary, proof_line, summarise_run
from capgap.evaluation.scoring import outcome_rows
from capgap.models import (
    Ledger,
    LoadedModel,
    ModelSpec,
    Response,
    fill_ledger_shard,
    ledger_responses,
    load_model,
    offline_prompt_renderer,
    respond,
)
from capgap.store.run_directory import RunDirectory

__all__ = ["ModelRunner", "Say", "run_shard"]

Say = Callable[[str], None]
"""Told a sentence for the user."""


def run_shard(
    plan: EvaluationPlan,
    spec: ModelSpec,
    tasks: Tasks,
    ledger: Ledger,
    run_id: str,
    device: str | None,
    part: tuple[int, int],
) -> ModelRunSummary:
    """Ask a part of one model's requests, for the ledger alone; see `fill_ledger_shard`."""
    model = _load(plan, spec, run_id, device)
    refuse_impossible(model, tasks)
    for _, prepared in tasks:
        for task in prepared:
            build_requests(task, model)
            fill_ledger_shard(model, task.lm_task.instances, ledger, part=part)
    return summarise_run(model)


@dataclass
class ModelRunner:
    """Where a run's models are dealt with."""

    run: RunDirectory
    """The run directory."""
    ledger: Ledger
    """Its ledger."""
    tasks: Tasks
    """What every model is asked."""
    bar: Any
    """A tqdm bar of requests."""
    tell: Say
    """Told what the user should know."""
    counts: dict[str, int]
    """Requests ``computed`` now and taken ``from_ledger``, brought up to date."""

    def ask(self, plan: EvaluationPlan, spec: ModelSpec) -> None:
        """Load a model, ask it everything, and write its tables."""
        self.bar.set_description(f"{spec.name}: loading")
        model = _load(plan, spec, self.run.id, plan.device)
        refuse_impossible(model, self.tasks)
        self._enter(summarise_run(model), spec)
        self.ledger.describe(model.fingerprint, model.identity)

        def answered(task: PreparedTask) -> list[list[Response]]:
            build_requests(task, model)
            responses = respond(model, task.lm_task.instances, self.ledger, progress=self._progress)
            while model.notes:
                self.tell(model.notes.pop(0))
            return responses

        rows = self._rows(spec, answered)
        told = summarise_run(model)
        if told.proven[0]:
            self.tell(proof_line(told))
        self._enter(told, spec)
        self._write(spec, rows, model.facts)

    def recall(self, spec: ModelSpec) -> None:
        """Write a model's tables from the ledger alone.

        Raises
        ------
        StoreError
            The run knows no such model, or the ledger lacks answers of it.
        """
        known = self.run.facts["models"].get(spec.name)
        if known is None or "facts" not in known:
            names = ", ".join(sorted(self.run.facts["models"])) or "none"
            raise StoreError(f"{self.run.path}: no model {spec.name!r} was asked here. It knows: {names}.")
        self.bar.set_description(f"{spec.name}: from the ledger")
        addressed = offline_prompt_renderer(spec)
        fingerprint = str(known["fingerprint"])

        def answered(task: PreparedTask) -> list[list[Response]]:
            build_requests(task, addressed)
            return ledger_responses(
                fingerprint, task.lm_task.instances, self.ledger, name=spec.name, progress=self._progress
            )

        self._write(spec, self._rows(spec, answered), known["facts"])

    def note(self, told: Sequence[ModelRunSummary], plan: EvaluationPlan) -> None:
        """Enter a model that several workers have asked, and say what they met."""
        for sentence in dict.fromkeys(note for asked in told for note in asked.notes):
            self.tell(sentence)
        spec = next(spec for spec in plan.models if spec.name == told[0].name)
        for asked in told:
            self._enter(asked, spec)
        self.ledger.describe(told[0].fingerprint, told[0].identity)
        compared = max(told, key=lambda asked: asked.proven)
        if compared.proven[0]:
            self.tell(proof_line(compared))

    def _enter(self, told: ModelRunSummary, spec: ModelSpec) -> None:
        facts = {
            "word": spec.place,
            "identity": told.identity,
            "prompting": told.prompting,
            "facts": {key: value for key, value in told.facts.items() if key in schema.MODELS.names},
            "seconds": {key: round(value, 2) for key, value in told.seconds.items()},
        }
        self.run.add_model(spec.name, told.fingerprint, facts)
        self.run.save()

    def _rows(self, spec: ModelSpec, answered: Callable[[PreparedTask], list[list[Response]]]) -> pd.DataFrame:
        """The outcomes of one model, task by task."""
        rows: list[dict[str, Any]] = []
        before = self.bar.n
        external = ExternalScores(self.run.path, spec.name)
        touches = exposure_of(spec)
        for battery, prepared in self.tasks:
            for task in prepared:
                self.bar.set_description(f"{spec.name}: {task.name}")
                made = outcome_rows(spec.name, battery.name, task, answered(task))
                made = _exposed(made, task, touches)
                rows += external.scored(made, task) if task.score == "external" else made
        for sentence in external.hand_out():
            self.tell(sentence)
        # Equal requests are asked once, and the bar counts them all.
        left = n_requests(self.tasks) - (self.bar.n - before)
        self.bar.update(max(0, min(left, self.bar.total - self.bar.n)))
        return schema.from_rows(rows, schema.OUTCOMES, source="outcomes")

    def _write(self, spec: ModelSpec, rows: pd.DataFrame, facts: Mapping[str, Any]) -> None:
        known = {key: value for key, value in facts.items() if key in schema.MODELS.names}
        for battery, _ in self.tasks:
            self.run.write_outcomes(spec.name, battery.name, rows[rows["battery"] == battery.name])
        table = schema.from_rows([known], schema.MODELS, source=f"facts about {spec.name}")
        self.run.merge(schema.MODELS, table)

    def _progress(self, computed: int, found: int) -> None:
        self.counts["computed"] += computed
        self.counts["from_ledger"] += found
        # What workers have answered stands on the bar already; the ledger's part of a resumed run does not.
        self.bar.update(min(computed + found, max(0, self.bar.total - self.bar.n)))


def _exposed(rows: list[dict[str, Any]], task: PreparedTask, touches: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """The rows of a model with how many of its training examples touch each item, where that is known."""
    if touches is None:
        return rows
    counts = {(item.item, item.variant): touches.get(prompt_digest(item.prompt), 0) for item in task.items}
    return [{**row, "x_exposure": counts[row["item"], row["variant"]]} for row in rows]


def _load(plan: EvaluationPlan, spec: ModelSpec, run_id: str, device: str | None) -> LoadedModel:
    return load_model(spec, device=device, dtype=plan.dtype, batch_tokens=plan.batch_tokens, run_id=run_id)

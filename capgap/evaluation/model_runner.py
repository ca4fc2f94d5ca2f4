"""Runner of one model: its requests answered or looked up, scored, and its tables written to the run directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from capgap import schema
from capgap.battery import PreparedTask
from capgap.errors import StoreError
from capgap.evaluation.exposure import exposure_of, prompt_digest
from capgap.evaluation.external_scores import ExternalScoring
from capgap.evaluation.plan import EvaluationPlan, ShardSpec
from capgap.evaluation.prepared_batteries import PreparedBatteries
from capgap.evaluation.progress import RequestProgress
from capgap.evaluation.requests import build_requests, check_task_support, n_requests
from capgap.evaluation.run_summary import ModelRunSummary, comparison_note, summarise_run
from capgap.evaluation.scoring import outcome_rows
from capgap.events import Listener, Note
from capgap.models import (
    Ledger,
    LoadedModel,
    ModelResponse,
    ModelSpec,
    fill_ledger_shard,
    ledger_responses,
    load_model,
    offline_prompt_renderer,
    respond,
)
from capgap.store import RunDirectory

__all__ = ["ModelRunner", "run_model_shard"]

TaskResponses = Callable[[PreparedTask], list[list[ModelResponse]]]
"""Answers a task's requests: one list of responses (by repeat) for each, in the order of ``lm_task.instances``."""


def run_model_shard(
    plan: EvaluationPlan, spec: ModelSpec, batteries: PreparedBatteries, ledger: Ledger, run_id: str, shard: ShardSpec
) -> ModelRunSummary:
    """Ask a part of one model's requests, for the ledger alone; see `fill_ledger_shard`."""
    model = _load_planned_model(plan, spec, run_id)
    check_task_support(model, batteries)
    for _, tasks in batteries:
        for task in tasks:
            build_requests(task, model)
            fill_ledger_shard(model, task.lm_task.instances, ledger, shard=shard)
    return summarise_run(model)


@dataclass
class ModelRunner:
    """Runs the models of one evaluation, or reads them from the ledger, and writes their tables."""

    run: RunDirectory
    """The run directory."""
    ledger: Ledger
    """Its ledger."""
    prepared: PreparedBatteries
    """What every model is asked."""
    progress: RequestProgress
    """Progress in requests to all models."""
    on_event: Listener
    """Listener for notes."""

    def run_model(self, plan: EvaluationPlan, spec: ModelSpec) -> None:
        """Load a model, ask it everything, and write its tables."""
        self.progress.show(f"{spec.name}: loading")
        model = _load_planned_model(plan, spec, self.run.id)
        check_task_support(model, self.prepared)
        # Before it is asked anything, so that another model of its name is refused at once.
        self._record_model(summarise_run(model), spec)
        self.ledger.describe(model.fingerprint, model.identity)

        def get_task_responses(task: PreparedTask) -> list[list[ModelResponse]]:
            build_requests(task, model)
            # Each answer is in the ledger before the next batch begins, so that a run can stop at any moment.
            responses = respond(model, task.lm_task.instances, self.ledger, progress=self.progress.count)
            while model.notes:
                self.on_event(Note(model.notes.pop(0), level="warning"))
            return responses

        outcomes = self._outcomes(spec, get_task_responses)
        # Once more: seconds and the comparison with lm-eval's own path are known only now.
        summary = summarise_run(model)
        if summary.n_compared:
            self.on_event(Note(comparison_note(summary)))
        self._record_model(summary, spec)
        self._write(spec, outcomes, summary.facts["facts"])

    def write_from_ledger(self, spec: ModelSpec) -> None:
        """Write a model's tables from the ledger alone.

        Raises
        ------
        StoreError
            The run knows no such model, or the ledger lacks answers of it.
        """
        model_record = self.run.facts["models"].get(spec.name)
        if model_record is None or "facts" not in model_record:
            names = ", ".join(sorted(self.run.facts["models"])) or "none"
            raise StoreError(f"{self.run.path}: no model {spec.name!r} was asked here. It knows: {names}.")
        self.progress.show(f"{spec.name}: from the ledger")
        # Keys of the ledger are made of rendered prompts, so they are rendered again, without weights.
        renderer = offline_prompt_renderer(spec)
        fingerprint = str(model_record["fingerprint"])

        def get_task_responses(task: PreparedTask) -> list[list[ModelResponse]]:
            build_requests(task, renderer)
            return ledger_responses(
                fingerprint, task.lm_task.instances, self.ledger, name=spec.name, progress=self.progress.count
            )

        self._write(spec, self._outcomes(spec, get_task_responses), model_record["facts"])

    def record_worker_summaries(self, summaries: Sequence[ModelRunSummary], plan: EvaluationPlan) -> None:
        """Enter a model that several workers have asked, and pass on what they met."""
        for sentence in dict.fromkeys(note_text for summary in summaries for note_text in summary.notes):
            self.on_event(Note(sentence, level="warning"))
        spec = next(spec for spec in plan.models if spec.name == summaries[0].name)
        for summary in summaries:
            self._record_model(summary, spec)
        self.ledger.describe(summaries[0].fingerprint, summaries[0].facts["identity"])
        most_compared_summary = max(summaries, key=lambda summary: (summary.n_compared, summary.largest_difference))
        if most_compared_summary.n_compared:
            self.on_event(Note(comparison_note(most_compared_summary)))

    def _record_model(self, summary: ModelRunSummary, spec: ModelSpec) -> None:
        self.run.add_model(spec.name, summary.fingerprint, {"word": spec.location, **summary.facts})

    def _outcomes(self, spec: ModelSpec, get_task_responses: TaskResponses) -> pd.DataFrame:
        """The outcomes of one model, task by task."""
        rows: list[dict[str, Any]] = []
        n_reported_at_start = self.progress.n_reported_requests
        external_scores = ExternalScoring(self.run, spec.name)
        n_examples_by_prompt = exposure_of(spec)
        for battery, tasks in self.prepared:
            for task in tasks:
                self.progress.show(f"{spec.name}: {task.name}")
                task_rows = outcome_rows(spec.name, battery.name, task, get_task_responses(task))
                if n_examples_by_prompt is not None:
                    task_rows = _add_exposure_counts(task_rows, task, n_examples_by_prompt)
                rows += external_scores.scored(task_rows, task) if task.score == "external" else task_rows
        for sentence in external_scores.write_responses():
            self.on_event(Note(sentence, level="warning"))
        # Equal requests are asked once; the others of them are answered with it.
        self.progress.report(n_requests(self.prepared) - (self.progress.n_reported_requests - n_reported_at_start))
        return schema.df_from_rows(rows, schema.OUTCOMES, source="outcomes")

    def _write(self, spec: ModelSpec, outcomes: pd.DataFrame, model_row: Mapping[str, Any]) -> None:
        for battery, _ in self.prepared:
            self.run.write_outcomes(spec.name, battery.name, outcomes[outcomes["battery"] == battery.name])
        models = schema.df_from_rows([model_row], schema.MODELS, source=f"facts about {spec.name}")
        self.run.merge(schema.MODELS, models)


def _add_exposure_counts(
    rows: list[dict[str, Any]], task: PreparedTask, n_examples_by_prompt: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The rows of a model with how many of its training examples touch each item."""
    counts = {(item.item, item.variant): n_examples_by_prompt.get(prompt_digest(item.prompt), 0) for item in task.items}
    return [{**row, "x_exposure": counts[row["item"], row["variant"]]} for row in rows]


def _load_planned_model(plan: EvaluationPlan, spec: ModelSpec, run_id: str) -> LoadedModel:
    return load_model(spec, device=plan.device, dtype=plan.dtype, batch_tokens=plan.batch_tokens, run_id=run_id)

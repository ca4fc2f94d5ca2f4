"""Probing: models are asked items in several variants, and their answers become `outcomes`.

Every item is asked as a choice, by log-likelihood: of its own choices, else of answers borrowed from the other items of
its task. So nothing has to be parsed, thoughts and no thoughts are scored alike, and entropies are there.

For each model: log-likelihoods behind the bare question (``direct``); thoughts are written; log-likelihoods behind
the thoughts (``cot``); and behind the fact (``fact``); and the same as ``cot`` for a question with other numbers
(``numbers``).
"""

import gc
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capgap import schema
from capgap.battery.items import sample_positions
from capgap.classification.files import OutcomesAndModels, join_answers, read_answers
from capgap.classification.labelling import UnlabelledItem
from capgap.classification.prompt_variants import ENGLISH, WORLD, NumberSubstitution, PromptWording, draw_choices
from capgap.errors import UsageError
from capgap.evaluation import default_batteries, quiet
from capgap.events import Listener, Note, ignore, stage
from capgap.models import Ledger, LoadedModel, ModelResponse, ModelSpec, check_model, load_model, respond

N_PROBE_ITEMS = 100
"""Items of a task that models are asked, at most: enough for a share within ten points."""
_N_PROBE_CHOICES = 4
_MAX_QUESTION_LENGTH = 20_000  # characters of a question that is asked
_REFUSAL_PHRASE = "capgap classify does not do that"


@dataclass(frozen=True)
class _ChoiceItem:
    """An item as a choice."""

    item: UnlabelledItem
    choices: tuple[str, ...]
    gold: int | None
    """Index of the right choice, where it is known."""
    renumbered: str | None
    """The question with other numbers; None where it has none."""


def probe_models(
    models: Sequence[ModelSpec],
    items: Sequence[UnlabelledItem],
    folder: Path | str,
    *,
    device: str | None = None,
    n_items: int = N_PROBE_ITEMS,
    on_event: Listener = ignore,
) -> OutcomesAndModels:
    """The `outcomes` of models that are asked items without thoughts, with them, with the fact and with other numbers.

    Parameters
    ----------
    models
        Who is asked: none that the labels will compare.
    items
        What is asked; of each task a seeded sample. Items without a task, without choices and target, with an
        empty choice, or longer than 20,000 characters are not asked.
    folder
        Answers are kept here as they arrive (``ledger.sqlite``), then added to ``outcomes.parquet`` and
        ``models.parquet``; the same call goes on where it stopped.
    device
        torch device; None chooses.
    n_items
        Items of a task, at most.
    on_event
        Told of progress in requests.

    Returns
    -------
    tuple of pandas.DataFrame
        `outcomes` and `models`, for `behaviour_evidence`.

    Raises
    ------
    ModelError, UsageError
        A model cannot be found, loaded, or gives no log-likelihoods.
    StoreError
        The folder cannot be written.
    """
    probes = _sample_probes(items, n_items)
    if not probes:
        sentence = "no item can be asked: a task, and choices or a target, are needed. No model is loaded."
        on_event(Note(sentence, "warning"))
        return schema.empty(schema.OUTCOMES), schema.empty(schema.MODELS)
    folder = Path(folder)
    stored_answers = _earlier_answers(folder)  # before anything is asked that could not be added to them
    for spec in models:
        check_model(spec, scores=True)
    n_tasks = len({probe.item.task for probe in probes})
    on_event(Note(f"{len(probes):,} items of {n_tasks:,} tasks × {len(models):,} models; answers go to {folder}"))
    with stage(on_event, "asking models", len(models) * _n_requests(probes), "request") as advance, quiet():
        answers = _ask_all_models(models, probes, folder, device, advance)
    _store_answers(stored_answers, answers, folder)
    return answers


def _ask_all_models(
    models: Sequence[ModelSpec],
    probes: Sequence[_ChoiceItem],
    folder: Path,
    device: str | None,
    advance: Callable[..., None],
) -> OutcomesAndModels:
    """Answers of one model after the other, so that the weights of one are in memory at a time."""
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    with Ledger(folder / "ledger.sqlite") as ledger:
        for spec in models:
            advance(0, spec.name)
            model = load_model(spec, device=device, run_id=str(folder))
            _refuse_unsuited_model(model)
            ledger.describe(model.fingerprint, model.identity)
            wording = WORLD if default_batteries([spec]) == ("microworld",) else ENGLISH
            probe = _ModelRequests(model, wording, ledger, advance)
            rows += probe.rows(probes)
            # equal requests are asked once, and the total counts them all
            advance(max(0, _n_requests(probes) - probe.n_answered), spec.name)
            facts.append({key: value for key, value in model.facts.items() if key in schema.MODELS.names})
            del model, probe
            gc.collect()
    return schema.df_from_rows(rows, schema.OUTCOMES), schema.df_from_rows(facts, schema.MODELS)


def _n_requests(probes: Sequence[_ChoiceItem]) -> int:
    """Requests to one model: thoughts for each question, and each choice in each way."""
    n_thoughts = sum(1 + (p.renumbered is not None) for p in probes)
    n_variants_by_probe = ((p, 2 + bool(p.item.rationale) + (p.renumbered is not None)) for p in probes)
    return n_thoughts + sum(n * len(p.choices) for p, n in n_variants_by_probe)


def _earlier_answers(folder: Path) -> OutcomesAndModels | None:
    """The answers that the folder holds.

    Raises
    ------
    UsageError
        It is a run directory, whose tables belong to the run.
    """
    if (folder / "run.json").exists():
        raise UsageError(f"{folder}: is the directory of a run, whose tables are its own. Choose another folder.")
    return read_answers(folder) if (folder / "outcomes.parquet").is_file() else None


def _store_answers(stored_answers: OutcomesAndModels | None, answers: OutcomesAndModels, folder: Path) -> None:
    """Add answers to those that the folder holds; a model's answers to a task replace its earlier ones."""
    outcomes, models = answers
    if stored_answers is not None:
        new_keys = outcomes[["model", "task"]].drop_duplicates()
        remaining = stored_answers[0].merge(new_keys, how="left", indicator=True)["_merge"].to_numpy() == "left_only"
        other_model_rows = stored_answers[1][~stored_answers[1]["model"].isin(models["model"])]
        outcomes, models = join_answers([(stored_answers[0][remaining], other_model_rows), answers])
    schema.write_df(outcomes, folder / "outcomes.parquet", schema.OUTCOMES)
    schema.write_df(models, folder / "models.parquet", schema.MODELS)


def _refuse_unsuited_model(model: LoadedModel) -> None:
    if not model.can_score:
        raise UsageError(f"model {model.name}: {_REFUSAL_PHRASE} without log-likelihoods: {model.no_scores_reason}.")
    if model.prompting.enable_thinking:
        raise UsageError(f"model {model.name}: {_REFUSAL_PHRASE} with enable_thinking=on. Say enable_thinking=off.")


def _sample_probes(items: Sequence[UnlabelledItem], n_items: int) -> list[_ChoiceItem]:
    """A seeded sample of each task, as choices."""
    items_by_task: dict[str, list[UnlabelledItem]] = defaultdict(list)
    for item in items:
        if not item.no_task and len(item.question.text) <= _MAX_QUESTION_LENGTH:
            items_by_task[item.task].append(item)
    probes = []
    for task, members in items_by_task.items():
        sample = [members[i] for i in sample_positions(len(members), n_items, 0, task)]
        rng = np.random.default_rng([0, int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big")])
        numbers = NumberSubstitution(item.question.text for item in sample)
        texts, targets = [i.question.text for i in sample], [i.question.target for i in sample]
        choices_by_item = draw_choices(texts, targets, _N_PROBE_CHOICES, rng)
        for item, item_choices in zip(sample, choices_by_item, strict=True):
            choices = item.question.choices or item_choices
            if len(choices) > 1 and all(choice.strip() for choice in choices):
                target = item.question.target
                gold = choices.index(target) if target in choices else None
                probes.append(_ChoiceItem(item, choices, gold, numbers.renumbered(item.question.text, rng)))
    return probes


@dataclass
class _ModelRequests:
    """All requests to one model, and its rows of `outcomes`.

    Thoughts are written first, since the contexts of ``cot`` and ``numbers`` contain them.
    """

    model: LoadedModel
    wording: PromptWording
    ledger: Ledger
    advance: Callable[..., None]
    n_answered: int = 0
    """Requests answered so far, from the ledger or by the model; equal requests count once."""

    def rows(self, probes: Sequence[_ChoiceItem]) -> list[dict[str, Any]]:
        """Rows of `outcomes`, one for each item and variant."""
        wording = self.wording
        questions = [self._format_question(p.item.question.text) for p in probes]
        renumbered = {i: self._format_question(p.renumbered) for i, p in enumerate(probes) if p.renumbered is not None}
        all_prompts = [*questions, *renumbered.values()]
        thoughts = self._generate_thoughts(all_prompts)
        cot_prompts = [wording.cot_prompt(question, t.value) for question, t in zip(all_prompts, thoughts, strict=True)]
        contexts: dict[str, Mapping[int, str]] = {  # variant → index of the probe → what is read before a choice
            "direct": dict(enumerate(map(wording.without, questions))),
            "cot": dict(enumerate(cot_prompts[: len(questions)])),
            "fact": {
                i: wording.fact_prompt(questions[i], p.item.rationale) for i, p in enumerate(probes) if p.item.rationale
            },
            "numbers": dict(zip(renumbered, cot_prompts[len(questions) :], strict=True)),
        }
        requests = [(variant, i, context) for variant, prompts in contexts.items() for i, context in prompts.items()]
        logprobs = self._score([(context, probes[i].choices) for _, i, context in requests])
        return [
            self._row(probes[i], variant, values, thoughts[i].stop_reason if variant == "cot" else None)
            for (variant, i, _), values in zip(requests, logprobs, strict=True)
        ]

    def _format_question(self, text: str) -> str:
        """The question without its cue, in the model's chat template where it has one."""
        bare_question = self.wording.strip_cue(text)
        prompting = self.model.prompting
        if not prompting.chat_template:
            return bare_question
        system = [{"role": "system", "content": prompting.system_prompt}] if prompting.system_prompt else []
        return str(self.model.lm.apply_chat_template([*system, {"role": "user", "content": bare_question}]))

    def _generate_thoughts(self, questions: Sequence[str]) -> list[ModelResponse]:
        """A chain of thought for each question; at most 5/8 of the model's length: the rest is the prompt's."""
        context_length = int(getattr(self.model.lm, "max_length", 1 << 30))
        settings = {
            "until": list(self.wording.end),
            "max_gen_toks": max(1, min(self.wording.max_tokens, context_length * 5 // 8)),
            "do_sample": False,
            "temperature": 0.0,
        }
        return self._fetch_responses("generate_until", [(self.wording.thought_prompt(q), settings) for q in questions])

    def _score(self, requests: Sequence[tuple[str, tuple[str, ...]]]) -> list[list[float]]:
        """Log-likelihoods of the choices behind each context."""
        scoring_pairs = [(context, self.wording.answer(choice)) for context, choices in requests for choice in choices]
        values = iter(self._fetch_responses("loglikelihood", scoring_pairs))
        return [[float(next(values).value[0]) for _ in choices] for _, choices in requests]

    def _fetch_responses(self, kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[ModelResponse]:
        from lm_eval.api.instance import Instance

        instances = [
            Instance(request_type=kind, doc={}, arguments=pair, idx=0, metadata=("classify", n, 1))
            for n, pair in enumerate(arguments)
        ]
        responses = respond(self.model, instances, self.ledger, progress=self._advance)
        return [repeats[0] for repeats in responses]

    def _advance(self, n_new_responses: int, n_ledger_responses: int) -> None:
        self.n_answered += n_new_responses + n_ledger_responses
        self.advance(n_new_responses + n_ledger_responses, self.model.name)

    def _row(
        self, probe: _ChoiceItem, variant: str, logprobs: Sequence[float], stop_reason: str | None
    ) -> dict[str, Any]:
        """One row of `outcomes`; thoughts that met their limit may be why the answer is wrong."""
        best_choice = int(np.argmax(logprobs))
        # with other numbers another answer is right, and nobody knows which
        is_scorable = probe.gold is not None and variant != "numbers"
        score = float(best_choice == probe.gold) if is_scorable else math.nan
        return {
            "model": self.model.name,
            "battery": "classify",
            "task": probe.item.task,
            "capability": probe.item.capability,
            "item": probe.item.item,
            "variant": variant,
            "cluster": probe.item.item,
            "format": "choose",
            "metric": "acc",
            "value": score,
            "score": score,
            "status": "scored" if is_scorable else "error",
            "stop_reason": stop_reason,
            "chance": 1 / len(probe.choices),
            "prediction": probe.choices[best_choice],
            "target": probe.choices[probe.gold] if probe.gold is not None else None,
            "response": json.dumps([round(float(value), 6) for value in logprobs]),
        }

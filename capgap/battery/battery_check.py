"""Check of a battery: prompts as they will be sent, and a proof of each scorer by right and by empty answers."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from capgap.battery.answer_scoring import extract_answer
from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import CustomTask, LmEvalTask
from capgap.battery.items import Item
from capgap.battery.lm_eval_config import config_problem, lm_eval_task_config
from capgap.battery.lm_eval_groups import leaf_task_names
from capgap.battery.lm_eval_output import quiet
from capgap.battery.prepared_task import PreparedTask
from capgap.battery.task_preparation import prepare_task, training_items
from capgap.errors import BatteryError

__all__ = ["PromptSample", "TaskCheckReport", "check_battery", "mean_primary_score"]


@dataclass(frozen=True)
class PromptSample:
    """One item as it will be sent."""

    item: str
    """Its id."""
    prompt: str
    """All that the model reads, solved examples included, without a chat template."""
    choices: tuple[str, ...] | None
    """The continuations whose log-likelihoods are compared; None where an answer is generated."""
    targets: tuple[str, ...]
    """What counts as right."""
    chance: float | None
    """Score of a guess."""


@dataclass(frozen=True)
class TaskCheckReport:
    """The check of a task in one variant: samples of its prompts, the proof of its scorer, problems and notes."""

    name: str
    """The task."""
    variant: str
    """How it is asked."""
    prepared: PreparedTask | None = None
    """Its items and its lm-eval Task; None where it could not be prepared."""
    samples: tuple[PromptSample, ...] = ()
    """Two items."""
    gold: float | None = None
    """Mean primary score of right answers; 1 proves the scorer."""
    empty: float | None = None
    """Mean primary score of empty answers, for choices of wrong ones; 0 proves the scorer."""
    problems: tuple[str, ...] = ()
    """What makes the task useless; empty where all is well."""
    notes: tuple[str, ...] = ()
    """What a reader should know."""
    missing_data: bool = False
    """Whether its data are not in the cache; its name and configuration were checked all the same."""

    @property
    def ok(self) -> bool:
        """Whether it can be used, once its data are there."""
        return not self.problems


def check_battery(battery: Battery, *, limit: int | None = None) -> Iterator[TaskCheckReport]:
    """One check for each task and variant, in order; a task that fails does not hide the others.

    Parameters
    ----------
    battery
        From `load_battery`.
    limit
        At most so many items a task; by default the battery's own.
    """
    for task in battery.tasks:
        try:
            prepared_tasks = prepare_task(battery, task, limit=limit)
        except BatteryError as error:
            yield from _report_failure(battery, task, error)
            continue
        for variant in prepared_tasks:
            yield _check_ready_task(battery, task, variant)


def mean_primary_score(prepared_task: PreparedTask, answer: Callable[[Item, Any], Any]) -> float:
    """The mean primary score of made-up responses, through the task's own requests, filters and scorer.

    Parameters
    ----------
    prepared_task
        The task.
    answer
        Item and lm-eval Instance → the response: text, or (log-likelihood, is greedy).
    """
    task = prepared_task.lm_task
    metric, filter_name = prepared_task.primary.split(",")
    _build_requests(task)
    instances_by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        instance.resps = [answer(prepared_task.items[instance.doc_id], instance)] * (instance.repeats or 1)
        instances_by_doc[instance.doc_id].append(instance)
    task.apply_filters()
    scores = []
    for doc_id, doc in enumerate(task.eval_docs):
        instances = sorted(instances_by_doc[doc_id], key=lambda instance: instance.idx)
        values = task.process_results(doc, [instance.filtered_resps[filter_name] for instance in instances])
        scores.append(float(values[metric]))
    return sum(scores) / len(scores)


def _build_requests(task: Any) -> None:
    with quiet():
        task.build_all_requests()


def right_answer(prepared_task: PreparedTask, item: Item) -> str | None:
    """A generated answer that should score 1; None where `extract` matches nothing that could be made up."""
    target = item.targets[0] if item.targets else ""
    if prepared_task.extract is None:
        return target
    steps = item.rationale or ""
    candidates = [item.shot, steps, f"{steps} {target}", f"{steps}\n{target}", target]
    candidates.append(_make_matching_text(prepared_task.extract, target))
    targets = {text.strip() for text in item.targets}
    answers = {text: extract_answer(text, prepared_task.extract) or "" for text in candidates}
    exact_candidates = [text for text, answer in answers.items() if answer in targets]
    substring_matches = [text for text, answer in answers.items() if any(target in answer for target in targets)]
    return next(iter([*exact_candidates, *substring_matches]), None)


def _make_matching_text(extract: str, target: str) -> str:
    """A text that a simple expression matches: the target in place of its first group."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)\((?!\?).*?(?<!\\)\)", lambda _: target, extract, count=1))


def _report_failure(battery: Battery, task: CustomTask | LmEvalTask, error: BatteryError) -> Iterator[TaskCheckReport]:
    """A task that could not be prepared; where only its data are missing, its name and configuration are checked."""
    message = str(error)
    missing = "capgap battery fetch" in message
    if not missing:
        yield TaskCheckReport(task.name, "default", problems=(message,))
        return
    if isinstance(task, CustomTask):
        yield TaskCheckReport(task.name, "default", notes=(message,), missing_data=True)
        return
    for name in leaf_task_names(task.lm_eval):
        try:
            config = lm_eval_task_config(name, allow_code=battery.allow_code)
        except BatteryError as config_error:
            yield TaskCheckReport(name, "default", problems=(str(config_error),))
            continue
        problem = config_problem(config, task)
        problems = (f"{battery.where(task)}: {problem}",) if problem else ()
        config_summary = f"{config.output_type}, scores: {'; '.join(config.primaries)}, data: {config.data}: not cached"
        yield TaskCheckReport(name, "default", problems=problems, notes=(config_summary,), missing_data=True)


def _check_ready_task(battery: Battery, task: CustomTask | LmEvalTask, prepared_task: PreparedTask) -> TaskCheckReport:
    notes = list(_find_task_notes(battery, task, prepared_task))
    samples = tuple(_sample_prompts(prepared_task))
    if prepared_task.score == "external":
        notes.append("scored elsewhere: there is no scorer to prove")
        return TaskCheckReport(prepared_task.name, prepared_task.variant, prepared_task, samples, notes=tuple(notes))
    problems: list[str] = []
    gold: float | None = None
    empty: float | None = None
    respond = partial(_response, prepared_task)
    is_unanswerable = prepared_task.format == "generate" and right_answer(prepared_task, prepared_task.items[0]) is None
    try:
        if not is_unanswerable:
            gold = mean_primary_score(prepared_task, partial(respond, is_correct=True))
        empty = mean_primary_score(prepared_task, partial(respond, is_correct=False))
    except Exception as error:  # lm-eval's own scorers fail in their own ways
        problems.append(f"the scorer fails: {type(error).__name__}: {error}")
    if is_unanswerable:
        problems.append(
            f"no right answer matches extract {prepared_task.extract!r}. Give `shot`, an answer as it should look."
        )
    # A scorer of lm-eval's is what it is: worth a note. One that the battery chose is the battery's mistake.
    scorer_findings = problems if isinstance(task, CustomTask) else notes
    if gold is not None and gold < 1:
        scorer_findings.append(f"right answers score {gold:.2f}, expected 1.00")
    if empty is not None and empty > 0:
        scorer_findings.append(f"empty answers score {empty:.2f}, expected 0.00")
    return TaskCheckReport(
        prepared_task.name, prepared_task.variant, prepared_task, samples, gold, empty, tuple(problems), tuple(notes)
    )


def _response(prepared_task: PreparedTask, item: Item, request: Any, is_correct: bool) -> Any:
    """The response of a made-up model that is always right, or always empty, to a request."""
    if request.request_type == "generate_until":
        return (right_answer(prepared_task, item) or "") if is_correct else ""
    if prepared_task.format == "generate":
        return (0.0, True) if is_correct else (-1e3, False)
    # For choices nothing can be left empty: the wrong ones are preferred, by more than their lengths can undo.
    is_gold = request.idx in item.gold
    return (-1e-3, True) if is_gold == is_correct else (-1e6, False)


def _sample_prompts(prepared_task: PreparedTask) -> Iterator[PromptSample]:
    """The first item and the last, as the model reads them."""
    task = prepared_task.lm_task
    _build_requests(task)
    for position in sorted({0, len(prepared_task.items) - 1}):
        item = prepared_task.items[position]
        requests = [instance.args for instance in task.instances if instance.doc_id == position]
        continuations = tuple(str(arguments[1]) for arguments in requests)
        yield PromptSample(
            item=item.item,
            prompt=str(requests[0][0]),
            choices=continuations if prepared_task.format == "choose" else None,
            targets=item.targets,
            chance=item.chance,
        )


def _find_task_notes(battery: Battery, task: CustomTask | LmEvalTask, prepared_task: PreparedTask) -> Iterator[str]:
    if all(item.capability is None for item in prepared_task.items):
        yield "no capability: the classifier will decide"
    if isinstance(task, CustomTask) and "\n" in prepared_task.stop and _uses_default_stop(task, prepared_task.variant):
        yield f"stop {list(prepared_task.stop)} ends an answer that is to be extracted: longer answers would be cut"
    if isinstance(task, CustomTask) and task.data.train is not None and prepared_task.variant == "default":
        prompts = {item.prompt for item in prepared_task.items}
        n_leaked_items = sum(item.prompt in prompts for item in training_items(battery, task=task.name))
        if n_leaked_items:
            yield f"{n_leaked_items} training items ask what an evaluated item asks"
    if task.guess is not None and prepared_task.format == "generate":
        yield f"a guess counts {task.guess.value}, because {task.guess.because}"
    if len(prepared_task.items) < prepared_task.n_available:
        yield f"a sample of {len(prepared_task.items)} from {prepared_task.n_available} items"


def _uses_default_stop(task: CustomTask, variant: str) -> bool:
    """Whether an answer is extracted here and nobody said here where it ends."""
    spec = task if variant == "default" else task.variants[variant]
    return spec.extract is not None and spec.stop is None


def summary(task_reports: Sequence[TaskCheckReport]) -> str:
    """One line: tasks, items, what is missing, what is wrong."""
    items = sum(len(task_report.prepared.items) for task_report in task_reports if task_report.prepared is not None)
    missing = sum(task_report.missing_data for task_report in task_reports)
    n_failed_checks = sum(not task_report.ok for task_report in task_reports)
    summary_phrases = [f"{len(task_reports)} task{'s' if len(task_reports) != 1 else ''}", f"{items:,} items"]
    summary_phrases += [f"{missing} without data"] if missing else []
    summary_phrases += [f"{n_failed_checks} wrong"] if n_failed_checks else ["no mistake"]
    return ", ".join(summary_phrases)

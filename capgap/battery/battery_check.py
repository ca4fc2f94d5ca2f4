"""Check of a battery: prompts as they will be sent, and a proof of each scorer by right and by empty answers."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from capgap.battery.answer_scoring import extract_answer
from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import DataTask, LmEvalTask
from capgap.battery.items import Item
from capgap.battery.lm_eval_config import lm_eval_task_config, static_problem
from capgap.battery.lm_eval_groups import leaf_task_names
from capgap.battery.lm_eval_output import quiet
from capgap.battery.prepared_task import PreparedTask
from capgap.battery.task_preparation import prepare_task, training_items
from capgap.errors import BatteryError

__all__ = ["PromptSample", "TaskCheck", "check_battery", "proof"]


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
class TaskCheck:
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


def check_battery(battery: Battery, *, limit: int | None = None) -> Iterator[TaskCheck]:
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
            prepared = prepare_task(battery, task, limit=limit)
        except BatteryError as error:
            yield from _check_unprepared(battery, task, error)
            continue
        for variant in prepared:
            yield _check_prepared(battery, task, variant)


def proof(prepared: PreparedTask, answer: Callable[[Item, Any], Any]) -> float:
    """The mean primary score of made-up responses, through the task's own requests, filters and scorer.

    Parameters
    ----------
    prepared
        The task.
    answer
        Item and lm-eval Instance → the response: text, or (log-likelihood, is greedy).
    """
    task = prepared.lm_task
    metric, filter_name = prepared.primary.split(",")
    _build(task)
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        instance.resps = [answer(prepared.items[instance.doc_id], instance)] * (instance.repeats or 1)
        by_doc[instance.doc_id].append(instance)
    task.apply_filters()
    scores = []
    for doc_id, doc in enumerate(task.eval_docs):
        instances = sorted(by_doc[doc_id], key=lambda instance: instance.idx)
        values = task.process_results(doc, [instance.filtered_resps[filter_name] for instance in instances])
        scores.append(float(values[metric]))
    return sum(scores) / len(scores)


def _build(task: Any) -> None:
    with quiet():
        task.build_all_requests()


def right_answer(prepared: PreparedTask, item: Item) -> str | None:
    """A generated answer that should score 1; None where `extract` matches nothing that could be made up."""
    target = item.targets[0] if item.targets else ""
    if prepared.extract is None:
        return target
    steps = item.rationale or ""
    candidates = [item.shot, steps, f"{steps} {target}", f"{steps}\n{target}", target]
    candidates.append(_text_matching(prepared.extract, target))
    targets = {text.strip() for text in item.targets}
    answers = {text: extract_answer(text, prepared.extract) or "" for text in candidates}
    exact = [text for text, answer in answers.items() if answer in targets]
    loose = [text for text, answer in answers.items() if any(target in answer for target in targets)]
    return next(iter([*exact, *loose]), None)


def _text_matching(extract: str, target: str) -> str:
    """A text that a simple expression matches: the target in place of its first group."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)\((?!\?).*?(?<!\\)\)", lambda _: target, extract, count=1))


def _check_unprepared(battery: Battery, task: DataTask | LmEvalTask, error: BatteryError) -> Iterator[TaskCheck]:
    """A task that could not be prepared; where only its data are missing, its name and configuration are checked."""
    message = str(error)
    missing = "capgap battery fetch" in message
    if not missing:
        yield TaskCheck(task.name, "default", problems=(message,))
        return
    if isinstance(task, DataTask):
        yield TaskCheck(task.name, "default", notes=(message,), missing_data=True)
        return
    for name in leaf_task_names(task.lm_eval):
        try:
            config = lm_eval_task_config(name, allow_code=battery.allow_code)
        except BatteryError as config_error:
            yield TaskCheck(name, "default", problems=(str(config_error),))
            continue
        problem = static_problem(config, task)
        problems = (f"{battery.where(task)}: {problem}",) if problem else ()
        note = f"{config.output_type}, scores: {'; '.join(config.primaries)}, data: {config.data}: not cached"
        yield TaskCheck(name, "default", problems=problems, notes=(note,), missing_data=True)


def _check_prepared(battery: Battery, task: DataTask | LmEvalTask, prepared: PreparedTask) -> TaskCheck:
    notes = list(_notes(battery, task, prepared))
    samples = tuple(_samples(prepared))
    if prepared.score == "external":
        notes.append("scored elsewhere: there is no scorer to prove")
        return TaskCheck(prepared.name, prepared.variant, prepared, samples, notes=tuple(notes))
    problems: list[str] = []
    gold: float | None = None
    empty: float | None = None
    unanswerable = prepared.format == "generate" and right_answer(prepared, prepared.items[0]) is None
    try:
        gold = None if unanswerable else proof(prepared, lambda item, request: _response(prepared, item, request, True))
        empty = proof(prepared, lambda item, request: _response(prepared, item, request, False))
    except Exception as error:  # lm-eval's own scorers fail in their own ways
        problems.append(f"the scorer fails: {type(error).__name__}: {error}")
    if unanswerable:
        problems.append(
            f"no right answer matches extract {prepared.extract!r}. Give `shot`, an answer as it should look."
        )
    # A scorer of lm-eval's is what it is: worth a note. One that the battery chose is the battery's mistake.
    doubts = problems if isinstance(task, DataTask) else notes
    if gold is not None and gold < 1:
        doubts.append(f"right answers score {gold:.2f}, expected 1.00")
    if empty is not None and empty > 0:
        doubts.append(f"empty answers score {empty:.2f}, expected 0.00")
    return TaskCheck(prepared.name, prepared.variant, prepared, samples, gold, empty, tuple(problems), tuple(notes))


def _response(prepared: PreparedTask, item: Item, request: Any, right: bool) -> Any:
    """The response of a made-up model that is always right, or always empty, to a request."""
    if request.request_type == "generate_until":
        return (right_answer(prepared, item) or "") if right else ""
    if prepared.format == "generate":
        return (0.0, True) if right else (-1e3, False)
    # For choices nothing can be left empty: the wrong ones are preferred, by more than their lengths can undo.
    is_gold = request.idx in item.gold
    return (-1e-3, True) if is_gold == right else (-1e6, False)


def _samples(prepared: PreparedTask, count: int = 2) -> Iterator[PromptSample]:
    task = prepared.lm_task
    last = len(prepared.items) - 1
    positions = dict.fromkeys(round(n * last / max(count - 1, 1)) for n in range(count))  # first to last, no two alike
    _build(task)
    for position in positions:
        item = prepared.items[position]
        requests = [instance.args for instance in task.instances if instance.doc_id == position]
        continuations = tuple(str(arguments[1]) for arguments in requests)
        yield PromptSample(
            item=item.item,
            prompt=str(requests[0][0]),
            choices=continuations if prepared.format == "choose" else None,
            targets=item.targets,
            chance=item.chance,
        )


def _notes(battery: Battery, task: DataTask | LmEvalTask, prepared: PreparedTask) -> Iterator[str]:
    if all(item.capability is None for item in prepared.items):
        yield "no capability: the classifier will decide"
    if isinstance(task, DataTask) and "\n" in prepared.stop and _inherits_stop(task, prepared.variant):
        yield f"stop {list(prepared.stop)} ends an answer that is to be extracted: steps on several lines would be cut"
    if isinstance(task, DataTask) and task.data.train is not None and prepared.variant == "default":
        prompts = {item.prompt for item in prepared.items}
        n_leaked = sum(item.prompt in prompts for item in training_items(battery, task=task.name))
        if n_leaked:
            yield f"{n_leaked} training items ask what an evaluated item asks"
    if len(prepared.items) < prepared.n_available:
        yield f"a sample of {len(prepared.items)} from {prepared.n_available} items"


def _inherits_stop(task: DataTask, variant: str) -> bool:
    """Whether an answer is extracted here and nobody said here where it ends."""
    spec = task if variant == "default" else task.variants[variant]
    return spec.extract is not None and spec.stop is None


def summary(checks: Sequence[TaskCheck]) -> str:
    """One line: tasks, items, what is missing, what is wrong."""
    items = sum(len(check.prepared.items) for check in checks if check.prepared is not None)
    missing = sum(check.missing_data for check in checks)
    wrong = sum(not check.ok for check in checks)
    parts = [f"{len(checks)} task{'s' if len(checks) != 1 else ''}", f"{items:,} items"]
    parts += [f"{missing} without data"] if missing else []
    parts += [f"{wrong} wrong"] if wrong else ["no mistake"]
    return ", ".join(parts)

"""The proof of a battery: what will be sent, and that right answers score 1 and empty ones 0."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from capgap.battery.answer_scoring import extract_answer
from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import DataTask, LmEvalTask
from capgap.battery.items import Item
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
    """What was found out about a task in one variant."""

    name: str
    """The task."""
    variant: str
    """How it is asked."""
    prepared: PreparedTask | None
    """Its items and its lm-eval Task; None where it could not be prepared."""
    samples: tuple[PromptSample, ...]
    """Two items."""
    gold: float | None
    """Mean primary score of right answers; 1 proves the scorer."""
    empty: float | None
    """Mean primary score of empty answers, for choices of wrong ones; 0 proves the scorer."""
    problems: tuple[str, ...]
    """What makes the task useless; empty where all is well."""
    notes: tuple[str, ...]
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
            yield from _unprepared(battery, task, error)
            continue
        for one in prepared:
            yield _checked(battery, task, one)


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
    metric, filtered = prepared.primary.split(",")
    _build(task)
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        instance.resps = [answer(prepared.items[instance.doc_id], instance)] * (instance.repeats or 1)
        by_doc[instance.doc_id].append(instance)
    task.apply_filters()
    scores = []
    for doc_id, doc in enumerate(task.eval_docs):
        asked = sorted(by_doc[doc_id], key=lambda instance: instance.idx)
        found = task.process_results(doc, [instance.filtered_resps[filtered] for instance in asked])
        scores.append(float(found[metric]))
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
    made = [item.shot, steps, f"{steps} {target}", f"{steps}\n{target}", target, _filled(prepared.extract, target)]
    wanted = {text.strip() for text in item.targets}
    exact = [text for text in made if extract_answer(text, prepared.extract) in wanted]
    loose = [text for text in made if any(t in (extract_answer(text, prepared.extract) or "") for t in wanted)]
    return next(iter([*exact, *loose]), None)


def _filled(extract: str, target: str) -> str:
    """A text that a simple expression matches: the target in place of its first group."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)\((?!\?).*?(?<!\\)\)", lambda _: target, extract, count=1))


def _unprepared(battery: Battery, task: DataTask | LmEvalTask, error: BatteryError) -> Iterator[TaskCheck]:
    """A task without its data: its name and configuration are checked all the same."""
    told = str(error)
    missing = "capgap battery fetch" in told
    if not (missing and isinstance(task, LmEvalTask)):
        yield _unproven(task.name, () if missing else (told,), (told,) if missing else (), missing)
        return
    from capgap.battery.lm_eval_config import lm_eval_task_config, static_problem
    from capgap.battery.lm_eval_groups import leaf_task_names

    for name in leaf_task_names(task.lm_eval):
        try:
            leaf = lm_eval_task_config(name, allow_code=battery.allow_code)
        except BatteryError as wrong:
            yield _unproven(name, (str(wrong),))
            continue
        problem = static_problem(leaf, task)
        note = f"{leaf.output_type}, scores: {'; '.join(leaf.primaries)}, data: {leaf.data}: not cached"
        yield _unproven(name, (f"{battery.where(task)}: {problem}",) if problem else (), (note,), missing_data=True)


def _unproven(
    name: str, problems: tuple[str, ...], notes: tuple[str, ...] = (), missing_data: bool = False
) -> TaskCheck:
    return TaskCheck(name, "default", None, (), None, None, problems, notes, missing_data)


def _checked(battery: Battery, task: DataTask | LmEvalTask, prepared: PreparedTask) -> TaskCheck:
    own = isinstance(task, DataTask)
    problems: list[str] = []
    notes = list(_notes(battery, task, prepared))
    gold: float | None = None
    empty: float | None = None
    if prepared.score == "external":
        notes.append("scored elsewhere: there is no scorer to prove")
        return TaskCheck(
            prepared.name, prepared.variant, prepared, tuple(_samples(prepared)), None, None, (), tuple(notes)
        )
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
    if gold is not None and gold < 1:
        (problems if own else notes).append(f"right answers score {gold:.2f}, expected 1.00")
    if empty is not None and empty > 0:
        (problems if own else notes).append(f"empty answers score {empty:.2f}, expected 0.00")
    samples = tuple(_samples(prepared))
    return TaskCheck(prepared.name, prepared.variant, prepared, samples, gold, empty, tuple(problems), tuple(notes))


def _response(prepared: PreparedTask, item: Item, request: Any, right: bool) -> Any:
    """What a model that knows (or says nothing) would answer to this request."""
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
    shown = dict.fromkeys(round(n * last / max(count - 1, 1)) for n in range(count))
    _build(task)
    first = {instance.doc_id: instance for instance in reversed(task.instances)}
    for position in shown:
        item = prepared.items[position]
        continuations = tuple(str(i.args[1]) for i in task.instances if i.doc_id == position)
        yield PromptSample(
            item=item.item,
            prompt=str(first[position].args[0]),
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
        asked = {item.prompt for item in prepared.items}
        both = sum(item.prompt in asked for item in training_items(battery, task=task.name))
        if both:
            yield f"{both} training items ask what an evaluated item asks"
    if len(prepared.items) < prepared.n_available:
        yield f"a sample of {len(prepared.items)} from {prepared.n_available} items"


def _inherits_stop(task: DataTask, variant: str) -> bool:
    """Whether an answer is extracted here and nobody said here where it ends."""
    asked = task if variant == "default" else task.variants[variant]
    return asked.extract is not None and asked.stop is None


def summary(checks: Sequence[TaskCheck]) -> str:
    """One line: tasks, items, what is missing, what is wrong."""
    items = sum(len(check.prepared.items) for check in checks if check.prepared is not None)
    missing = sum(check.missing_data for check in checks)
    wrong = sum(not check.ok for check in checks)
    parts = [f"{len(checks)} task{'s' if len(checks) != 1 else ''}", f"{items:,} items"]
    parts += [f"{missing} without data"] if missing else []
    parts += [f"{wrong} wrong"] if wrong else ["no mistake"]
    return ", ".join(parts)

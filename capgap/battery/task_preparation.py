"""From a battery to prepared tasks: items drawn by a seed, few-shot pools, delimiters, and lm-eval Tasks over them."""

from collections import Counter
from collections.abc import Sequence

from capgap.battery.answer_scoring import TEXT_SCORERS
from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import CustomTask, LmEvalTask
from capgap.battery.items import Item, make_items, sample_positions, shuffle_positions
from capgap.battery.lm_eval_groups import check_metric, lm_eval_training_items, prepare_lm_eval_task
from capgap.battery.lm_eval_output import quiet
from capgap.battery.prepared_task import PreparedTask
from capgap.errors import BatteryError, UsageError, suggestion


def prepare_battery(battery: Battery, *, limit: int | None = None) -> list[PreparedTask]:
    """Every task of the battery, in every variant, ready to be asked.

    Parameters
    ----------
    battery
        From `load_battery`.
    limit
        At most so many items a task, before the battery's own limits. A seeded sample, in the order of the data; a
        larger limit keeps the items of a smaller one.

    Raises
    ------
    BatteryError
        Data are missing or not cached, an item cannot be rendered, a metric is unknown, two tasks have one name.
    UsageError
        `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected 1 or more.")
    prepared_tasks: list[PreparedTask] = []
    for task in battery.tasks:
        prepared_tasks += prepare_task(battery, task, limit=limit)
    counts = Counter(p.name for p in prepared_tasks if p.variant == "default")
    duplicate_name = next((name for name, count in counts.items() if count > 1), None)
    if duplicate_name is not None:
        raise BatteryError(f"{battery.path}: the task {duplicate_name!r} is named twice, by itself or through groups.")
    return prepared_tasks


def prepare_task(battery: Battery, task: CustomTask | LmEvalTask, *, limit: int | None = None) -> list[PreparedTask]:
    """One entry of the battery: a task and its variants, or what an lm-eval name stands for.

    Raises
    ------
    BatteryError
        See `prepare_battery`.
    """
    limit = limit or task.limit or battery.defaults.limit
    if isinstance(task, LmEvalTask):
        return prepare_lm_eval_task(battery, task, limit)
    error_at = battery.where(task)
    rows = battery.rows(task)
    items_by_variant = make_items(task, rows, error_at)
    positions = sample_positions(len(rows), limit, battery.defaults.seed, task.name)
    fewshot_rows = battery.rows(task, "fewshot") or battery.rows(task, "train")
    pools = make_items(task, fewshot_rows, error_at) if fewshot_rows else {}
    result = []
    for variant, items in items_by_variant.items():
        variant_task = task if variant == "default" else task.varied(variant)
        variant_error_at = error_at if variant == "default" else f"{error_at}, variant {variant!r}"
        result.append(_prepare_variant(battery, variant_task, items, positions, pools.get(variant), variant_error_at))
    return result


def training_items(battery: Battery, *, task: str | None = None) -> list[Item]:
    """The items of the tasks' training parts, which distillation may ask, in the order of the data.

    Parameters
    ----------
    battery
        From `load_battery`.
    task
        Only this task; by default all that have a training part.

    Raises
    ------
    BatteryError
        No such task, or no training part.
    """
    tasks = [t for t in battery.tasks if task is None or t.name == task]
    if not tasks:
        raise BatteryError(f"{battery.path}: no task {task!r}.{suggestion(str(task), [t.name for t in battery.tasks])}")
    items: list[Item] = []
    for entry in tasks:
        if isinstance(entry, LmEvalTask):
            items += lm_eval_training_items(battery, entry)
        elif entry.data.train is not None:
            rows = battery.rows(entry, "train")
            items += make_items(entry, rows, f"{battery.where(entry)}, key 'data.train'", variants=False)["default"]
    if not items:
        task_phrase = f"task {task!r} has" if task else "no task has"
        raise BatteryError(
            f"{battery.path}: {task_phrase} {'no ' if task else 'a '}training part. Add data: {{train: FILE}}."
        )
    return items


def _prepare_variant(
    battery: Battery,
    task: CustomTask,
    items: Sequence[Item],
    positions: Sequence[int],
    fewshot_items: Sequence[Item] | None,
    error_at: str,
) -> PreparedTask:
    """One task as one variant asks it."""
    from capgap.battery.lm_eval_tasks import rendered_task

    metrics = _lm_eval_metric_names(task, error_at)
    shots = task.num_fewshot if task.num_fewshot is not None else battery.defaults.num_fewshot
    chosen = [items[position] for position in positions]
    pool = _fewshot_pool(items, fewshot_items, shots, battery.defaults.seed, error_at)
    if pool and battery.defaults.fewshot == "lm_eval" and {item.prompt for item in pool} & {i.prompt for i in chosen}:
        raise BatteryError(
            f"{error_at}: fewshot: lm_eval would show an item its own answer. Name data.fewshot, or 'fixed'."
        )
    with quiet():
        lm_task = rendered_task(
            task,
            chosen,
            pool,
            num_fewshot=shots,
            defaults=battery.defaults,
            delimiter=answer_delimiter(task, [*chosen, *pool], error_at),
            metrics=metrics,
        )
    is_generation = task.format == "generate"
    return PreparedTask(
        battery=battery.name,
        name=task.name,
        variant=chosen[0].variant,
        format=task.format,
        num_fewshot=shots,
        primary=_primary_metric(task, metrics, error_at),
        items=tuple(chosen),
        n_available=len(items),
        lm_task=lm_task,
        score=task.score_name,
        extract=task.extract,
        stop=tuple(task.stop if task.stop is not None else ["\n"]) if is_generation else (),
        max_tokens=(task.max_tokens or 256) if is_generation else None,
        fewshot=battery.defaults.fewshot,
        repeats=task.repeats or 1,
    )


def _lm_eval_metric_names(task: CustomTask, error_at: str) -> tuple[str, ...]:
    """lm-eval's names of the metrics, the primary one first."""
    score = task.score_name
    if score in TEXT_SCORERS or score == "external":
        return (score,)
    if score in ("choice", "choice_norm"):
        return ("acc", "acc_norm") if score == "choice" else ("acc_norm", "acc")
    check_metric(score, task.format, f"{error_at}, key 'score'")
    return (score,)


def _primary_metric(task: CustomTask, metrics: Sequence[str], error_at: str) -> str:
    if task.primary is None:
        return f"{metrics[0]},none"
    metric, _, filter_name = task.primary.partition(",")
    if metric.strip() not in metrics or filter_name.strip() not in ("", "none"):
        computed_metrics = [f"{name},none" for name in metrics]
        raise BatteryError(
            f"{error_at}, key 'primary': {task.primary!r} is not computed.{suggestion(task.primary, computed_metrics)}"
        )
    return f"{metric.strip()},none"


def _fewshot_pool(
    items: Sequence[Item], fewshot_items: Sequence[Item] | None, shots: int, seed: int, error_at: str
) -> list[Item]:
    """The items that solved examples are drawn from; it does not depend on the limit, so that no prompt does.

    From the declared part, an item that asks what an evaluated item asks is left out: its answer would be given away.
    Without one, the items that would enter a sample last; where one of them is asked itself, its block leaves it out.
    """
    if shots == 0:
        return []
    if fewshot_items is not None:
        prompts = {item.prompt for item in items}
        candidates = [item for item in fewshot_items if item.prompt not in prompts]
    else:
        candidates = [items[position] for position in reversed(shuffle_positions(len(items), seed, items[0].task))]
    unique_candidates = list({item.prompt: item for item in candidates}.values())
    if len(unique_candidates) <= shots:
        source = "its items give" if fewshot_items is None else "data.fewshot or data.train holds"
        raise BatteryError(
            f"{error_at}, key 'num_fewshot': {shots} solved examples need {shots + 1} different unasked items; "
            f"{source} {len(unique_candidates)}. Lower num_fewshot, or name more under data.fewshot."
        )
    return unique_candidates if fewshot_items is not None else unique_candidates[: 4 * shots + 8]


def answer_delimiter(task: CustomTask, items: Sequence[Item], error_at: str) -> str:
    """The delimiter between prompt and answer: one space, or nothing where either brings white space of its own.

    Parameters
    ----------
    task
        The task, whose own key `delimiter` wins.
    items
        Its items.
    error_at
        Beginning of a message.

    Raises
    ------
    BatteryError
        Some items bring white space and some do not.
    """
    if task.delimiter is not None:
        return task.delimiter
    has_whitespace = {
        item.prompt[-1:].isspace() or any(text[:1].isspace() for text in item.choices or (item.shot,)) for item in items
    }
    if len(has_whitespace) == 2:
        raise BatteryError(
            f"{error_at}, key 'delimiter': some items bring white space between prompt and answer and some do not. "
            f"Strip it, or say delimiter: ' ' or ''."
        )
    return "" if has_whitespace == {True} else " "

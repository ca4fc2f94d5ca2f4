"""Tasks of lm-eval's own (leaf tasks, groups, tags): their names, data, items and safety, as a battery uses them."""

import re
from collections.abc import Sequence
from typing import Any

from capgap.battery.battery_loading import Battery
from capgap.battery.battery_spec import GUESS_ADVICE, LmEvalTask, capability_complaint
from capgap.battery.catalogue import known_label
from capgap.battery.data_source import fetch_remedy, to_plain_data, uncached_message
from capgap.battery.items import Item, compile_templates, content_ids, render_covariates, sample_positions
from capgap.battery.lm_eval_output import quiet
from capgap.battery.prepared_task import PreparedTask
from capgap.battery.task_index import task_index, task_manager
from capgap.errors import BatteryError, suggestion


def check_metric(name: str, task_format: str, error_at: str) -> None:
    """Refuse what is no metric of lm-eval that scores one item.

    Raises
    ------
    BatteryError
        lm-eval has no such metric, or it scores a whole corpus (bleu, f1), or another format.
    """
    from lm_eval.api.registry import get_aggregation, get_metric_aggregation, metric_registry

    fits = {"choose": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"), "generate": ("exact_match",)}
    capgap_scores = {"choose": ("choice", "choice_norm"), "generate": ("exact", "numeric", "contains")}[task_format]
    if name in metric_registry and get_metric_aggregation(name) is not get_aggregation("mean"):
        raise BatteryError(f"{error_at}: lm-eval's {name!r} scores a whole corpus; a score belongs to one item.")
    if name not in fits[task_format]:
        metrics = (*capgap_scores, *fits[task_format])
        raise BatteryError(f"{error_at}: unknown score {name!r} for format: {task_format}.{suggestion(name, metrics)}")


def leaf_task_names(name: str) -> list[str]:
    """The leaf tasks that lm-eval's name stands for, without loading their data; empty where it has no such name."""
    entry = task_index().get(name)
    if entry is None:
        return []
    if entry.kind in ("TASK", "PY_TASK"):
        return [name]
    return list(dict.fromkeys(leaf for member in entry.members for leaf in leaf_task_names(member)))


def unknown_name(name: str) -> str:
    """The message about a name that lm-eval has not, with the nearest one that it has."""
    return f"lm-eval knows no task, group or tag {name!r}.{suggestion(name, task_index())}"


def prepare_lm_eval_task(battery: Battery, task: LmEvalTask, limit: int | None) -> list[PreparedTask]:
    """Every leaf task that a battery's `lm_eval` name stands for, with its items.

    Raises
    ------
    BatteryError
        lm-eval knows no such name, its data are neither cached nor reachable, it runs code or needs images, or it
        has no right answers.
    """
    return [_prepare_leaf_task(battery, task, name, leaf, limit) for name, leaf in load_tasks(battery, task).items()]


def lm_eval_training_items(battery: Battery, task: LmEvalTask) -> list[Item]:
    """The items of the training splits, where lm-eval's tasks have any.

    Raises
    ------
    BatteryError
        See `prepare_lm_eval_task`.
    """
    items: list[Item] = []
    for name, leaf in load_tasks(battery, task).items():
        if leaf.has_training_docs():
            items += _build_leaf_items(battery, task, name, leaf, list(leaf.training_docs()))
    return items


def load_tasks(battery: Battery, task: LmEvalTask) -> dict[str, Any]:
    """Name → lm-eval Task, with its data, for every task that the entry stands for.

    Raises
    ------
    BatteryError
        See `prepare_lm_eval_task`.
    """
    error_at = battery.where(task)
    if task.lm_eval not in task_index():
        raise BatteryError(f"{error_at}: {unknown_name(task.lm_eval)}")
    for name in leaf_task_names(task.lm_eval):
        if runs_model_code(name) and not battery.allow_code:
            raise BatteryError(f"{error_at}: {_code_refusal_message(name)}")
    try:
        with quiet():
            tasks = task_manager().load([task.lm_eval])["tasks"]
    except ImportError as error:
        raise BatteryError(
            f"{error_at}: lm-eval's {task.lm_eval!r} needs a package that is missing: {error}."
        ) from error
    except Exception as error:  # the hub fails in many ways, all of which mean that the data are not here
        raise BatteryError(
            uncached_message(f"{error_at}: the data of lm-eval's {task.lm_eval!r}", error, fetch_remedy(battery.name))
        ) from error
    for name, leaf in tasks.items():
        _refuse_unusable_leaf(name, leaf, battery, error_at)
    return dict(tasks)


def runs_model_code(name: str) -> bool:
    """Whether a leaf task says that it runs what models write; none of its own code is loaded to find out."""
    entry = task_manager().task_index.get(name)
    if entry is None or entry.yaml_path is None:
        return False
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return bool(load_yaml(entry.yaml_path, resolve_func=False).get("unsafe_code"))
    except Exception as error:  # whatever a maintainer's file can get wrong
        raise BatteryError(f"lm-eval's configuration of {name!r} cannot be read: {error}.") from error


def _code_refusal_message(name: str) -> str:
    return f"lm-eval's {name!r} runs what models write; that needs --allow-code."


def _refuse_unusable_leaf(name: str, leaf: Any, battery: Battery, error_at: str) -> None:
    if getattr(leaf, "UNSAFE_CODE", False) and not battery.allow_code:
        raise BatteryError(f"{error_at}: {_code_refusal_message(name)}")
    if getattr(leaf, "MULTIMODAL", False):
        raise BatteryError(f"{error_at}: lm-eval's {name!r} needs images or sound; capgap asks in text.")
    if leaf.OUTPUT_TYPE == "loglikelihood_rolling":
        raise BatteryError(f"{error_at}: lm-eval's {name!r} measures perplexity; it has no right answers to compare.")


def _prepare_leaf_task(battery: Battery, task: LmEvalTask, name: str, leaf: Any, limit: int | None) -> PreparedTask:
    from capgap.battery.lm_eval_tasks import FewshotSampler, sampled

    error_at = battery.where(task)
    docs = leaf.eval_docs
    if not len(docs):
        raise BatteryError(f"{error_at}: lm-eval's {name!r} holds no item.")
    positions = sample_positions(len(docs), limit, battery.defaults.seed, name)
    all_items = _build_leaf_items(battery, task, name, leaf, list(docs))
    # The sample is set on the task itself: lm-eval's `samples=` would renumber documents, `limit=` takes the first.
    leaf_task_class: Any = type(leaf)
    leaf.__class__ = sampled(leaf_task_class)
    leaf.sampled_docs = docs.select(positions) if hasattr(docs, "select") else [docs[n] for n in positions]
    leaf.fewshot_seed = battery.defaults.seed
    shots = _configure_fewshot(battery, task, leaf, error_at)
    items = tuple(all_items[position] for position in positions)
    generation = leaf.get_config("generation_kwargs") or {} if leaf.OUTPUT_TYPE == "generate_until" else {}
    until = generation.get("until") or ()
    return PreparedTask(
        battery=battery.name,
        name=name,
        variant="default",
        format="choose" if leaf.OUTPUT_TYPE == "multiple_choice" else "generate",
        num_fewshot=shots,
        primary=_primary_metric(task, leaf, error_at),
        items=items,
        n_available=len(all_items),
        lm_task=leaf,
        stop=(until,) if isinstance(until, str) else tuple(until),
        max_tokens=generation.get("max_gen_toks") or generation.get("max_new_tokens"),
        fewshot=battery.defaults.fewshot if isinstance(getattr(leaf, "sampler", None), FewshotSampler) else "lm_eval",
        repeats=int(leaf.get_config("repeats") or 1),
    )


def _configure_fewshot(battery: Battery, task: LmEvalTask, leaf: Any, error_at: str) -> int:
    """Set and return the number of solved examples; where lm-eval would draw them in sequence, set a sampler too."""
    from lm_eval.api.samplers import ContextSampler

    from capgap.battery.lm_eval_tasks import FewshotSampler

    candidate_shot_counts = (task.num_fewshot, leaf.get_config("num_fewshot"), battery.defaults.num_fewshot)
    shots = next(number for number in candidate_shot_counts if number is not None)
    leaf.set_config("num_fewshot", shots)
    sampler = getattr(leaf, "sampler", None)
    if shots and sampler is not None and type(sampler) is ContextSampler and battery.defaults.fewshot != "lm_eval":
        pool = sampler.fewshot_docs()
        if len(pool) <= shots:
            raise BatteryError(
                f"{error_at}: {shots} solved examples need {shots + 1} documents, lm-eval has {len(pool)}."
            )
        per_item = battery.defaults.fewshot == "per_item"
        leaf.sampler = FewshotSampler(pool, seed=battery.defaults.seed, per_item=per_item)
    return int(shots)


def _primary_metric(task: LmEvalTask, leaf: Any, error_at: str) -> str:
    metrics, filters = list(leaf.aggregation()), [filter_ensemble.name for filter_ensemble in leaf._filters]
    computed_metrics = [f"{metric},{name}" for name in filters for metric in metrics]
    primary = computed_metrics[0] if task.primary is None else add_filter_name(task.primary, computed_metrics)
    if primary not in computed_metrics:
        raise BatteryError(
            f"{error_at}, key 'primary': {task.primary!r} is not computed.{suggestion(primary, computed_metrics)}"
        )
    return primary


def add_filter_name(primary: str, computed_metrics: Sequence[str]) -> str:
    """``metric,filter`` from a battery's key `primary`, whose filter may be left out: then lm-eval's first one."""
    primary = primary.replace(" ", "")
    return primary if "," in primary else f"{primary},{computed_metrics[0].split(',')[1]}"


def _build_leaf_items(battery: Battery, task: LmEvalTask, name: str, leaf: Any, docs: Sequence[Any]) -> list[Item]:
    error_at = battery.where(task)
    ids = content_ids(docs)
    label = known_label(name) or known_label(task.lm_eval)
    sources = {
        "capability": task.capability or (label.capability if label else None),
        "domain": task.domain or (label.domain if label else None),
        "cluster": task.cluster,
    }
    templates = compile_templates({key: source for key, source in sources.items() if source}, error_at)
    covariates = compile_templates({"covariates": task.covariates}, error_at)["covariates"]
    items = []
    for number, (doc, item_id) in enumerate(zip(docs, ids, strict=True)):
        fields = {str(k): to_plain_data(v) for k, v in doc.items()} if isinstance(doc, dict) else {}
        location = f"document {number}"
        labels = {key: template.text(fields, location) for key, template in templates.items()}
        complaint = capability_complaint(labels["capability"]) if "capability" in labels else None
        if complaint:
            raise BatteryError(f"{error_at}, key 'capability', {location}: {complaint}")
        prompt, choices, targets, gold = _question(leaf, doc)
        items.append(
            Item(
                task=name,
                item=item_id,
                variant="default",
                prompt=prompt,
                choices=choices,
                targets=targets,
                gold=gold,
                chance=_chance(task, choices, error_at),
                capability=labels.get("capability"),
                domain=labels.get("domain"),
                cluster=labels.get("cluster") or item_id,
                covariates=render_covariates(covariates, fields, error_at, location),
                shot=targets[0] if targets else "",
            )
        )
    return items


def _chance(task: LmEvalTask, choices: tuple[str, ...] | None, error_at: str) -> float:
    """Expected score of a guess: among choices, or as the battery gives a reason for it."""
    if choices:
        if task.guess is not None:
            raise BatteryError(f"{error_at}, key 'guess': it belongs to generated answers, and this task has choices.")
        return 1 / len(choices) if task.chance is None else task.chance
    if task.chance is not None:
        raise BatteryError(f"{error_at}: {GUESS_ADVICE}")
    value = task.guess.value if task.guess else 0.0
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise BatteryError(f"{error_at}, key 'guess': expected a number from 0 to below 1, found {value!r}.")
    return float(value)


def _question(leaf: Any, doc: Any) -> tuple[str, tuple[str, ...] | None, tuple[str, ...], tuple[int, ...]]:
    """Prompt, choices, texts of which any is right, and positions of the right choices, of a document of lm-eval's."""
    text, doc_target = leaf.doc_to_text(doc), leaf.doc_to_target(doc)
    has_choices = bool(leaf.get_config("doc_to_choice"))
    choices = tuple(str(choice) for choice in leaf.doc_to_choice(doc)) if has_choices else None
    if isinstance(text, int) and choices is not None:
        # Several inputs, one continuation (Winogrande): the choices are the contexts.
        return str(doc_target), choices, (choices[text],), (text,)
    doc_targets = doc_target if isinstance(doc_target, (list, tuple)) else [doc_target]
    if choices is None:
        return str(text), None, tuple(dict.fromkeys(str(target).strip() for target in doc_targets)), ()
    gold = tuple(
        position for position in (_find_choice_index(target, choices) for target in doc_targets) if position is not None
    )
    targets = tuple(choices[position] for position in gold)
    is_multiple_choice = leaf.OUTPUT_TYPE == "multiple_choice"
    return str(text), choices if is_multiple_choice else None, targets, gold if is_multiple_choice else ()


def _find_choice_index(target: Any, choices: tuple[str, ...]) -> int | None:
    """The position of a target among the choices, as lm-eval takes it; None where it would find none."""
    if isinstance(target, int) and not isinstance(target, bool):
        return target if 0 <= target < len(choices) else None
    if str(target) in choices:
        return choices.index(str(target))
    return int(target) if re.fullmatch(r"\d{1,3}", str(target)) and int(target) < len(choices) else None


def compiled_task_config(name: str, *, allow_code: bool = False) -> Any:
    """lm-eval's configuration of a leaf task, compiled without its data.

    Raises
    ------
    BatteryError
        lm-eval has no such leaf task, its configuration does not compile, or it runs what models write.
    """
    if not allow_code and runs_model_code(name):
        raise BatteryError(_code_refusal_message(name))
    entry = task_manager().task_index.get(name)
    if entry is None or entry.yaml_path is None:
        raise BatteryError(f"lm-eval has no configuration for {name!r}.")
    from lm_eval.config.task import TaskConfig
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        with quiet():
            raw_config = load_yaml(entry.yaml_path, resolve_func=True)
            return TaskConfig(**{k: v for k, v in raw_config.items() if k not in ("tag", "group", "task_list")})
    except Exception as error:  # whatever a maintainer's file can get wrong
        raise BatteryError(f"lm-eval's configuration of {name!r} does not compile: {error}.") from error

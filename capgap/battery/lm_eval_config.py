"""Configuration of one of lm-eval's tasks, from its YAML file and without its data."""

from dataclasses import dataclass
from typing import Any

from capgap.battery.battery_spec import LmEvalTask
from capgap.battery.lm_eval_groups import add_filter_name, compiled_task_config
from capgap.errors import suggestion

_MAX_NEW_TOKENS = 256  # lm-eval's, where a task does not say how long an answer may be


@dataclass(frozen=True)
class LmEvalTaskConfig:
    """Configuration of a leaf task of lm-eval's: format, metrics, few-shot number, limits."""

    name: str
    """Its name."""
    format: str
    """``choose`` or ``generate``."""
    output_type: str
    """lm-eval's own word for that."""
    data: str
    """The data set on the hub."""
    num_fewshot: int | None
    """Solved examples; None where lm-eval leaves it open."""
    primaries: tuple[str, ...]
    """Every ``metric,filter`` that it computes, lm-eval's first one first."""
    max_tokens: int | None
    """Longest generated answer; None for choices."""
    n_choices: int | None
    """How many choices an item has; None where that stands in the data."""


def lm_eval_task_config(name: str, *, allow_code: bool = False) -> LmEvalTaskConfig:
    """The configuration of a leaf task.

    Raises
    ------
    BatteryError
        lm-eval has no such leaf task, its configuration does not compile, or it runs what models write.
    """
    config = compiled_task_config(name, allow_code=allow_code)
    output_type = str(config.output_type)
    generation = config.generation_kwargs or {}
    choices = config.doc_to_choice
    return LmEvalTaskConfig(
        name=name,
        format="choose" if output_type == "multiple_choice" else "generate",
        output_type=output_type,
        data=str(config.dataset_path),
        num_fewshot=config.num_fewshot,
        primaries=tuple(f"{metric},{filter_name}" for filter_name in _filters(config) for metric in _metrics(config)),
        max_tokens=int(generation.get("max_gen_toks") or _MAX_NEW_TOKENS) if output_type == "generate_until" else None,
        n_choices=len(choices) if isinstance(choices, list) else None,
    )


def _filters(config: Any) -> list[str]:
    return [str(pipeline["name"]) for pipeline in config.filter_list or [{"name": "none"}]]


def _metrics(config: Any) -> list[str]:
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    names = [entry["metric"] for entry in config.metric_list or []] or DEFAULT_METRIC_REGISTRY[config.output_type]
    return [metric if isinstance(metric, str) else metric.__name__ for metric in names]


def config_problem(config: LmEvalTaskConfig, task: LmEvalTask) -> str | None:
    """Why a task cannot be used, told from its configuration alone; None where it can."""
    if config.output_type == "loglikelihood_rolling":
        return f"lm-eval's {config.name!r} measures perplexity; it has no right answers to compare."
    if task.primary is not None:
        primary = add_filter_name(task.primary, config.primaries)
        if primary not in config.primaries:
            return f"key 'primary': {task.primary!r} is not computed.{suggestion(primary, config.primaries)}"
    return None

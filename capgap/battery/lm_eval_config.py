"""What lm-eval's files say about one of its tasks, without the task's data."""

from dataclasses import dataclass
from typing import Any

from capgap.battery.battery_spec import LmEvalTask
from capgap.battery.lm_eval_groups import compiled_task_config
from capgap.errors import suggestion

__all__ = ["LmEvalTaskConfig", "lm_eval_task_config", "static_problem"]

_DEFAULT_TOKENS = 256  # lm-eval's, where a task does not say how long an answer may be


@dataclass(frozen=True)
class LmEvalTaskConfig:
    """A task of lm-eval's as its configuration has it."""

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
    """The facts of a leaf task.

    Raises
    ------
    BatteryError
        lm-eval has no such leaf task, its configuration does not compile, or it runs what models write.
    """
    config = compiled_task_config(name, allow_code=allow_code)
    kind = str(config.output_type)
    generation = config.generation_kwargs or {}
    choices = config.doc_to_choice
    return LmEvalTaskConfig(
        name=name,
        format="choose" if kind == "multiple_choice" else "generate",
        output_type=kind,
        data=str(config.dataset_path),
        num_fewshot=config.num_fewshot,
        primaries=tuple(f"{metric},{filtered}" for filtered in _filters(config) for metric in _metrics(config)),
        max_tokens=int(generation.get("max_gen_toks") or _DEFAULT_TOKENS) if kind == "generate_until" else None,
        n_choices=len(choices) if isinstance(choices, list) else None,
    )


def _filters(config: Any) -> list[str]:
    return [str(one["name"]) for one in config.filter_list or [{"name": "none"}]]


def _metrics(config: Any) -> list[str]:
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    named = [one["metric"] for one in config.metric_list or []] or DEFAULT_METRIC_REGISTRY[config.output_type]
    return [metric if isinstance(metric, str) else metric.__name__ for metric in named]


def static_problem(leaf: LmEvalTaskConfig, task: LmEvalTask) -> str | None:
    """What makes a task useless whatever its data are; None where nothing does."""
    if leaf.output_type == "loglikelihood_rolling":
        return f"lm-eval's {leaf.name!r} measures perplexity; it has no right answers to compare."
    if task.primary is not None:
        wanted = task.primary.replace(" ", "")
        wanted = wanted if "," in wanted else f"{wanted},{leaf.primaries[0].split(',')[1]}"
        if wanted not in leaf.primaries:
            return f"key 'primary': {task.primary!r} is not computed.{suggestion(wanted, leaf.primaries)}"
    return None

"""Requests of a task in a model's prompting, refusals before the first of them, and lm-eval kept quiet meanwhile."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from capgap.battery import PreparedTask
from capgap.battery.lm_eval_output import quiet as quiet_tasks
from capgap.errors import UsageError
from capgap.evaluation.prepared_batteries import PreparedBatteries
from capgap.models import LoadedModel, ModelSpec, PromptSettings, check_model

__all__ = ["build_requests", "n_requests", "quiet", "check_model_specs", "check_task_support"]


class ModelWithPrompting(Protocol):
    """What building requests needs of a model."""

    @property
    def prompting(self) -> PromptSettings:
        """How it is addressed."""

    @property
    def lm(self) -> Any:
        """Has ``apply_chat_template`` and ``tokenizer_name`` where it is addressed through a chat template."""


def build_requests(task: PreparedTask, model: ModelWithPrompting) -> None:
    """Let lm-eval's task build its requests as this model is addressed; they stand in ``task.lm_task.instances``."""
    prompting = model.prompting
    task.lm_task.build_all_requests(
        rank=0,
        world_size=1,
        system_instruction=prompting.system_prompt,
        apply_chat_template=prompting.chat_template,
        fewshot_as_multiturn=prompting.chat_template,
        chat_template=getattr(model.lm, "apply_chat_template", None) if prompting.chat_template else None,
        tokenizer_name=getattr(model.lm, "tokenizer_name", "") if prompting.chat_template else "",
    )


def n_requests(batteries: PreparedBatteries) -> int:
    """Requests to one model."""
    return sum(
        task.repeats * (len(item.choices) if item.choices and task.format == "choose" else 1)
        for _, tasks in batteries
        for task in tasks
        for item in task.items
    )


def check_task_support(model: LoadedModel, batteries: PreparedBatteries) -> None:
    """Refuse, before it is asked anything, a model whose backend cannot do what a task needs.

    Raises
    ------
    UsageError
        It gives no log-likelihoods, or it thinks before it answers, and a task chooses by log-likelihoods.
    """
    mcq_tasks = [task.name for _, tasks in batteries for task in tasks if task.format == "choose"]
    if mcq_tasks and model.prompting.enable_thinking:
        raise UsageError(
            f"model {model.name}: enable_thinking=on, and {_count_tasks(mcq_tasks)} by the log-likelihood of an answer "
            f"before any thought. Say enable_thinking=off, or use generate tasks."
        )
    if mcq_tasks and not model.can_score:
        raise UsageError(
            f"model {model.name}: its backend gives no log-likelihoods, and {_count_tasks(mcq_tasks)} by them: "
            f"{model.no_scores_reason}. Use a battery of generate tasks, or another backend."
        )


def check_model_specs(models: Sequence[ModelSpec], batteries: PreparedBatteries) -> None:
    """Refuse, before the first model is loaded, what can be seen of any of them, so that none is asked in vain.

    Raises
    ------
    ModelError
        One cannot be found, or its backend gives no log-likelihoods and a task chooses by them.
    """
    has_mcq_tasks = any(task.format == "choose" for _, tasks in batteries for task in tasks)
    for spec in models:
        check_model(spec, scores=has_mcq_tasks)


def _count_tasks(mcq_tasks: Sequence[str]) -> str:
    names = ", ".join(mcq_tasks[:3]) + (" …" if len(mcq_tasks) > 3 else "")
    return f"{len(mcq_tasks)} task{'s choose' if len(mcq_tasks) > 1 else ' chooses'} ({names})"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and the advice of lm-eval and transformers, and what they tell their own developers."""
    with warnings.catch_warnings(), quiet_tasks("transformers", "datasets", "peft"):
        # A warning of anybody else's still shows.
        warnings.filterwarnings("ignore", module=r"(transformers|peft|lm_eval|datasets|accelerate)\b")
        yield

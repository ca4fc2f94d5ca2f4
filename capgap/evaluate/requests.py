"""Requests as a model is addressed, and lm-eval kept quiet while it builds them."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from capgap.battery import Battery, Prepared
from capgap.errors import UsageError
from capgap.models import LoadedModel, Prompting

__all__ = ["Tasks", "build_requests", "n_requests", "quiet", "refuse_impossible"]

Tasks = Sequence[tuple[Battery, Sequence[Prepared]]]
"""Batteries with their tasks, ready to be asked."""


class Addressee(Protocol):
    """What building requests needs of a model."""

    @property
    def prompting(self) -> Prompting:
        """How it is addressed."""

    @property
    def lm(self) -> Any:
        """Has ``apply_chat_template`` and ``tokenizer_name`` where it is addressed through a chat template."""


def build_requests(task: Prepared, model: Addressee) -> None:
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


def n_requests(tasks: Tasks) -> int:
    """Requests to one model."""
    return sum(
        task.repeats * (len(item.choices) if item.choices and task.format == "choose" else 1)
        for _, prepared in tasks
        for task in prepared
        for item in task.items
    )


def refuse_impossible(model: LoadedModel, tasks: Tasks) -> None:
    """Say before anything is asked that a backend cannot do what a task needs.

    Raises
    ------
    UsageError
        It gives no log-likelihoods, or it thinks before it answers, and a task chooses by log-likelihoods.
    """
    choosing = [task.name for _, prepared in tasks for task in prepared if task.format == "choose"]
    if choosing and model.prompting.enable_thinking:
        raise UsageError(
            f"model {model.name}: enable_thinking=on, and {len(choosing)} tasks choose by the log-likelihood of an "
            f"answer before any thought ({', '.join(choosing[:3])} …). Say enable_thinking=off, or use generate tasks."
        )
    if choosing and not model.can_score:
        raise UsageError(
            f"model {model.name}: its backend gives no log-likelihoods, and {len(choosing)} tasks choose by them "
            f"({', '.join(choosing[:3])} …). Use a battery of generate tasks, or another backend."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval's own progress bars and advice would stand between the user and capgap's one bar."""
    import lm_eval.api.task as lm_eval_task

    with warnings.catch_warnings():
        # What these tell their own developers; a warning of anybody else's still shows.
        warnings.filterwarnings("ignore", module=r"(transformers|peft|lm_eval|datasets|accelerate)\b")
        yield from _without_bars(lm_eval_task)


def _without_bars(lm_eval_task: Any) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets", "peft")]
    levels = [logger.level for logger in loggers]
    bar = lm_eval_task.tqdm
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    lm_eval_task.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        lm_eval_task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

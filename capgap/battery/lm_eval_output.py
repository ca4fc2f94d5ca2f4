"""lm-eval and its neighbours draw bars and give advice that no option turns off; one bar and one voice are enough."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tqdm import tqdm

__all__ = ["quiet", "without_bar"]


@contextmanager
def without_bar(module: Any) -> Iterator[None]:
    """While it lasts, what `module` calls ``tqdm`` draws nothing."""
    bar = module.tqdm
    module.tqdm = partial(tqdm, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar


@contextmanager
def quiet(*others: str) -> Iterator[None]:
    """Without the remarks of lm-eval and of other loggers, and without lm-eval's bars over tasks."""
    import lm_eval.api.task as harness

    loggers = [logging.getLogger(name) for name in ("lm_eval", *others)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with without_bar(harness):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Context managers that silence the progress bars and log messages of lm-eval, which no option turns off."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tqdm import tqdm


@contextmanager
def without_progress_bar(module: Any) -> Iterator[None]:
    """Disable the bars of a module that calls ``tqdm`` by that name."""
    original_tqdm = module.tqdm
    module.tqdm = partial(tqdm, disable=True)
    try:
        yield
    finally:
        module.tqdm = original_tqdm


@contextmanager
def quiet(*other_loggers: str) -> Iterator[None]:
    """Silence lm-eval's loggers (and `other_loggers`) below errors, and its bars over tasks."""
    import lm_eval.api.task as harness

    loggers = [logging.getLogger(name) for name in ("lm_eval", *other_loggers)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with without_progress_bar(harness):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

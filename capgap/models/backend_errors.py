"""What another backend raises while it is asked, as one message: it is not capgap's bug, and no traceback helps."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm_eval.api.model import LM

from capgap.errors import CapgapError, ModelError
from capgap.models.secret_masking import masked

__all__ = ["BackendErrors"]


class BackendErrors(LM):  # type: ignore[misc]
    """A mixin before one of lm-eval's classes."""

    called = ""
    """The model's name, for messages."""

    def loglikelihood(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._told("log-likelihoods"):
            return self._whole(super().loglikelihood(requests, **settings), requests)

    def loglikelihood_rolling(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._told("log-likelihoods"):
            return self._whole(super().loglikelihood_rolling(requests, **settings), requests)

    def generate_until(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._told("texts"):
            return self._whole(super().generate_until(requests, **settings), requests)

    def _whole(self, answers: Any, requests: list[Any]) -> list[Any]:
        """As many answers as requests; some backends leave out what failed."""
        given = [answer for answer in answers if answer is not None]
        if len(given) != len(requests):
            raise ModelError(f"model {self.called}: its backend gave {len(given)} answers to {len(requests)} requests.")
        return given

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        logger = logging.getLogger("lm_eval")
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # what it says beside what it raises, one message says too
        try:
            yield
        except CapgapError:
            raise
        except NotImplementedError as error:
            raise ModelError(f"model {self.called}: its backend gives no {what}.") from error
        except Exception as error:  # every backend has exceptions of its own
            first = (str(error).strip().splitlines() or [""])[0][:300]
            raise ModelError(
                f"model {self.called}: its backend failed when it was asked for {what}: "
                f"{type(error).__name__}: {masked(first)}"
            ) from error
        finally:
            logger.setLevel(level)

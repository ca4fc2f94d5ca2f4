"""Errors of other backends while they are asked, as one message: not capgap's bug, and no traceback helps."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm_eval.api.model import LM

from capgap.errors import CapgapError, ModelError
from capgap.models.secret_masking import error_line


class BackendErrorMixin(LM):  # type: ignore[misc]
    """Mixin before a class of lm-eval's: errors become `ModelError`, and missing answers are noticed."""

    model_name = ""
    """The model's name, for messages."""

    def loglikelihood(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._model_errors("log-likelihoods"):
            return self._require_all_answers(super().loglikelihood(requests, **settings), requests)

    def loglikelihood_rolling(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._model_errors("log-likelihoods"):
            return self._require_all_answers(super().loglikelihood_rolling(requests, **settings), requests)

    def generate_until(self, requests: list[Any], **settings: Any) -> Any:
        """As lm-eval's."""
        with self._model_errors("texts"):
            return self._require_all_answers(super().generate_until(requests, **settings), requests)

    def _require_all_answers(self, answers: Any, requests: list[Any]) -> list[Any]:
        """As many answers as requests; some backends leave out what failed."""
        given_answers = [answer for answer in answers if answer is not None]
        if len(given_answers) != len(requests):
            raise ModelError(
                f"model {self.model_name}: its backend gave {len(given_answers)} answers to {len(requests)} requests."
            )
        return given_answers

    @contextmanager
    def _model_errors(self, response_noun: str) -> Iterator[None]:
        logger = logging.getLogger("lm_eval")
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # what it says beside what it raises, one message says too
        try:
            yield
        except CapgapError:
            raise
        except NotImplementedError as error:
            raise ModelError(f"model {self.model_name}: its backend gives no {response_noun}.") from error
        except Exception as error:  # every backend has exceptions of its own
            raise ModelError(
                f"model {self.model_name}: its backend failed when it was asked for {response_noun}: "
                f"{type(error).__name__}: {error_line(error)}"
            ) from error
        finally:
            logger.setLevel(level)

"""`ServerBackend`: lm-eval's requests over HTTP, with retries, checked replies and clear messages.

lm-eval's classes make the requests; here stands what they lack. A failure is reported once, without the key; what
cannot pass with time is not tried again. A reply is believed only where it has the shape that was asked for: a server
that ignores `echo` answers every question about log-likelihoods with numbers of its own.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from lm_eval.models import api_models
from lm_eval.models.api_models import TemplateAPI
from lm_eval.models.utils import chunks

from capgap.battery.lm_eval_output import without_progress_bar
from capgap.errors import ModelError
from capgap.models.secret_masking import mask_secrets

__all__ = ["ServerRefusal", "ServerBackend"]

FIRST_RETRY_PAUSE = 1.0
"""Seconds before the second try; doubled before each one after it."""
_LONGEST_PAUSE = 30.0
_RETRY_STATUSES = (408, 409, 425, 429, 500, 502, 503, 504)
_RESUME_TIP = "What was answered is kept; the same command goes on where it stopped."


class ServerRefusal(ModelError):
    """A server refused a request or did not answer it."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status
        """Of its reply; None where there was none."""


class ServerBackend(TemplateAPI):  # type: ignore[misc]
    """Mixin before one of lm-eval's classes for servers."""

    model_name = ""
    """The model's name, for messages."""
    max_retries: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.notes: list[str] = []
        """What the user should know, one sentence each."""
        super().__init__(*args, **kwargs)
        # lm-eval would try everything again, a wrong key too.
        self._tries, self.max_retries = max(1, self.max_retries), 1
        self._truncation_noted = False

    def model_call(self, messages: Any, **settings: Any) -> Any:
        """One request; tried again where time may mend it.

        Raises
        ------
        ModelError
            The server cannot be reached, refuses, or answers with something else than JSON.
        """
        for n in range(1, self._tries + 1):
            try:
                return super().model_call(messages, **settings)
            except requests.RequestException as error:
                diagnosis, is_transient = self._diagnose_failure(error)
                if not is_transient or n == self._tries:
                    tries = f" ({n} tries)" if n > 1 else ""
                    raise ServerRefusal(
                        f"model {self.model_name}: {mask_secrets(str(self.base_url))} {diagnosis}{tries} {_RESUME_TIP}",
                        getattr(error.response, "status_code", None),
                    ) from error
                time.sleep(min(_retry_after(error) or FIRST_RETRY_PAUSE * 2 ** (n - 1), _LONGEST_PAUSE))
        raise AssertionError("the last try raises or returns")

    async def get_batched_requests(
        self, requests: list[Any], cache_keys: list[Any], *, generate: bool = True, ctxlens: Any = None, **settings: Any
    ) -> list[Any]:
        """Several requests at a time (`num_concurrent`), each as `model_call` makes it.

        lm-eval's own way leaves the end token out of the stop strings, so that answers would hang on the number.
        """
        size = self._batch_size
        kind = "generate_until" if generate else "loglikelihood"
        columns = (requests, cache_keys, ctxlens or [None] * len(requests))
        batches = list(zip(*(chunks(column, n=size) for column in columns), strict=True))
        answers: list[Any] = []
        with ThreadPoolExecutor(max_workers=self._concurrent) as pool:
            jobs = [pool.submit(self.model_call, prompts, generate=generate, **settings) for prompts, _, _ in batches]
            try:
                for job, (prompts, keys, context_lengths) in zip(jobs, batches, strict=True):
                    outputs = job.result()
                    if generate:
                        parsed: list[Any] = self.parse_generations(outputs=outputs)
                    else:
                        parsed = self.parse_logprobs(outputs=outputs, tokens=prompts, ctxlens=context_lengths)
                    for key, answer in zip(keys, parsed, strict=True):
                        if key is not None:
                            self.cache_hook.add_partial(kind, key, answer)
                    answers.append(parsed)
            finally:
                for job in jobs:
                    job.cancel()
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **settings: Any) -> list[tuple[float, bool]]:
        self._note_truncation(len(context) + len(target) > self.max_length for _, context, target in requests)
        with without_progress_bar(api_models):
            answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **settings)
        return answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The texts, as lm-eval has them from the server."""
        if self.tokenized_requests:
            self._note_truncation(
                len(self.tok_encode(r.args[0])) > self.max_length - r.args[1].get("max_gen_toks", self._max_gen_toks)
                for r in requests
            )
        with without_progress_bar(api_models):
            texts: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return texts

    def _note_truncation(self, is_cut: Iterable[bool]) -> None:
        """Note once that prompts were too long; for all that follow it may be so too."""
        if not self._truncation_noted and any(is_cut):
            self._truncation_noted = True
            self.notes.append(
                f"{self.model_name}: some prompts are longer than its {self.max_length + 1:,} tokens leave room for; "
                f"they lost their beginning. If it reads more, say max_length=N in its arguments."
            )

    def _diagnose_failure(self, error: requests.RequestException) -> tuple[str, bool]:
        """What went wrong and what to do, and whether it may pass by itself."""
        if isinstance(error, requests.exceptions.JSONDecodeError):
            return f"answers with something that is no JSON: {_mask_as_one_line(getattr(error, 'doc', ''))!r}.", False
        if isinstance(error, requests.Timeout):
            return f"gave no answer within {self.timeout} s; timeout=N in its arguments waits longer.", True
        status = getattr(error.response, "status_code", None)
        if status is None:
            if isinstance(error, requests.ConnectionError):
                return f"cannot be reached ({_root_cause(error)}). Is the server running?", True
            return f"cannot be asked: {type(error).__name__}: {_mask_as_one_line(str(error))}", False
        diagnosis = f"answers {status}: {_error_text(error.response)}."
        remedies_by_status = {
            401: " Put the server's key into the environment: OPENAI_API_KEY.",
            403: " Put the server's key into the environment: OPENAI_API_KEY.",
            404: " Expected the whole address, …/v1/completions or …/v1/chat/completions, and a model it has.",
        }
        return diagnosis + remedies_by_status.get(status, ""), status in _RETRY_STATUSES


def _retry_after(error: requests.RequestException) -> float | None:
    """Seconds that the server asks to wait (``Retry-After``); None where it does not."""
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    text = headers.get("Retry-After", "")
    return float(text) if text.replace(".", "", 1).isdigit() else None


def _error_text(response: Any) -> str:
    """The server's own error message, one line of it."""
    try:
        content = response.json()
    except ValueError:
        return _mask_as_one_line(response.text) or str(response.reason)
    for key in ("error", "message", "detail"):
        if isinstance(content, Mapping) and content.get(key):
            content = content[key]
    return _mask_as_one_line(content if isinstance(content, str) else str(content))


def _mask_as_one_line(text: str) -> str:
    return mask_secrets(" ".join(text.split())[:200]).rstrip(".")


def _root_cause(error: BaseException) -> str:
    """The operating system's message, which `requests` wraps in exceptions of its own and of urllib3."""
    while True:
        underlying_error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(underlying_error, BaseException):
            return _mask_as_one_line(str(getattr(error, "strerror", None) or error)) or type(error).__name__
        error = underlying_error

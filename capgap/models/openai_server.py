"""`OpenAIServer`: servers of OpenAI's protocol (vLLM, SGLang, llama.cpp, transformers serve, OpenAI itself)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from lm_eval.models.utils import postprocess_generated_text

from capgap.errors import ModelError
from capgap.models.generation_ending import GenerationEnding
from capgap.models.server_backend import ServerBackend, ServerRefusal

_UNKNOWN_CONTEXT_LENGTH = 1 << 30
_MAX_PLAUSIBLE_LENGTH = 10_000_000  # tokens; tokenizers that know no limit claim 1e30
_UNSUPPORTED_STATUS = (400, 405, 422, 501)  # to a request for log-probabilities: this server has none
_PROBE_TEXT = "One two three: four, five and six."


class NoPromptLogprobs(ModelError):
    """A server's reply holds no log-probabilities of the prompt; the message says what it holds."""


class OpenAIServer(ServerBackend):
    """Mixin before lm-eval's classes for OpenAI's protocol: replies are checked and endings recorded."""

    chat = False
    """Whether it takes messages instead of a text."""
    enable_thinking: bool | None = None
    think_end: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.endings: list[GenerationEnding] = []
        """How each text ended, in the order in which the cache hook is told the texts."""
        self._seed_given = "seed" in kwargs
        has_bos_option, has_max_length_option = "add_bos_token" in kwargs, "max_length" in kwargs
        super().__init__(*args, **kwargs)
        if not has_bos_option:
            # Models that transformers runs get what their tokenizers put before a text; so must token ids over HTTP.
            self.add_bos_token = self._tokenizer_adds_bos()
        if not has_max_length_option:
            self.max_length = self._context_length() - 1  # lm-eval keeps one token for the answer that it must ask for

    def tok_encode(self, string: Any, left_truncate_len: int | None = None, **settings: Any) -> Any:
        """Token ids, with the beginning-of-text token where the tokenizer adds one, never twice."""
        bos = getattr(self.tokenizer, "bos_token", None)
        if self.chat or self.tokenizer_backend != "huggingface" or not (self.add_bos_token and bos):
            return super().tok_encode(string, left_truncate_len=left_truncate_len, **settings)
        special_tokens_option = settings.get("add_special_tokens")
        adds_bos = self.add_bos_token if special_tokens_option is None else bool(special_tokens_option)
        texts = [string] if isinstance(string, str) else list(string)
        encoded = [
            self.tokenizer(text, add_special_tokens=adds_bos and not text.startswith(bos)).input_ids for text in texts
        ]
        if left_truncate_len:
            encoded = [ids[-left_truncate_len:] for ids in encoded]
        return encoded[0] if isinstance(string, str) else encoded

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> Any:
        """As text where this side has the tokenizer, else as messages for the server."""
        if self.enable_thinking is None or not (self.tokenizer_backend == "huggingface" and self.tokenized_requests):
            return super().apply_chat_template(chat_history, add_generation_prompt)
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            enable_thinking=self.enable_thinking,
        )

    def create_message(self, messages: Any, generate: bool = False) -> Any:
        """As lm-eval; a plain text to a chat is what its user says."""
        if self.chat and isinstance(messages[0], str):
            return [{"role": "user", "content": messages[0]}]
        return super().create_message(messages, generate)

    def _create_payload(self, messages: Any, **settings: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._create_payload(messages, **settings)
        if payload.get("temperature") and not self._seed_given:
            payload.pop("seed", None)  # one seed would make all samples of a request one
        if self.think_end and "stop" in payload:
            # Thoughts hold line breaks and questions; the stop strings count behind them, see `generate_until`.
            payload["stop"] = [string for string in payload["stop"] or () if string == self.eos_string]
        if "stop" in payload and not any(payload["stop"] or ()):
            del payload["stop"]  # some servers refuse an empty list
        if self.chat and self.enable_thinking is not None:
            payload["chat_template_kwargs"] = {"enable_thinking": self.enable_thinking}
        return payload

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The texts, cut at their stop strings as lm-eval cuts those of its own models.

        Servers take four stop strings at most, and some ignore them.
        """
        texts = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return [
            postprocess_generated_text(text, _stop_strings(request.args[1].get("until")), self.think_end)
            for request, text in zip(requests, texts, strict=True)
        ]

    def parse_generations(self, outputs: Any, **_: Any) -> list[str]:
        """The texts of a reply, and how they ended.

        Raises
        ------
        ModelError
            The reply has another shape.
        """
        texts: list[str] = []
        for output in outputs if isinstance(outputs, list) else [outputs]:
            choices = self._choices(output)
            for choice in choices:
                message = choice.get("message") if self.chat else choice
                text = message.get("content" if self.chat else "text") if isinstance(message, Mapping) else 0
                if not isinstance(text, str | None):
                    raise self._protocol_error("a text", choice)
                # No content is an answer too: a reasoning model that thought up to its limit, a filter.
                texts.append(text or "")
                usage = output.get("usage") if len(choices) == 1 else None
                n_tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
                self.endings.append(
                    GenerationEnding(n_tokens if isinstance(n_tokens, int) else None, _stop_reason(choice))
                )
        return texts

    def parse_logprobs(
        self, outputs: Any, tokens: Any = None, ctxlens: Any = None, **_: Any
    ) -> list[tuple[float, bool]]:
        """The log-likelihoods in a reply.

        Raises
        ------
        NoPromptLogprobs
            It holds none of the prompt, or of another prompt.
        """
        # A reply to several prompts counts the tokens of all together: its usage says nothing about one of them.
        replies: list[tuple[Mapping[str, Any], Any]] = []
        for output in outputs if isinstance(outputs, list) else [outputs]:
            choices = self._choices(output)
            replies += [(choice, output.get("usage") if len(choices) == 1 else None) for choice in choices]
        if len(replies) != len(tokens):
            raise NoPromptLogprobs(
                f"model {self.model_name}: {len(tokens)} prompts were sent, {len(replies)} came back."
            )
        return [
            self._log_likelihood(choice, usage, len(prompt_tokens), offset)
            for (choice, usage), prompt_tokens, offset in zip(replies, tokens, ctxlens, strict=True)
        ]

    def _log_likelihood(self, choice: Mapping[str, Any], usage: Any, n_sent: int, offset: int) -> tuple[float, bool]:
        """One log-likelihood: of the tokens from `offset` to the end of the prompt; the answer behind it is dropped."""
        logprobs = choice.get("logprobs")
        values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
        if not isinstance(logprobs, Mapping) or not isinstance(values, list):
            raise NoPromptLogprobs(
                f"model {self.model_name}: the server's reply holds no log-probabilities: it ignores `echo` and "
                f"`logprobs`, as `transformers serve` does. vLLM gives them."
            )
        n_read = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
        # The prompt, and the one token that it was asked to write; a server that writes an end token may leave it out.
        if len(values) not in (n_sent, n_sent + 1) or (isinstance(n_read, int) and n_read and n_read != n_sent):
            n_reply_tokens = n_read if len(values) in (n_sent, n_sent + 1) else len(values)
            reason = "its tokenizer is another, or it puts a token before the text"
            if len(values) <= 1:
                reason = "it ignores `echo`"
            raise NoPromptLogprobs(
                f"model {self.model_name}: {n_sent} tokens were sent and the server's reply is about {n_reply_tokens}: "
                f"{reason}. Check tokenizer=, add_bos_token= and tokenized_requests=."
            )
        top_logprobs = logprobs.get("top_logprobs")
        scored, likeliest = values[offset:n_sent], top_logprobs[offset:n_sent] if isinstance(top_logprobs, list) else []
        if len(likeliest) != len(scored) or not all(isinstance(top, Mapping) and top for top in likeliest):
            raise NoPromptLogprobs(
                f"model {self.model_name}: the server's reply lacks top_logprobs, so what is greedy cannot be told."
            )
        if not all(isinstance(value, int | float) and not math.isnan(value) and value <= 1e-3 for value in scored):
            bad_logprob = next(value for value in scored if not (isinstance(value, int | float) and value <= 1e-3))
            raise NoPromptLogprobs(f"model {self.model_name}: the server gives {bad_logprob!r} as a log-probability.")
        greedy = all(value >= max(top.values()) for value, top in zip(scored, likeliest, strict=True))
        return float(sum(scored)), greedy

    def _choices(self, output: Any) -> list[Mapping[str, Any]]:
        """The choices of a reply, in the order of the prompts."""
        choices = output.get("choices") if isinstance(output, Mapping) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, Mapping) for choice in choices):
            raise self._protocol_error("a list of choices", output)
        return sorted(choices, key=lambda choice: int(choice.get("index") or 0))

    def _protocol_error(self, expected: str, reply: Any) -> ModelError:
        return ModelError(
            f"model {self.model_name}: the server's reply is none of OpenAI's protocol: expected {expected}, "
            f"found {json.dumps(reply, default=str)[:160]}"
        )

    def no_scores_reason(self) -> str | None:
        """Probe one short log-likelihood; why the server gives none, or None where it does.

        Raises
        ------
        ModelError
            The server does not answer at all.
        """
        if self.chat:
            return "chats give no log-likelihoods of what is said to them"
        if self.tokenizer is None:
            return "without a tokenizer (tokenizer=CKPT) the tokens of a prompt cannot be counted"
        ids = self.tok_encode(_PROBE_TEXT)
        try:
            self._loglikelihood_tokens([(None, ids[:1], ids[1:])])
        except NoPromptLogprobs as error:
            return str(error).partition(": ")[2].rstrip(".")
        except ServerRefusal as error:
            if error.status not in _UNSUPPORTED_STATUS:
                raise
            return str(error).partition(": ")[2].partition(" What was answered")[0].rstrip(".")
        return None

    def _tokenizer_adds_bos(self) -> bool:
        """Whether the tokenizer puts a beginning-of-text token before every text."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        if self.tokenizer_backend != "huggingface" or self.tokenizer is None or bos is None:
            return False
        return list(self.tokenizer("a").input_ids)[:1] == [bos]

    def _context_length(self) -> int:
        """Tokens of prompt and answer that the model reads: what the server says, else the tokenizer, else 2,048."""
        if not self.tokenized_requests:
            return _UNKNOWN_CONTEXT_LENGTH  # the server counts, and says where it is too much
        served_length = self._served_length()
        if served_length is not None:
            return served_length
        claimed_lengths = [getattr(self.tokenizer, "model_max_length", None), *_config_max_lengths(self.tokenizer)]
        max_lengths = [int(n) for n in claimed_lengths if isinstance(n, int | float) and 1 < n < _MAX_PLAUSIBLE_LENGTH]
        return min(max_lengths, default=2048)

    def _served_length(self) -> int | None:
        """The model's context length in the server's list of models; None where it does not tell."""
        models_url = str(self.base_url).partition("/completions")[0].removesuffix("/chat") + "/models"
        try:
            reply = requests.get(models_url, headers=self.header, verify=self.verify_certificate, timeout=10)
            models = reply.json()["data"] if reply.ok else []
            lengths = {model.get("id"): model.get("max_model_len") for model in models}
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
            return None  # few servers tell; if this one is down, the first question says so
        length = lengths.get(self.model)
        return length if isinstance(length, int) and length > 1 else None


def _config_max_lengths(tokenizer: Any) -> list[Any]:
    """Maximum positions in the config beside a tokenizer, where it lies on this disk."""
    config = Path(str(getattr(tokenizer, "name_or_path", ""))) / "config.json"
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [values.get(key) for key in ("max_position_embeddings", "n_positions")] if isinstance(values, dict) else []


def _stop_strings(until: Any) -> list[str]:
    return [until] if isinstance(until, str) else list(until or ())


def _stop_reason(choice: Mapping[str, Any]) -> str | None:
    """Stop reason as `GenerationEnding` has it; ``eos`` where a server does not tell an end from a stop string."""
    reason = choice.get("finish_reason")
    if reason == "stop" and "stop_reason" in choice:  # vLLM: the stop string, or null at an end token
        return "stop" if isinstance(choice["stop_reason"], str) else "eos"
    return {"stop": "eos", "eos": "eos", "eos_token": "eos", "length": "length"}.get(str(reason))

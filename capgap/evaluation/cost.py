"""How long an evaluation will take, before it starts: operations over the rate of this machine, roughly."""

import time
from collections.abc import Sequence
from typing import Any

from capgap.battery import PreparedTask
from capgap.evaluation.plan import EvaluationPlan
from capgap.models import ModelSpec, choose_device, locate

__all__ = ["Tokens", "expected_minutes", "minutes", "tokens"]

_CHARACTERS_PER_TOKEN = 4.0  # of English text under common vocabularies; only an estimate hangs on it
_EFFICIENCY = 0.75  # share of the matrix rate that rows of some hundred tokens reach
_GENERATION = 4  # a generated token over a read one, some twenty prompts side by side
_SECONDS_TO_LOAD = 5.0


Tokens = tuple[float, float, float]
"""Tokens to read, those of them to score, and tokens to write."""


def expected_minutes(plan: EvaluationPlan, tasks: Sequence[PreparedTask]) -> float:
    """Minutes that asking every model of the plan may take, ledger empty; good to a factor of about two."""
    asked = tokens(tasks)
    rate = _matrix_rate(choose_device(plan.device))
    return sum(_minutes(asked, *_parameters(spec), rate) for spec in plan.models)


def minutes(asked: Tokens, sizes: Sequence[float], device: str) -> list[float]:
    """Minutes that models of these numbers of parameters may take on a device; see `expected_minutes`."""
    rate = _matrix_rate(device)
    return [_minutes(asked, parameters, 0.0, rate) for parameters in sizes]


def _minutes(asked: Tokens, body: float, head: float, rate: float) -> float:
    """Two operations per parameter and token.

    Embeddings are looked up, and the head projects only scored and generated tokens; a generated token costs more,
    since every step reads all weights from memory.
    """
    read, scored, generated = asked
    operations = 2 * (body * read + head * scored + (body + head) * _GENERATION * generated)
    return (_SECONDS_TO_LOAD + operations / (rate * _EFFICIENCY)) / 60


def tokens(tasks: Sequence[PreparedTask]) -> Tokens:
    """Tokens to read, those of them to score, and tokens to write.

    What a token tree reads: a prompt once for all its answers, and a block of solved examples once for all prompts.
    """
    read = scored = generated = 0.0
    for task in tasks:
        prompts = sum(len(item.prompt) for item in task.items) / _CHARACTERS_PER_TOKEN
        block = task.num_fewshot * prompts / max(len(task.items), 1)
        read += prompts + block * (1 if task.fewshot == "fixed" else len(task.items))
        if task.format == "choose":
            answers = sum(len(choice) for item in task.items for choice in item.choices or ()) / _CHARACTERS_PER_TOKEN
            read += answers
            scored += answers
        else:
            generated += task.repeats * len(task.items) * min(task.max_tokens or 64, 64)
    return read, scored, generated


def _matrix_rate(device: str) -> float:
    """Floating-point operations per second of a 512³ product, best of five: what others slow is no property of it."""
    import torch

    a = torch.ones(512, 512, device=device)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for an asynchronous device
        times.append(time.perf_counter() - start)
    return float(2 * 512**3 / max(min(times[1:]), 1e-9))


def _parameters(spec: ModelSpec) -> tuple[float, float]:
    """Parameters of a checkpoint's layers and of its head, from the sizes of its files and its config."""
    if spec.kind not in ("checkpoint", "microworld"):
        return 0.0, 0.0
    checkpoint = locate(spec)
    weights = checkpoint.adapter_of or checkpoint
    config: Any = weights.config
    half = str(config.get("dtype") or config.get("torch_dtype")) in ("float16", "bfloat16")
    every = sum(file.stat().st_size for file in weights.path.glob("*.safetensors")) / (2 if half else 4)
    head = float(config.get("vocab_size") or 0) * float(config.get("hidden_size") or 0)
    copies = 1 if config.get("tie_word_embeddings", True) else 2
    return max(every - copies * head, 0.1 * every), head

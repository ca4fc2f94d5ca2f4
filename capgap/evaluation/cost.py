"""The expected duration of an evaluation: floating-point operations over the rate of this machine, roughly."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from capgap.battery import PreparedTask
from capgap.evaluation.plan import EvaluationPlan
from capgap.models import ModelSpec, choose_device, locate

_CHARACTERS_PER_TOKEN = 4.0  # of English text under common vocabularies; only an estimate hangs on it
_FLOPS_UTILIZATION = 0.75  # share of the matrix rate that rows of some hundred tokens reach
_GENERATED_TOKEN_COST = 4  # a generated token over a read one, some twenty prompts side by side
_SECONDS_TO_LOAD = 5.0


class TokenCounts(NamedTuple):
    """Tokens of all requests to one model."""

    read: float
    """Tokens that pass through the model."""
    scored: float
    """Those of them whose log-probability is taken."""
    generated: float
    """Tokens that are written."""


def expected_minutes(plan: EvaluationPlan, tasks: Sequence[PreparedTask]) -> float:
    """Minutes that asking every model of the plan may take, ledger empty; good to a factor of about two."""
    counts = count_tokens(tasks)
    rate = _measure_flops(choose_device(plan.device))
    return sum(_estimate_minutes(counts, *_count_parameters(spec), rate) for spec in plan.models)


def minutes_by_size(counts: TokenCounts, n_parameters: Sequence[float], device: str) -> list[float]:
    """Minutes that models of these numbers of parameters may take on a device; see `expected_minutes`."""
    rate = _measure_flops(device)
    return [_estimate_minutes(counts, n, 0.0, rate) for n in n_parameters]


def _estimate_minutes(counts: TokenCounts, body: float, head_parameters: float, rate: float) -> float:
    """Minutes at two operations per parameter (of the layers, `body`, and of the `head_parameters`) and token.

    Embeddings are looked up, and the head projects only scored and generated tokens; a generated token costs more,
    since every step reads all weights from memory.
    """
    generation = (body + head_parameters) * _GENERATED_TOKEN_COST * counts.generated
    # A multiplication and an addition a parameter; the head projects only scored and generated tokens.
    n_operations = 2 * (body * counts.read + head_parameters * counts.scored + generation)
    return (_SECONDS_TO_LOAD + n_operations / (rate * _FLOPS_UTILIZATION)) / 60


def count_tokens(tasks: Sequence[PreparedTask]) -> TokenCounts:
    """Tokens of all requests of some tasks, from their characters.

    A prefix tree reads a prompt once for all its answers, and a block of solved examples once for all prompts.
    """
    n_read = scored = generated = 0.0
    for task in tasks:
        prompts = sum(len(item.prompt) for item in task.items) / _CHARACTERS_PER_TOKEN
        block = task.num_fewshot * prompts / max(len(task.items), 1)
        n_read += prompts + block * (1 if task.fewshot == "fixed" else len(task.items))
        if task.format == "choose":
            answers = sum(len(choice) for item in task.items for choice in item.choices or ()) / _CHARACTERS_PER_TOKEN
            n_read += answers
            scored += answers
        else:
            generated += task.repeats * len(task.items) * min(task.max_tokens or 64, 64)
    return TokenCounts(n_read, scored, generated)


def _measure_flops(device: str) -> float:
    """Floating-point operations per second of a 512³ matrix product; the best of five, as others' load only slows."""
    import torch

    a = torch.ones(512, 512, device=device)
    durations = []
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for an asynchronous device
        durations.append(time.perf_counter() - start)
    return float(2 * 512**3 / max(min(durations[1:]), 1e-9))


def _count_parameters(spec: ModelSpec) -> tuple[float, float]:
    """Parameters of a checkpoint's layers and of its head, from the sizes of its files and its config."""
    if spec.kind not in ("checkpoint", "microworld"):
        return 0.0, 0.0
    checkpoint = locate(spec)
    weights = checkpoint.adapter_of or checkpoint
    config: Any = weights.config
    is_16_bit = str(config.get("dtype") or config.get("torch_dtype")) in ("float16", "bfloat16")
    n_parameters = sum(file.stat().st_size for file in weights.path.glob("*.safetensors")) / (2 if is_16_bit else 4)
    head_parameters = float(config.get("vocab_size") or 0) * float(config.get("hidden_size") or 0)
    n_embedding_copies = 1 if config.get("tie_word_embeddings", True) else 2
    return max(n_parameters - n_embedding_copies * head_parameters, 0.1 * n_parameters), head_parameters

"""How long an evaluation will take, before it starts: operations over the rate of this machine, roughly."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from capgap.battery import Prepared
from capgap.evaluate.plan import Plan
from capgap.models import ModelSpec, choose_device, locate

__all__ = ["expected_minutes"]

_CHARACTERS_PER_TOKEN = 4.0  # of English text under common vocabularies; only an estimate hangs on it
_SCORING_EFFICIENCY = 0.4  # share of the matrix rate that batches of short rows reach in lm-eval's own path
_SECONDS_TO_LOAD = 5.0


def expected_minutes(plan: Plan, tasks: Sequence[Prepared]) -> float:
    """Minutes that asking every model of the plan may take, ledger empty; good to a factor of about two.

    Two operations per parameter and token; generated tokens are counted at the rate of a forward pass over a batch,
    but read all weights from memory at each step.
    """
    scored, generated = _tokens(tasks)
    device = choose_device(plan.device)
    rate = _matrix_rate(device)
    seconds = 0.0
    for spec in plan.models:
        parameters = _parameters(spec)
        seconds += _SECONDS_TO_LOAD + 2 * parameters * (scored + 3 * generated) / (rate * _SCORING_EFFICIENCY)
    return seconds / 60


def _tokens(tasks: Sequence[Prepared]) -> tuple[float, float]:
    """Tokens to read and tokens to write."""
    scored = generated = 0.0
    for task in tasks:
        for item in task.items:
            prompt = len(item.prompt) * (1 + task.num_fewshot) / _CHARACTERS_PER_TOKEN
            if item.choices and task.format == "choose":
                scored += sum(prompt + len(choice) / _CHARACTERS_PER_TOKEN for choice in item.choices)
            else:
                scored += prompt
                generated += min(task.max_tokens or 64, 64)
    return scored, generated


def _matrix_rate(device: str) -> float:
    """Floating-point operations per second of a 512³ product, median of five."""
    import torch

    a = torch.ones(512, 512, device=device)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for an asynchronous device
        times.append(time.perf_counter() - start)
    return float(2 * 512**3 / max(statistics.median(times[1:]), 1e-9))


def _parameters(spec: ModelSpec) -> float:
    """Parameters of a checkpoint, from the sizes of its files."""
    if spec.kind not in ("checkpoint", "microworld"):
        return 0.0
    checkpoint = locate(spec)
    weights = checkpoint.adapter_of or checkpoint
    config: Any = weights.config
    half = str(config.get("dtype") or config.get("torch_dtype")) in ("float16", "bfloat16")
    return sum(file.stat().st_size for file in weights.path.glob("*.safetensors")) / (2 if half else 4)

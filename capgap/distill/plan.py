"""Which examples meet in which batch: the whole of a training run, laid out before it starts.

A run that was killed goes on from the place in this plan where it stopped, so nothing about the order of the
examples depends on what a process remembers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Plan", "lay_out"]


@dataclass(frozen=True)
class Plan:
    """The batches of a training run in their order."""

    batches: tuple[tuple[int, ...], ...]
    """Examples of each forward pass, by index."""
    accumulation: int
    """Forward passes in each optimizer step; the last step may have fewer."""
    n_examples: int
    """How many examples there are."""

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(len(self.batches) / self.accumulation)

    @property
    def epochs(self) -> float:
        """How often an example is seen, on average."""
        return sum(map(len, self.batches)) / self.n_examples


def lay_out(
    lengths: Sequence[int],
    *,
    batch_size: int,
    accumulation: int = 1,
    epochs: float | None = None,
    max_steps: int | None = None,
    rng: np.random.Generator,
) -> Plan:
    """The plan of a run over examples of these lengths.

    Parameters
    ----------
    lengths
        Tokens of each example, shape (examples,).
    batch_size, accumulation
        Examples in one forward pass, and forward passes in one optimizer step.
    epochs, max_steps
        How long: one of the two. Steps go through the examples again and again, each time in another order.
    rng
        Draws the orders.

    Notes
    -----
    The examples of a step are drawn without regard to their length and only then sorted over its forward passes.
    Because the loss is divided by the tokens of the whole step, this spares padding and changes no gradient; steps
    made of examples of one length would weigh short answers over long ones.
    """
    n = len(lengths)
    per_step = batch_size * accumulation
    if max_steps is not None:
        n_seen = max_steps * per_step
    elif epochs is not None:
        n_seen = max(1, round(epochs * n))
    else:
        raise ValueError("epochs or max_steps")
    rounds = [rng.permutation(n) for _ in range(math.ceil(n_seen / n))]
    stream = np.concatenate(rounds)[:n_seen]
    size = np.asarray(lengths)
    batches: list[tuple[int, ...]] = []
    for start in range(0, n_seen, per_step):
        step = stream[start : start + per_step]
        if accumulation > 1:
            step = step[np.argsort(-size[step], kind="stable")]
        batches.extend(tuple(step[i : i + batch_size].tolist()) for i in range(0, len(step), batch_size))
    return Plan(tuple(batches), accumulation, n)

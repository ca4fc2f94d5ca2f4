"""Step plan: which examples meet in which optimizer step, laid out for the whole run before it starts.

A run that was killed goes on from the place in this plan where it stopped, so nothing about the order of the
examples depends on what a process remembers. How a step is cut into forward passes (`BatchSource.micro_batches`) is
another question, and has no bearing on its gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepPlan:
    """The optimizer steps of a training run in their order."""

    steps: tuple[tuple[int, ...], ...]
    """Indices of the examples of each step, shape (steps, batch); the last step may be smaller."""
    n_examples: int
    """How many examples there are."""

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return len(self.steps)

    @property
    def epochs(self) -> float:
        """How often an example is seen, on average."""
        return sum(map(len, self.steps)) / self.n_examples

    def sum_by_step(self, sizes: Sequence[int]) -> list[int]:
        """Sums of `sizes`, one for each example, over the examples of each step."""
        return [sum(sizes[index] for index in step) for step in self.steps]


def plan_steps(
    n: int, *, batch_size: int, epochs: float | None = None, max_steps: int | None = None, rng: np.random.Generator
) -> StepPlan:
    """The plan of a run.

    Parameters
    ----------
    n
        Number of examples.
    batch_size
        Examples in one optimizer step.
    epochs, max_steps
        How long: one of the two. Steps go through the examples again and again, each time in another order.
    rng
        Draws the orders.

    Notes
    -----
    The examples of a step are drawn without regard to their length: steps made of examples of one length would weigh
    short answers over long ones.
    """
    if max_steps is not None:
        n_examples_seen = max_steps * batch_size
    elif epochs is not None:
        n_examples_seen = max(1, round(epochs * n))
    else:
        raise ValueError("epochs or max_steps")
    shuffled_rounds = [rng.permutation(n) for _ in range(math.ceil(n_examples_seen / n))]
    stream = np.concatenate(shuffled_rounds)[:n_examples_seen]
    steps = [tuple(stream[start : start + batch_size].tolist()) for start in range(0, n_examples_seen, batch_size)]
    return StepPlan(tuple(steps), n)

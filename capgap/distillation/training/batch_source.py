"""What training reads: examples in tokens, and what the teachers say to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from capgap.distillation.data.encoding import EncodedExample
from capgap.distillation.training.micro_batches import MicroBatch, micro_batches, n_inputs, packed
from capgap.distillation.training.objectives import TeacherSignal

__all__ = ["StoredBatches"]

Signals = Callable[[Sequence[int]], tuple[TeacherSignal, ...]]
"""Indices of examples → what each teacher says at the positions that carry loss, one after the other."""


@dataclass(frozen=True)
class StoredBatches:
    """Examples of one training run."""

    examples: tuple[EncodedExample, ...]
    """In tokens."""
    items: tuple[str, ...]
    """Their names, for messages."""
    signals: Signals | None = None
    """Where there are teachers' distributions."""

    def passes(self, step: Sequence[int], tokens: int, n_virtual: int = 0) -> list[MicroBatch]:
        """The forward passes of an optimizer step.

        Parameters
        ----------
        step
            Indices of its examples.
        tokens
            Tokens of a pass, at most.
        n_virtual
            Virtual tokens before each example.
        """
        lengths = [n_inputs(self.examples[index]) + n_virtual for index in step]
        made = []
        for group in micro_batches(lengths, tokens):
            names = [step[place] for place in group]
            one = packed([self.examples[index] for index in names], names, n_virtual=n_virtual)
            made.append(one if self.signals is None else replace(one, signals=self.signals(names)))
        return made

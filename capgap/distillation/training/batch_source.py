"""Batch sources: where the trainer gets the micro-batches of an optimizer step from; here, from stored texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from capgap.distillation.data.encoding import EncodedExample
from capgap.distillation.data.packing import first_fit
from capgap.distillation.teacher.signals import TeacherSignals
from capgap.distillation.training.micro_batches import MicroBatch, pack_micro_batch
from capgap.distillation.training.step_plan import StepPlan


@dataclass(frozen=True)
class BatchSource(ABC):
    """What a training run reads."""

    items: tuple[str, ...]
    """Names of the examples, for messages, shape (examples,)."""

    @abstractmethod
    def micro_batches(self, step: Sequence[int], tokens: int, n_virtual: int = 0) -> list[MicroBatch]:
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

    def token_counts(self, plan: StepPlan) -> tuple[int, int] | None:
        """Tokens of a whole run and those of them that carry loss; None where only the run itself can tell."""
        return None

    def signals_record(self) -> dict[str, Any] | None:
        """Facts about the teacher's cached distributions, for ``distill.json``; None where there are none."""
        return None


@dataclass(frozen=True)
class StoredBatches(BatchSource):
    """Micro-batches of texts that are known beforehand, with the teacher's signals or without."""

    examples: tuple[EncodedExample, ...]
    """In tokens, shape (examples,)."""
    signals: TeacherSignals | None = None
    """The teachers' distributions over them, where they are learnt."""

    def micro_batches(self, step: Sequence[int], tokens: int, n_virtual: int = 0) -> list[MicroBatch]:
        """The forward passes of an optimizer step; see `BatchSource.micro_batches`."""
        lengths = [self.examples[index].n_inputs + n_virtual for index in step]
        batches = []
        for group in first_fit(lengths, tokens):
            indices = [step[n] for n in group]
            batch = pack_micro_batch([self.examples[index] for index in indices], indices, n_virtual=n_virtual)
            batches.append(batch if self.signals is None else replace(batch, signals=self.signals.signals_for(indices)))
        return batches

    def token_counts(self, plan: StepPlan) -> tuple[int, int]:
        """Tokens of a whole run and those of them that carry loss."""
        # The last token of an example is learnt and never an input.
        tokens = plan.sum_by_step([example.n_inputs + 1 for example in self.examples])
        return sum(tokens), sum(plan.sum_by_step([example.n_loss_tokens for example in self.examples]))

    def signals_record(self) -> dict[str, Any] | None:
        """Facts about the teacher's cached distributions; None where there are none."""
        return None if self.signals is None else self.signals.record()

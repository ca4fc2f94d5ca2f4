"""From the examples of an optimizer step to forward passes: packed rows, and where in them there is loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from capgap.distillation.data.encoding import IGNORE, EncodedExample
from capgap.distillation.training.objectives import TeacherSignal
from capgap.models.packed import PackedRow

__all__ = ["MicroBatch", "packed", "micro_batches"]


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass."""

    examples: tuple[int, ...]
    """Indices of its examples, in the order in which they lie."""
    ids: torch.Tensor
    """Token ids, 0 at virtual tokens; shape (tokens,)."""
    row: PackedRow
    """Which of them belong together."""
    virtual: torch.Tensor
    """Where virtual tokens stand; shape (examples x virtual tokens,)."""
    at: torch.Tensor
    """Tokens whose prediction is trained; shape (N,)."""
    labels: torch.Tensor
    """What should follow each; shape (N,)."""
    weights: torch.Tensor
    """How much each counts; float32, shape (N,)."""
    signals: tuple[TeacherSignal, ...] = ()
    """What each teacher says at `at`."""

    def to(self, device: str | torch.device) -> "MicroBatch":
        """The same on a device."""
        if self.ids.device == torch.device(device):
            return self
        moved = {name: getattr(self, name).to(device) for name in ("ids", "virtual", "at", "labels", "weights")}
        signals = tuple(signal.to(device) for signal in self.signals)
        return replace(self, **moved, signals=signals, row=PackedRow(self.row.lengths, device))


def micro_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Which sequences share a forward pass: first fit, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each sequence.
    tokens
        Tokens of a pass, at most; a longer sequence has one to itself.

    Returns
    -------
    list of lists
        Indices of `lengths`; every one of them once.
    """
    room: list[int] = []
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = next((n for n, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            room.append(tokens - lengths[index])
            groups.append([index])
        else:
            room[place] -= lengths[index]
            groups[place].append(index)
    return groups


def n_inputs(example: EncodedExample) -> int:
    """Tokens of an example that a pass needs: up to the one before the last that carries loss."""
    return max(place for place, label in enumerate(example.labels) if label != IGNORE)


def packed(examples: Sequence[EncodedExample], names: Sequence[int], *, n_virtual: int = 0) -> MicroBatch:
    """A pass over some examples.

    Parameters
    ----------
    examples
        What it holds.
    names
        Their indices in the data.
    n_virtual
        Virtual tokens before each example.
    """
    ids: list[np.ndarray] = []
    at: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    virtual: list[np.ndarray] = []
    lengths = []
    low = 0
    for example in examples:
        n = n_inputs(example)
        wanted = np.asarray(example.labels)[1 : n + 1]
        places = np.flatnonzero(wanted != IGNORE)
        ids.append(np.concatenate([np.zeros(n_virtual, dtype=np.int64), np.asarray(example.input_ids[:n])]))
        virtual.append(low + np.arange(n_virtual))
        at.append(low + n_virtual + places)
        labels.append(wanted[places])
        weights.append(np.ones(len(places)) if example.weights is None else np.asarray(example.weights))
        lengths.append(n + n_virtual)
        low += n + n_virtual
    return MicroBatch(
        tuple(names),
        torch.from_numpy(np.concatenate(ids)),
        PackedRow(tuple(lengths)),
        torch.from_numpy(np.concatenate(virtual)),
        torch.from_numpy(np.concatenate(at)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(np.concatenate(weights).astype(np.float32)),
    )

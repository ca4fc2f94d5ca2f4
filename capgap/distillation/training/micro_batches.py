"""Micro-batches: packed rows of examples, and the positions in them that carry loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from capgap.distillation.data.encoding import EncodedExample
from capgap.distillation.teacher.signal_forms import TeacherSignal
from capgap.models.packed import PackedRow


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass."""

    indices: tuple[int, ...]
    """Indices of its examples in the data, in the order in which they lie."""
    ids: torch.Tensor
    """Token ids, 0 at virtual tokens; shape (tokens,)."""
    row: PackedRow
    """Which of them belong together."""
    virtual: torch.Tensor
    """Where virtual tokens stand; shape (examples x virtual tokens,)."""
    positions: torch.Tensor
    """Where in `ids` the tokens lie whose prediction is trained; shape (N,)."""
    labels: torch.Tensor
    """The token that should follow each; shape (N,)."""
    weights: torch.Tensor
    """How much each counts; float32, shape (N,)."""
    signals: tuple[TeacherSignal, ...] = ()
    """Each teacher's signal at `positions`."""

    def to(self, device: str | torch.device) -> "MicroBatch":
        """The same on a device."""
        if self.ids.device == torch.device(device):
            return self
        moved = {name: getattr(self, name).to(device) for name in ("ids", "virtual", "positions", "labels", "weights")}
        moved_signals = tuple(signal.to(device) for signal in self.signals)
        return replace(self, **moved, signals=moved_signals, row=PackedRow(self.row.lengths, device))


def pack_micro_batch(examples: Sequence[EncodedExample], indices: Sequence[int], *, n_virtual: int = 0) -> MicroBatch:
    """Examples laid end to end as one micro-batch.

    Parameters
    ----------
    examples
        What it holds.
    indices
        Their indices in the data.
    n_virtual
        Virtual tokens before each example.
    """
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    virtual_positions: list[np.ndarray] = []
    lengths = []
    start = 0
    # Each example takes n_virtual + n_inputs tokens of the row; what it predicts is one further, hence the - 1.
    for example in examples:
        n_inputs, targets = example.n_inputs, np.asarray(example.loss_indices)
        ids.append(np.concatenate([np.zeros(n_virtual, dtype=np.int64), np.asarray(example.input_ids[:n_inputs])]))
        virtual_positions.append(start + np.arange(n_virtual))
        positions.append(start + n_virtual + targets - 1)
        labels.append(np.asarray(example.labels)[targets])
        weights.append(np.ones(len(targets)) if example.weights is None else np.asarray(example.weights))
        lengths.append(n_inputs + n_virtual)
        start += n_inputs + n_virtual
    return MicroBatch(
        tuple(indices),
        torch.from_numpy(np.concatenate(ids)),
        PackedRow(tuple(lengths)),
        torch.from_numpy(np.concatenate(virtual_positions)),
        torch.from_numpy(np.concatenate(positions)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(np.concatenate(weights).astype(np.float32)),
    )

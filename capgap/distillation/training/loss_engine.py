"""The student's packed forward pass and its loss, the same for every supervision and every adaptation."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from capgap.distillation.config import DistillConfig
from capgap.distillation.training.divergences import Objective
from capgap.distillation.training.micro_batches import MicroBatch
from capgap.distillation.training.objectives import LossSums, tiled_loss
from capgap.models.lm_head import LanguageModelHead, read_lm_head
from capgap.models.packed import PackedBackbone


class LossEngine:
    """A student with its objective, run over micro-batches.

    Parameters
    ----------
    model
        A causal language model of transformers, or peft's wrapper around one (LoRA, prompt tuning).
    objective
        What is minimised.
    """

    def __init__(self, model: Any, objective: Objective) -> None:
        self.model = model
        self.objective = objective
        base_model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.packed = PackedBackbone(base_model)
        # A head that is no plain matrix stays in the model: its logits then stand where hidden states would.
        self.head = read_lm_head(base_model) or LanguageModelHead(None)
        self.n_virtual = n_virtual_tokens(model)

    def in_use(self) -> AbstractContextManager[None]:
        """Around forward and backward passes."""
        return nullcontext() if self.head.weight is None else self.packed.in_use()

    def hidden(self, batch: MicroBatch) -> torch.Tensor:
        """The last hidden states where there is loss, shape (N, width); logits where the head is no matrix."""
        embeds = None
        if self.n_virtual:
            table = self.packed.model.get_input_embeddings()
            prompt = self.model.get_prompt(batch_size=1)[0]
            repeated = prompt.repeat(len(batch.row.lengths), 1)  # shape (examples x virtual tokens, width)
            embeds = table(batch.ids).index_copy(0, batch.virtual, repeated.to(table.weight.dtype))
        run = self.packed.logits if self.head.weight is None else self.packed.hidden
        return run(batch.ids, batch.row, embeds=embeds)[batch.positions]

    def loss(self, batch: MicroBatch) -> LossSums:
        """The loss of a pass, summed over its positions."""
        hidden = self.hidden(batch)
        return tiled_loss(
            hidden, self.head, batch.labels, batch.weights, self.objective, batch.signals,
            tile=_tile_size(hidden),
        )  # fmt: skip


def build_objective(config: DistillConfig) -> Objective:
    """What a distillation file minimises."""
    if not config.supervision_kind.learns_distributions:
        return Objective(cross_entropy=1.0)
    return Objective(**config.objective.model_dump() | {"divergence": config.divergence}, shares=config.shares)


def n_virtual_tokens(model: Any) -> int:
    """Virtual tokens of a soft prompt; 0 where there is none."""
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def _tile_size(hidden: torch.Tensor) -> int:
    """Positions that are projected together: a CPU's cache holds few logits, a GPU wants many."""
    return 1024 if hidden.device.type == "cuda" else 256

"""The student's forward pass and its loss: one way for every supervision and every adaptation."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from capgap.distillation.config import DistillConfig
from capgap.distillation.training.micro_batches import MicroBatch
from capgap.distillation.training.objectives import LossSums, Objective, tiled_loss
from capgap.models.lm_head import LanguageModelHead, head_of
from capgap.models.packed import PackedBackbone

__all__ = ["LossEngine", "objective_of"]


class LossEngine:
    """A student that can be run over packed rows and told how far it is from its targets.

    Parameters
    ----------
    model
        A causal language model of transformers, or peft's wrapper around one (LoRA, prompt tuning).
    objective
        What is minimised.
    shares
        Share of each teacher in their mixture.
    """

    def __init__(self, model: Any, objective: Objective, shares: tuple[float, ...] = ()) -> None:
        self.model = model
        self.objective = objective
        self.shares = shares
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.packed = PackedBackbone(inner)
        found = head_of(inner)
        self.head = LanguageModelHead(None) if found is None else found
        self.n_virtual = n_virtual(model)

    def in_use(self) -> AbstractContextManager[None]:
        """Around forward and backward passes."""
        return nullcontext() if self.head.weight is None else self.packed.in_use()

    def hidden(self, one: MicroBatch) -> torch.Tensor:
        """The last hidden states where there is loss, shape (N, width); logits where the head is no matrix."""
        embeds = None
        if self.n_virtual:
            table = self.packed.model.get_input_embeddings()
            prompt = self.model.get_prompt(batch_size=1)[0]
            repeated = prompt.repeat(len(one.row.lengths), 1)
            embeds = table(one.ids).index_copy(0, one.virtual, repeated.to(table.weight.dtype))
        run = self.packed.logits if self.head.weight is None else self.packed.hidden
        return run(one.ids, one.row, embeds=embeds)[one.at]

    def loss(self, one: MicroBatch) -> LossSums:
        """The loss of a pass, summed over its positions."""
        states = self.hidden(one)
        return tiled_loss(
            states, self.head, one.labels, one.weights, self.objective, one.signals, self.shares, tile=_tile(states)
        )


def objective_of(config: DistillConfig) -> Objective:
    """What a distillation file minimises."""
    if not config.distributions:
        return Objective(cross_entropy=1.0)
    asked = config.objective
    return Objective(
        config.divergence, asked.temperature, asked.beta, asked.weight, asked.cross_entropy, asked.max_entropy
    )


def n_virtual(model: Any) -> int:
    """Virtual tokens of a soft prompt; 0 where there is none."""
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def _tile(states: torch.Tensor) -> int:
    """Positions that are projected together: a CPU's cache holds few logits, a GPU wants many."""
    return 1024 if states.device.type == "cuda" else 256

"""Tiled loss of many positions with its gradient: logits exist for a few hundred positions at a time.

Shapes: N positions that carry loss, n of them in a tile, a hidden size `width`, a vocabulary of V.
"""

from dataclasses import dataclass
from typing import Any

import torch

from capgap.distillation.teacher.signal_forms import TeacherSignal
from capgap.distillation.training.divergences import Objective, divergence
from capgap.models.lm_head import LanguageModelHead

__all__ = ["LossSums", "tile_loss", "tiled_loss"]


@dataclass(frozen=True)
class LossSums:
    """The loss of some positions and its parts; sums over positions, not means, each of shape ()."""

    total: torch.Tensor
    """What is minimised; has a gradient."""
    divergence: torch.Tensor
    """Sum of weighted divergences, nats, without the factor of the temperature."""
    cross_entropy: torch.Tensor
    """Sum of weighted cross-entropies, nats."""
    n_high_entropy: torch.Tensor
    """Positions at which the teacher was too unsure."""


@dataclass(frozen=True)
class TileLoss(LossSums):
    """The loss of one tile, with its gradient."""

    gradient: torch.Tensor
    """Of `total` by the student's logits, shape (n, vocabulary)."""


def tile_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    objective: Objective,
    teacher_signals: tuple[TeacherSignal, ...] = (),
) -> TileLoss:
    """The loss of a tile and its gradient by the logits.

    Parameters
    ----------
    logits
        The student's, float, shape (n, vocabulary); overwritten.
    labels, weights
        Each position's next token and its weight, shape (n,).
    objective
        What is minimised.
    teacher_signals
        Each teacher's signal at the positions.
    """
    zero = weights.new_zeros(())
    if objective.divergence is None:
        log_p = torch.log_softmax(logits, dim=-1)
        value = -(log_p.gather(1, labels[:, None])[:, 0] * weights).sum()
        gradient = _cross_entropy_gradient(log_p.exp_(), labels, weights)
        return TileLoss(value, zero, value, zero, gradient)
    temperature = objective.temperature
    log_student = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    value, logit_gradient, entropy = divergence(log_student, objective, teacher_signals)
    divergence_weights = weights * objective.weight
    n_high_entropy = zero
    if objective.max_entropy is not None:
        masked = entropy > objective.max_entropy
        n_high_entropy, divergence_weights = masked.sum().to(weights.dtype), divergence_weights.masked_fill(masked, 0.0)
    divergence_loss = (value * divergence_weights).sum()
    # d(T² D)/dz = T² · dD/d(z/T) / T
    gradient = logit_gradient.mul_((divergence_weights * temperature)[:, None])
    total, label_loss = divergence_loss * temperature**2, zero
    if objective.cross_entropy:
        log_p = log_student if temperature == 1 else torch.log_softmax(logits, dim=-1)
        label_weights = weights * objective.cross_entropy
        label_loss = -(log_p.gather(1, labels[:, None])[:, 0] * label_weights).sum()
        gradient += _cross_entropy_gradient(log_p.exp(), labels, label_weights)
        total = total + label_loss
    return TileLoss(total, divergence_loss, label_loss, n_high_entropy, gradient)


def _cross_entropy_gradient(probability: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gradient of weighted cross-entropies by the logits, shape (n, V), in place of the probabilities."""
    if not bool((weights == 1).all()):  # a pass over all logits that mostly changes nothing
        probability.mul_(weights[:, None])
    return probability.scatter_add_(1, labels[:, None], -weights[:, None])


class _TiledLossFunction(torch.autograd.Function):
    """Autograd function that projects, compares and differentiates tile by tile, all of it in the forward pass.

    What it keeps for backward is as large as the hidden states and the head, never as the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        lm_head: LanguageModelHead,
        labels: torch.Tensor,
        weights: torch.Tensor,
        objective: Objective,
        teacher_signals: tuple[TeacherSignal, ...],
        tile: int,
    ) -> torch.Tensor:
        # Custom functions are outside of autocast: the products run in its dtype, losses in float32 or float64.
        device = hidden.device.type
        compute_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        needs_gradient = ctx.needs_input_grad
        hidden_gradient = torch.empty_like(hidden) if needs_gradient[0] else None
        weight_gradient = torch.empty_like(weight) if weight is not None and needs_gradient[1] else None
        bias_gradient = torch.zeros_like(bias) if bias is not None and needs_gradient[2] else None
        matrix = None if weight is None else weight.to(compute_dtype)
        sums = torch.zeros(4, dtype=torch.float64, device=hidden.device)
        n_columns = 0 if matrix is None else len(matrix)
        buffer = hidden.new_empty((min(tile, len(hidden)), n_columns), dtype=compute_dtype)
        with torch.autocast(device, enabled=False):
            for low in range(0, len(hidden), tile):
                high = min(low + tile, len(hidden))
                tile_states = hidden[low:high].to(compute_dtype)
                # one buffer for all tiles: fresh memory costs more than what is written into it
                raw = tile_states if matrix is None else torch.mm(tile_states, matrix.T, out=buffer[: high - low])
                logits, slope = _scaled_and_capped(_at_least_float32(raw), bias, lm_head)
                tiles = tuple(signal.tile(low, high) for signal in teacher_signals)
                loss = tile_loss(logits, labels[low:high], weights[low:high], objective, tiles)
                sums += torch.stack([loss.total, loss.divergence, loss.cross_entropy, loss.n_high_entropy])
                # by logits, shape (n, V); from here by the products that the logits were made of
                gradient = loss.gradient if slope is None else loss.gradient.mul_(slope)
                if bias_gradient is not None:
                    bias_gradient += gradient.sum(dim=0)
                gradient = gradient.to(compute_dtype)
                if hidden_gradient is not None:
                    hidden_gradient[low:high] = gradient if matrix is None else gradient @ matrix
                if weight_gradient is not None:
                    factors = (gradient.T.to(weight_gradient.dtype), tile_states.to(weight_gradient.dtype))
                    # the first tile writes over what `empty_like` left there
                    torch.mm(*factors, out=weight_gradient) if low == 0 else weight_gradient.addmm_(*factors)
        ctx.gradients = (hidden_gradient, weight_gradient, bias_gradient)
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total_gradient = gradients[0][0]  # of the total; the parts are reported, not trained on
        scaled = tuple(None if gradient is None else gradient.mul_(total_gradient) for gradient in ctx.gradients)
        ctx.gradients = (None, None, None)
        return (*scaled, *(None,) * 6)


def _scaled_and_capped(
    raw: torch.Tensor, bias: torch.Tensor | None, lm_head: LanguageModelHead
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits from products of shape (n, V), and the derivative of the former by the latter; None where that is 1."""
    if bias is not None:
        raw = raw.add_(bias)
    if lm_head.scale != 1.0:
        raw = raw.mul_(lm_head.scale)
    if lm_head.cap is None:
        return raw, (None if lm_head.scale == 1.0 else raw.new_full((), lm_head.scale))
    tanh_logits = torch.tanh(raw / lm_head.cap)
    return tanh_logits * lm_head.cap, (1 - tanh_logits**2) * lm_head.scale


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def tiled_loss(
    hidden: torch.Tensor,
    lm_head: LanguageModelHead,
    labels: torch.Tensor,
    weights: torch.Tensor,
    objective: Objective,
    teacher_signals: tuple[TeacherSignal, ...] = (),
    *,
    tile: int = 128,
) -> LossSums:
    """The loss at some positions, never with the logits of all of them in memory.

    Parameters
    ----------
    hidden
        The student's last hidden states there, shape (N, width).
    lm_head
        The student's language-model head.
    labels, weights
        The next token of each position and its weight, shape (N,).
    objective
        What is minimised.
    teacher_signals
        Each teacher's signal at these positions.
    tile
        Positions that are projected together.

    Notes
    -----
    The gradient is computed in the forward pass, tile by tile while its logits are there, so backward multiplies
    three tensors by a number; it can run once.
    """
    sums = _TiledLossFunction.apply(  # type: ignore[no-untyped-call]
        hidden, lm_head.weight, lm_head.bias, lm_head, labels, weights, objective, teacher_signals, tile
    )
    detached_loss_sums = sums.detach()
    return LossSums(sums[0], detached_loss_sums[1], detached_loss_sums[2], detached_loss_sums[3])

"""What a student is trained to do at each token: values in nats, and their gradients by formula.

Every divergence here is between two distributions over *buckets*: all tokens of the vocabulary, or the teacher's
likeliest k and one tail that holds the rest. With s the student's mass and t the teacher's in a bucket,

    forward_kl   sum t log(t / s)                        dL/ds = -t / s
    reverse_kl   sum s log(s / t)                        dL/ds = log(s / t) + 1
    jsd          beta sum t log(t / m) + (1 - beta) sum s log(s / m),  m = beta t + (1 - beta) s
                                                         dL/ds = (1 - beta) log(s / m)

(the generalised Jensen-Shannon divergence of Agarwal et al., arXiv 2306.13649). Softmax turns a derivative g by mass
into one by logits: z_i gets p_i (g_i - sum_j p_j g_j), and a token of the tail has the tail's g. A tail makes a
divergence smaller, never negative: it cannot tell tokens of the tail apart, which is the bias of top-k.

A *sample* of tokens drawn from the teacher estimates forward KL without bias, since that is linear in t
(arXiv 2503.16870); nothing else is, so nothing else is computed from samples.

At temperature T both sides are softmax(z / T), and the gradient is multiplied by T squared, which keeps its size
(Hinton et al., arXiv 1503.02531). Values are told without that factor.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from capgap.models.head import Head

__all__ = ["DIVERGENCES", "Loss", "Objective", "Signal", "tile_loss", "tiled_loss"]

DIVERGENCES: dict[str, str] = {
    "forward_kl": "the teacher's mass must be covered: KL(teacher || student)",
    "reverse_kl": "the student's mass must be right: KL(student || teacher)",
    "jsd": "between the two, by beta: generalised Jensen-Shannon divergence",
}
"""Divergences by name."""

_TINY = 1e-30
_POSITIONS = ("hidden", "ids", "logprobs", "entropy", "sampled_entropy")


@dataclass(frozen=True)
class Objective:
    """What is minimised, per token: ``weight * divergence + cross_entropy * cross-entropy``."""

    divergence: str | None = None
    """A name of `DIVERGENCES`; None: texts alone."""
    temperature: float = 1.0
    """What both sides' logits are divided by in the divergence."""
    beta: float = 0.5
    """Of ``jsd``: near 0 like forward KL, near 1 like reverse KL, up to a factor."""
    weight: float = 1.0
    """Of the divergence."""
    cross_entropy: float = 0.0
    """Weight of the cross-entropy of the text's own tokens."""
    max_entropy: float | None = None
    """The divergence counts only where the teacher's entropy at temperature 1 is at most this, in nats."""


@dataclass(frozen=True)
class Signal:
    """What one teacher says at N positions: exactly one of three forms, as the cache gives it."""

    hidden: torch.Tensor | None = None
    """Its last hidden states, shape (N, width); with `head`, its distribution itself."""
    head: Head | None = None
    """Its language-model head."""
    ids: torch.Tensor | None = None
    """Tokens, shape (N, k)."""
    logprobs: torch.Tensor | None = None
    """Log-probabilities at temperature 1, nats, shape (N, k + 1): of the likeliest k, and of all others together.
    None: `ids` are a sample."""
    entropy: torch.Tensor | None = None
    """Entropy at temperature 1, nats, shape (N,); where there are ids."""
    sampled_entropy: torch.Tensor | None = None
    """Entropy at the temperature of the sample, nats, shape (N,)."""

    def tile(self, low: int, high: int) -> "Signal":
        """The positions from `low` to `high`."""
        return self._each(lambda values: values[low:high])

    def to(self, device: str | torch.device) -> "Signal":
        """The same on a device."""
        return self._each(lambda values: values.to(device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Signal":
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in _POSITIONS if self.has(name)}
        return replace(self, **changed)

    def has(self, name: str) -> bool:
        """Whether a field is there."""
        return getattr(self, name) is not None


@dataclass(frozen=True)
class Loss:
    """The loss of some positions and what it is made of; sums, not means."""

    total: torch.Tensor
    """What is minimised; has a gradient."""
    divergence: torch.Tensor
    """Sum of weighted divergences, nats, without the factor of the temperature."""
    cross_entropy: torch.Tensor
    """Sum of weighted cross-entropies, nats."""
    n_gated: torch.Tensor
    """Positions at which the teacher was too unsure."""


@dataclass
class _Tile:
    """What one tile of positions comes to."""

    total: torch.Tensor
    divergence: torch.Tensor
    cross_entropy: torch.Tensor
    n_gated: torch.Tensor
    gradient: torch.Tensor
    """Of `total` by the student's logits, shape (n, vocabulary)."""


def tile_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    objective: Objective,
    signals: tuple[Signal, ...] = (),
    shares: tuple[float, ...] = (),
) -> _Tile:
    """The loss of a tile and its gradient by the logits.

    Parameters
    ----------
    logits
        The student's, float, shape (n, vocabulary); overwritten.
    labels, weights
        Each position's next token and its weight, shape (n,).
    objective
        What is minimised.
    signals, shares
        What each teacher says at the positions, and its share of the mixture.
    """
    zero = weights.new_zeros(())
    if objective.divergence is None:
        log_p = torch.log_softmax(logits, dim=-1)
        value = -(log_p.gather(1, labels[:, None])[:, 0] * weights).sum()
        gradient = _less_label(log_p.exp_(), labels, weights)
        return _Tile(value, zero, value, zero, gradient)
    temperature = objective.temperature
    log_s = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    value, by_logit, entropy = _divergence(log_s, objective, signals, shares)
    kept = weights * objective.weight
    n_gated = zero
    if objective.max_entropy is not None:
        unsure = entropy > objective.max_entropy
        n_gated, kept = unsure.sum().to(weights.dtype), kept.masked_fill(unsure, 0.0)
    told = (value * kept).sum()
    # d(T² D)/dz = T² · dD/d(z/T) / T
    gradient = by_logit.mul_((kept * temperature)[:, None])
    total, crossed = told * temperature**2, zero
    if objective.cross_entropy:
        log_p = log_s if temperature == 1 else torch.log_softmax(logits, dim=-1)
        scaled = weights * objective.cross_entropy
        crossed = -(log_p.gather(1, labels[:, None])[:, 0] * scaled).sum()
        gradient += _less_label(log_p.exp(), labels, scaled)
        total = total + crossed
    return _Tile(total, told, crossed, n_gated, gradient)


def _less_label(probability: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gradient of weighted cross-entropies by the logits, in place of the probabilities."""
    if not bool((weights == 1).all()):  # a pass over all logits that mostly changes nothing
        probability.mul_(weights[:, None])
    return probability.scatter_add_(1, labels[:, None], -weights[:, None])


def _divergence(
    log_s: torch.Tensor, objective: Objective, signals: tuple[Signal, ...], shares: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value, gradient by the logits over the temperature, and the teacher's entropy, at each position."""
    forms = {("dense" if s.hidden is not None else "top" if s.logprobs is not None else "sample") for s in signals}
    if forms == {"dense"}:
        return _dense(log_s, objective, signals, shares)
    if forms == {"top"} and len(signals) == 1:
        return _top(log_s, objective, signals[0])
    if forms == {"sample"}:
        return _sampled(log_s, objective, signals, shares)
    raise ValueError(f"signals of {sorted(forms)} from {len(signals)} teachers cannot be mixed")


def _dense(
    log_s: torch.Tensor, objective: Objective, signals: tuple[Signal, ...], shares: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n_common = log_s.shape[1]
    raw = [_logits(signal)[:, :n_common] for signal in signals]
    # A teacher with fewer ids than the student: both are compared over what they share.
    n_shared = min(teacher.shape[1] for teacher in raw)
    own, raw = log_s[:, :n_shared], [teacher[:, :n_shared] for teacher in raw]
    if n_shared < n_common:
        own = torch.log_softmax(own, dim=-1)
    log_t = _mixed([torch.log_softmax(teacher / objective.temperature, dim=-1) for teacher in raw], shares)
    if objective.max_entropy is None:
        entropy = log_t.new_zeros(len(log_t))
    else:
        at_one = log_t
        if objective.temperature != 1:
            at_one = _mixed([torch.log_softmax(teacher, dim=-1) for teacher in raw], shares)
        entropy = -(at_one.exp() * at_one).sum(dim=-1)
    value, by_logit = _between(log_t, own, objective)
    if n_shared < n_common:
        by_logit = torch.nn.functional.pad(by_logit, (0, n_common - n_shared))
    return value, by_logit, entropy


def _logits(signal: Signal) -> torch.Tensor:
    assert signal.head is not None
    assert signal.hidden is not None
    return signal.head.logits(signal.hidden)


def _mixed(logprobs: list[torch.Tensor], shares: tuple[float, ...]) -> torch.Tensor:
    """Log-probabilities of a mixture of distributions."""
    if len(logprobs) == 1:
        return logprobs[0]
    weights = torch.tensor(shares, dtype=logprobs[0].dtype, device=logprobs[0].device).log()
    return torch.logsumexp(torch.stack(logprobs) + weights[:, None, None], dim=0)


def _between(log_t: torch.Tensor, log_s: torch.Tensor, objective: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient by logits where every token is a bucket of its own."""
    s = log_s.exp()
    if objective.divergence == "forward_kl":
        t = log_t.exp()
        return (t * (log_t - log_s)).sum(dim=-1), s.sub_(t)
    if objective.divergence == "reverse_kl":
        ratio = log_s - log_t
        value = (s * ratio).sum(dim=-1)
        return value, ratio.sub_(value[:, None]).mul_(s)
    beta = objective.beta
    t = log_t.exp()
    log_m = (beta * t + (1 - beta) * s).clamp_min_(_TINY).log_()
    ratio = log_s - log_m
    from_student = (s * ratio).sum(dim=-1)
    value = beta * (t * (log_t - log_m)).sum(dim=-1) + (1 - beta) * from_student
    return value, ratio.sub_(from_student[:, None]).mul_(s).mul_(1 - beta)


def _top(log_s: torch.Tensor, objective: Objective, signal: Signal) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert signal.ids is not None
    assert signal.logprobs is not None
    assert signal.entropy is not None
    if objective.temperature != 1:
        raise ValueError("a temperature needs the teacher's whole distribution, and top-k has a part of it")
    # Rounded where they were kept, so that they are made to add up again.
    ids, log_t = signal.ids.long(), torch.log_softmax(signal.logprobs.to(log_s.dtype), dim=-1)
    s = log_s.exp()
    s_top = s.gather(1, ids)
    # Summed, not 1 - the others: where the tail holds next to nothing, the difference is all rounding.
    s_tail = s.scatter(1, ids, 0.0).sum(dim=-1, keepdim=True)
    teacher, student = log_t.exp(), torch.cat([s_top, s_tail], 1).clamp_min(_TINY)
    value, by_mass = _by_mass(teacher, student, objective)
    centre = (student * by_mass).sum(dim=-1, keepdim=True)
    by_logit = s * (by_mass[:, -1:] - centre)
    by_logit.scatter_(1, ids, s_top * (by_mass[:, :-1] - centre))
    return value, by_logit, signal.entropy


def _by_mass(teacher: torch.Tensor, student: torch.Tensor, objective: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """Value, and derivative by the student's mass in each bucket."""
    t, s, beta = teacher.clamp_min(_TINY), student, objective.beta
    if objective.divergence == "forward_kl":
        return (t * (t / s).log()).sum(dim=-1), -t / s
    if objective.divergence == "reverse_kl":
        ratio = (s / t).log()
        return (s * ratio).sum(dim=-1), ratio + 1
    m = beta * t + (1 - beta) * s
    value = beta * (t * (t / m).log()).sum(dim=-1) + (1 - beta) * (s * (s / m).log()).sum(dim=-1)
    return value, (1 - beta) * (s / m).log()


def _sampled(
    log_s: torch.Tensor, objective: Objective, signals: tuple[Signal, ...], shares: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if objective.divergence != "forward_kl":
        raise ValueError(f"{objective.divergence} cannot be estimated from a sample without bias; forward_kl can")
    by_logit = log_s.exp()
    value = by_logit.new_zeros(len(by_logit))
    entropy = by_logit.new_zeros(len(by_logit))
    for signal, share in zip(signals, shares or (1.0,), strict=True):
        assert signal.ids is not None
        assert signal.entropy is not None
        assert signal.sampled_entropy is not None
        ids = signal.ids.long()
        each = share / ids.shape[1]
        # Its expectation is the mean of the teachers' own divergences, which has the gradient of their mixture's.
        value -= each * log_s.gather(1, ids).sum(dim=-1) + share * signal.sampled_entropy
        by_logit.scatter_add_(1, ids, by_logit.new_full((), -each).expand(ids.shape))
        entropy = entropy + share * signal.entropy
    return value, by_logit, entropy


class _Tiled(torch.autograd.Function):
    """Project, compare and differentiate tile by tile; what is kept is as large as the hidden states and the head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        head: Head,
        labels: torch.Tensor,
        weights: torch.Tensor,
        objective: Objective,
        signals: tuple[Signal, ...],
        shares: tuple[float, ...],
        tile: int,
    ) -> torch.Tensor:
        computed = torch.get_autocast_dtype(hidden.device.type) if _autocast(hidden) else hidden.dtype
        needs = ctx.needs_input_grad
        by_hidden = torch.empty_like(hidden) if needs[0] else None
        by_weight = torch.empty_like(weight) if weight is not None and needs[1] else None
        by_bias = torch.zeros_like(bias) if bias is not None and needs[2] else None
        matrix = None if weight is None else weight.to(computed)
        sums = torch.zeros(4, dtype=torch.float64, device=hidden.device)
        buffer = (
            hidden.new_empty(0)
            if matrix is None
            else hidden.new_empty((min(tile, len(hidden)), len(matrix)), dtype=computed)
        )
        with torch.autocast(hidden.device.type, enabled=False):
            for low in range(0, len(hidden), tile):
                high = min(low + tile, len(hidden))
                states = hidden[low:high].to(computed)
                # one buffer for all tiles: fresh memory costs more than what is written into it
                raw = states if matrix is None else torch.mm(states, matrix.T, out=buffer[: high - low])
                logits, slope = _bent(_exact(raw), bias, head)
                told = tile_loss(
                    logits,
                    labels[low:high],
                    weights[low:high],
                    objective,
                    tuple(signal.tile(low, high) for signal in signals),
                    shares,
                )
                sums += torch.stack([told.total, told.divergence, told.cross_entropy, told.n_gated])
                gradient = told.gradient if slope is None else told.gradient.mul_(slope)
                if by_bias is not None:
                    by_bias += gradient.sum(dim=0)
                gradient = gradient.to(computed)
                if by_hidden is not None:
                    by_hidden[low:high] = gradient if matrix is None else gradient @ matrix
                if by_weight is not None:
                    own = (gradient.T.to(by_weight.dtype), states.to(by_weight.dtype))
                    torch.mm(*own, out=by_weight) if low == 0 else by_weight.addmm_(*own)
        ctx.gradients = (by_hidden, by_weight, by_bias)
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = gradients[0][0]  # of the total; the parts are told, not trained on
        own = tuple(None if gradient is None else gradient.mul_(factor) for gradient in ctx.gradients)
        ctx.gradients = (None, None, None)
        return (*own, *(None,) * 7)


def _bent(raw: torch.Tensor, bias: torch.Tensor | None, head: Head) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits from products, and the derivative of the former by the latter; None where that is 1."""
    if bias is not None:
        raw = raw.add_(bias)
    if head.scale != 1.0:
        raw = raw.mul_(head.scale)
    if head.cap is None:
        return raw, (None if head.scale == 1.0 else raw.new_full((), head.scale))
    bent = torch.tanh(raw / head.cap)
    return bent * head.cap, (1 - bent**2) * head.scale


def _exact(values: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def _autocast(hidden: torch.Tensor) -> bool:
    return bool(torch.is_autocast_enabled(hidden.device.type))


def tiled_loss(
    hidden: torch.Tensor,
    head: Head,
    labels: torch.Tensor,
    weights: torch.Tensor,
    objective: Objective,
    signals: tuple[Signal, ...] = (),
    shares: tuple[float, ...] = (),
    *,
    tile: int = 128,
) -> Loss:
    """The loss at some positions, never with the logits of all of them in memory.

    Parameters
    ----------
    hidden
        The student's last hidden states there, shape (N, width).
    head
        The student's language-model head.
    labels, weights
        The next token of each position and its weight, shape (N,).
    objective
        What is minimised.
    signals, shares
        What each teacher says at these positions, and its share of the mixture.
    tile
        Positions that are projected together.

    Notes
    -----
    The gradient is computed in the forward pass, tile by tile while its logits are there, so backward multiplies
    three tensors by a number; it can run once.
    """
    sums = _Tiled.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, labels, weights, objective, signals, shares, tile
    )
    parts = sums.detach()
    return Loss(sums[0], parts[1], parts[2], parts[3])

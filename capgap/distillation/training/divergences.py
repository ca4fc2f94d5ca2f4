"""Forward KL, reverse KL and generalised JSD between next-token distributions: values in nats, gradients by formula.

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
(Hinton et al., arXiv 1503.02531). Values are given without that factor.

Shapes: n positions, V tokens that student and teacher share.
"""

from dataclasses import dataclass

import torch

from capgap.distillation.teacher.signal_forms import TeacherSignal

__all__ = ["DIVERGENCES", "Objective", "divergence"]

DIVERGENCES: dict[str, str] = {
    "forward_kl": "the teacher's mass must be covered: KL(teacher || student)",
    "reverse_kl": "the student's mass must be right: KL(student || teacher)",
    "jsd": "between the two, by beta: generalised Jensen-Shannon divergence",
}
"""Divergences by name."""

PositionLoss = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Value, gradient by the logits over the temperature, teacher's entropy: shapes (n,), (n, V), (n,)."""
ValueAndGradient = tuple[torch.Tensor, torch.Tensor]
_MASS_FLOOR = 1e-30  # a mass below which logarithms are cut off


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
    shares: tuple[float, ...] = (1.0,)
    """Share of each teacher in their mixture, shape (teachers,); they add up to 1."""


def divergence(log_student: torch.Tensor, objective: Objective, signals: tuple[TeacherSignal, ...]) -> PositionLoss:
    """Value, gradient by the logits over the temperature, and the teacher's entropy, at each position.

    Parameters
    ----------
    log_student
        The student's log-probabilities at the temperature, shape (n, vocabulary).
    objective
        Which divergence.
    signals
        Each teacher's signal at the n positions.

    Returns
    -------
    value, gradient, entropy
        Shapes (n,), (n, vocabulary), (n,); nats. The entropy is zeros where nothing asks for it.
    """
    form_names = {("dense" if s.hidden is not None else "top" if s.logprobs is not None else "sample") for s in signals}
    if form_names == {"dense"}:
        return _dense_loss(log_student, objective, signals)
    if form_names == {"top"} and len(signals) == 1:
        return _divergence_from_top_k(log_student, objective, signals[0])
    if form_names == {"sample"}:
        return _from_samples(log_student, objective, signals)
    raise ValueError(f"signals of {sorted(form_names)} from {len(signals)} teachers cannot be mixed")


def _dense_loss(log_student: torch.Tensor, objective: Objective, signals: tuple[TeacherSignal, ...]) -> PositionLoss:
    """From whole distributions of any number of teachers."""
    student_vocabulary_size = log_student.shape[1]
    logits = [_compute_teacher_logits(signal) for signal in signals]
    # A teacher with fewer ids than the student: both are compared over what they share, renormalised.
    n_shared = min(student_vocabulary_size, *(teacher.shape[1] for teacher in logits))
    logits = [teacher[:, :n_shared] for teacher in logits]
    if n_shared < student_vocabulary_size:
        log_student = torch.log_softmax(log_student[:, :n_shared], dim=-1)
    temperature, shares = objective.temperature, objective.shares
    log_teacher = _mix_logprobs([torch.log_softmax(teacher / temperature, dim=-1) for teacher in logits], shares)
    if objective.max_entropy is None:
        entropy = log_teacher.new_zeros(len(log_teacher))
    else:
        untempered_log_teacher = log_teacher
        if temperature != 1:
            untempered_log_teacher = _mix_logprobs([torch.log_softmax(teacher, dim=-1) for teacher in logits], shares)
        entropy = -(untempered_log_teacher.exp() * untempered_log_teacher).sum(dim=-1)
    value, logit_gradient = _token_divergence(log_teacher, log_student, objective)
    if n_shared < student_vocabulary_size:
        logit_gradient = torch.nn.functional.pad(logit_gradient, (0, student_vocabulary_size - n_shared))
    return value, logit_gradient, entropy


def _compute_teacher_logits(signal: TeacherSignal) -> torch.Tensor:
    assert signal.head is not None
    assert signal.hidden is not None
    return signal.head.logits(signal.hidden)


def _mix_logprobs(logprobs: list[torch.Tensor], shares: tuple[float, ...]) -> torch.Tensor:
    """Log-probabilities of a mixture of distributions, each of shape (n, V)."""
    if len(logprobs) == 1:
        return logprobs[0]
    weights = torch.tensor(shares, dtype=logprobs[0].dtype, device=logprobs[0].device).log()
    return torch.logsumexp(torch.stack(logprobs) + weights[:, None, None], dim=0)


def _token_divergence(log_teacher: torch.Tensor, log_student: torch.Tensor, objective: Objective) -> ValueAndGradient:
    """Value and gradient by logits where every token is a bucket of its own; in place, since V is large."""
    s = log_student.exp()
    if objective.divergence == "forward_kl":
        t = log_teacher.exp()
        return (t * (log_teacher - log_student)).sum(dim=-1), s.sub_(t)
    if objective.divergence == "reverse_kl":
        ratio = log_student - log_teacher
        value = (s * ratio).sum(dim=-1)
        return value, ratio.sub_(value[:, None]).mul_(s)
    beta = objective.beta
    t = log_teacher.exp()
    log_mixture = (beta * t + (1 - beta) * s).clamp_min_(_MASS_FLOOR).log_()
    ratio = log_student - log_mixture
    student_kl = (s * ratio).sum(dim=-1)
    value = beta * (t * (log_teacher - log_mixture)).sum(dim=-1) + (1 - beta) * student_kl
    return value, ratio.sub_(student_kl[:, None]).mul_(s).mul_(1 - beta)


def _divergence_from_top_k(log_student: torch.Tensor, objective: Objective, signal: TeacherSignal) -> PositionLoss:
    """From the likeliest k tokens of one teacher and one tail for all others."""
    assert signal.ids is not None
    assert signal.logprobs is not None
    assert signal.entropy is not None
    if objective.temperature != 1:
        raise ValueError("a temperature needs the teacher's whole distribution, and top-k has a part of it")
    # Shapes (n, k) and (n, k + 1). They were rounded where they were kept, and are made to add up to 1 again.
    ids, log_teacher = signal.ids.long(), torch.log_softmax(signal.logprobs.to(log_student.dtype), dim=-1)
    s = log_student.exp()
    student_top_masses = s.gather(1, ids)
    # Summed, not 1 - the others: where the tail holds next to nothing, the difference is all rounding.
    student_tail_mass = s.scatter(1, ids, 0.0).sum(dim=-1, keepdim=True)
    teacher, student = log_teacher.exp(), torch.cat([student_top_masses, student_tail_mass], 1).clamp_min(_MASS_FLOOR)
    value, bucket_mass_gradient = _bucket_divergence(teacher, student, objective)
    # Softmax's backward: the tail's derivative at every token, then those of the top over it.
    centre = (student * bucket_mass_gradient).sum(dim=-1, keepdim=True)
    logit_gradient = s * (bucket_mass_gradient[:, -1:] - centre)
    logit_gradient.scatter_(1, ids, student_top_masses * (bucket_mass_gradient[:, :-1] - centre))
    return value, logit_gradient, signal.entropy


def _bucket_divergence(teacher: torch.Tensor, student: torch.Tensor, objective: Objective) -> ValueAndGradient:
    """Value, and derivative by the student's mass in each bucket; masses of shape (n, buckets)."""
    t, s, beta = teacher.clamp_min(_MASS_FLOOR), student, objective.beta
    if objective.divergence == "forward_kl":
        return (t * (t / s).log()).sum(dim=-1), -t / s
    if objective.divergence == "reverse_kl":
        ratio = (s / t).log()
        return (s * ratio).sum(dim=-1), ratio + 1
    m = beta * t + (1 - beta) * s
    value = beta * (t * (t / m).log()).sum(dim=-1) + (1 - beta) * (s * (s / m).log()).sum(dim=-1)
    return value, (1 - beta) * (s / m).log()


def _from_samples(log_student: torch.Tensor, objective: Objective, signals: tuple[TeacherSignal, ...]) -> PositionLoss:
    """From tokens drawn from the teachers: an estimate of forward KL, whose gradient is unbiased."""
    if objective.divergence != "forward_kl":
        raise ValueError(f"{objective.divergence} cannot be estimated from a sample without bias; forward_kl can")
    logit_gradient = log_student.exp()
    value = logit_gradient.new_zeros(len(logit_gradient))
    entropy = logit_gradient.new_zeros(len(logit_gradient))
    for signal, share in zip(signals, objective.shares, strict=True):
        assert signal.ids is not None
        assert signal.entropy is not None
        assert signal.sampled_entropy is not None
        ids = signal.ids.long()
        draw_weight = share / ids.shape[1]
        # Its expectation is the mean of the teachers' own divergences, which has the gradient of their mixture's.
        value -= draw_weight * log_student.gather(1, ids).sum(dim=-1) + share * signal.sampled_entropy
        logit_gradient.scatter_add_(1, ids, logit_gradient.new_full((), -draw_weight).expand(ids.shape))
        entropy = entropy + share * signal.entropy
    return value, logit_gradient, entropy

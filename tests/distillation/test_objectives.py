import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from capgap.distillation.teacher.signal_forms import TeacherSignal
from capgap.distillation.training.divergences import DIVERGENCES, Objective
from capgap.distillation.training.objectives import tile_loss, tiled_loss
from capgap.models.lm_head import LanguageModelHead

N, V, WIDTH = 7, 11, 5


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 3, 10, 3, 7, 1, 2])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 3.0], dtype=torch.float64)
TEACHER = LanguageModelHead(draw(V, WIDTH, seed=1))
STATES = draw(N, WIDTH, seed=2)


def dense() -> TeacherSignal:
    return TeacherSignal(hidden=STATES, head=TEACHER)


def top(k: int) -> TeacherSignal:
    logprobs = torch.log_softmax(TEACHER.logits(STATES), -1)
    best = logprobs.topk(k, dim=-1)
    rest = logprobs.scatter(1, best.indices, -torch.inf).logsumexp(-1, keepdim=True)
    return TeacherSignal(
        ids=best.indices, logprobs=torch.cat([best.values, rest], 1), entropy=-(logprobs.exp() * logprobs).sum(-1)
    )


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


FORMULAS: dict[str, Callable[[list[float], list[float], float], float]] = {
    "forward_kl": lambda t, s, beta: kl(t, s),
    "reverse_kl": lambda t, s, beta: kl(s, t),
    "jsd": lambda t, s, beta: beta * kl(t, mix(t, s, beta)) + (1 - beta) * kl(s, mix(t, s, beta)),
}


def mix(t: list[float], s: list[float], beta: float) -> list[float]:
    return [beta * a + (1 - beta) * b for a, b in zip(t, s, strict=True)]


def softmax(logits: torch.Tensor, temperature: float) -> list[float]:
    powers = [math.exp(float(z) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize(("temperature", "beta"), [(1.0, 0.5), (2.0, 0.1), (0.7, 0.9)])
def test_each_divergence_is_its_formula_in_plain_numbers(name: str, temperature: float, beta: float) -> None:
    logits = draw(N, V, seed=3)
    objective = Objective(name, temperature, beta, weight=0.5, cross_entropy=0.25)
    told = tile_loss(logits.clone(), LABELS, WEIGHTS, objective, (dense(),))
    teacher = TEACHER.logits(STATES)
    values = [
        FORMULAS[name](softmax(t, temperature), softmax(s, temperature), beta)
        for t, s in zip(teacher, logits, strict=True)
    ]
    crossed = [-math.log(softmax(s, 1.0)[label]) for s, label in zip(logits, LABELS.tolist(), strict=True)]
    weights = WEIGHTS.tolist()
    expected = sum(0.5 * w * v for w, v in zip(weights, values, strict=True))
    texts = sum(0.25 * w * v for w, v in zip(weights, crossed, strict=True))
    assert float(told.divergence) == pytest.approx(expected, rel=1e-9)
    assert float(told.cross_entropy) == pytest.approx(texts, rel=1e-9)
    assert float(told.total) == pytest.approx(expected * temperature**2 + texts, rel=1e-9)


def test_trls_divergence_is_ours() -> None:
    """Reference: kl_div of torch, as the generalised JSD is written in arXiv 2306.13649, with 1 - beta for beta."""
    logits = draw(N, V, seed=3)
    s, t = torch.log_softmax(logits, -1), torch.log_softmax(TEACHER.logits(STATES), -1)
    m = torch.logsumexp(torch.stack([s + math.log(0.7), t + math.log(0.3)]), dim=0)
    divergence = torch.nn.functional.kl_div
    expected = 0.3 * divergence(m, t, log_target=True, reduction="none").sum(-1)
    expected = expected + 0.7 * divergence(m, s, log_target=True, reduction="none").sum(-1)
    told = tile_loss(logits, LABELS, WEIGHTS, Objective("jsd", beta=0.3), (dense(),))
    assert float(told.divergence) == pytest.approx(float((expected * WEIGHTS).sum()), rel=1e-9)


def assert_gradients(loss: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], step: float = 1e-6) -> None:
    """Every derivative against a central difference; backward runs once, as in training."""
    found = torch.autograd.grad(3 * loss(*inputs), inputs)
    for tensor, gradient in zip(inputs, found, strict=True):
        flat, expected = tensor.detach().view(-1), torch.empty(tensor.numel(), dtype=torch.float64)
        for place in range(len(flat)):
            was = float(flat[place])
            sides = []
            for side in (was + step, was - step):
                flat[place] = side
                sides.append(3 * float(loss(*inputs).detach()))
            flat[place] = was
            expected[place] = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close(gradient.reshape(-1), expected, rtol=1e-5, atol=1e-6)


def signals(kind: str) -> tuple[tuple[TeacherSignal, ...], tuple[float, ...]]:
    other = TeacherSignal(
        hidden=draw(N, 3, seed=8), head=LanguageModelHead(draw(V, 3, seed=9), draw(V, seed=10), 0.5, 4.0)
    )
    sample = torch.randint(V, (N, 6), generator=torch.Generator().manual_seed(4))
    entropy = torch.linspace(0, 2, N, dtype=torch.float64)
    return {
        "dense": ((dense(),), (1.0,)),
        "two teachers": ((dense(), other), (0.3, 0.7)),
        "top": ((top(4),), (1.0,)),
        "sample": ((TeacherSignal(ids=sample, entropy=entropy, sampled_entropy=entropy),), (1.0,)),
        "fewer ids": ((TeacherSignal(hidden=STATES, head=TEACHER.truncate_vocabulary(8)),), (1.0,)),
    }[kind]


CASES = [
    *(("dense", Objective(name, 1.7, 0.3, 0.6, 0.4, max_entropy=1.5)) for name in DIVERGENCES),
    *(("dense", Objective(name)) for name in DIVERGENCES),
    *(("two teachers", Objective(name, 1.3)) for name in DIVERGENCES),
    *(("top", Objective(name, cross_entropy=0.5, max_entropy=1.5)) for name in DIVERGENCES),
    *(("fewer ids", Objective(name)) for name in DIVERGENCES),
    ("sample", Objective("forward_kl", max_entropy=1.0)),
    ("dense", Objective(None, cross_entropy=1.0)),
]


@pytest.mark.parametrize(("kind", "objective"), CASES)
@pytest.mark.parametrize("tile", [3, 100])
def test_gradients_are_finite_differences_in_float64(kind: str, objective: Objective, tile: int) -> None:
    of_teachers, shares = signals(kind)
    objective = replace(objective, shares=shares)
    hidden = draw(N, 4, seed=5).requires_grad_()
    weight, bias = draw(V, 4, seed=6, scale=0.5).requires_grad_(), draw(V, seed=7).requires_grad_()

    def loss(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        head = LanguageModelHead(weight, bias, scale=1.5, cap=3.0)
        return tiled_loss(hidden, head, LABELS, WEIGHTS, objective, of_teachers, tile=tile).total

    assert_gradients(loss, (hidden, weight, bias))


def test_logits_themselves_can_stand_for_the_hidden_states() -> None:
    logits = draw(N, V, seed=3).requires_grad_()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return tiled_loss(logits, LanguageModelHead(None), LABELS, WEIGHTS, Objective("jsd"), (dense(),), tile=2).total

    assert_gradients(loss, (logits,))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_teacher_that_is_the_student_leaves_nothing_to_learn(name: str) -> None:
    hidden = STATES.clone().requires_grad_()
    for signal in (dense(), top(4)):
        told = tiled_loss(hidden, TEACHER, LABELS, WEIGHTS, Objective(name), (signal,))
        told.total.backward()
        assert float(told.total.detach()) == pytest.approx(0, abs=1e-12)
        assert hidden.grad is not None
        torch.testing.assert_close(hidden.grad, torch.zeros_like(hidden), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 4, V - 1])
def test_a_tail_makes_a_divergence_smaller_and_never_negative(name: str, k: int) -> None:
    logits, one = draw(N, V, seed=3), torch.ones(1, dtype=torch.float64)
    for row in range(N):  # each position, not their sum

        def told(signal: TeacherSignal, row: int = row) -> torch.Tensor:
            here = (logits[row : row + 1].clone(), LABELS[row : row + 1], one)
            return tile_loss(*here, Objective(name), (signal.tile(row, row + 1),)).total

        whole, part = told(dense()), told(top(k))
        assert -1e-12 <= float(part) <= float(whole) * (1 + 1e-9)
        if k == V - 1:
            assert float(part) == pytest.approx(float(whole), rel=1e-9)


def test_a_sample_has_the_gradient_of_forward_kl_on_average() -> None:
    logits, ones = draw(N, V, seed=3), torch.ones(N, dtype=torch.float64)
    probability = torch.softmax(TEACHER.logits(STATES), -1)
    entropy = -(probability * probability.log()).sum(-1)
    drawn = torch.multinomial(probability, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    sample = TeacherSignal(ids=drawn, entropy=entropy, sampled_entropy=entropy)
    expected = tile_loss(logits.clone(), LABELS, ones, Objective("forward_kl"), (dense(),))
    found = tile_loss(logits.clone(), LABELS, ones, Objective("forward_kl"), (sample,))
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=0, atol=6e-3)  # five standard errors
    assert float(found.total) == pytest.approx(float(expected.total), rel=2e-2)


def test_nothing_but_forward_kl_is_estimated_from_a_sample() -> None:
    told, _ = signals("sample")
    with pytest.raises(ValueError, match="reverse_kl cannot be estimated"):
        tile_loss(draw(N, V), LABELS, WEIGHTS, Objective("reverse_kl"), told)


def test_the_gate_leaves_out_what_the_teacher_is_unsure_of() -> None:
    logits = draw(N, V, seed=3)
    logprobs = torch.log_softmax(TEACHER.logits(STATES), -1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    limit = float(entropy.median())
    gated = tile_loss(logits.clone(), LABELS, WEIGHTS, Objective("forward_kl", max_entropy=limit), (dense(),))
    sure = entropy <= limit
    kept = tile_loss(logits.clone(), LABELS, WEIGHTS * sure, Objective("forward_kl"), (dense(),))
    assert float(gated.n_high_entropy) == int((~sure).sum())
    assert float(gated.total) == pytest.approx(float(kept.total), rel=1e-9)


def test_values_are_told_without_the_temperatures_factor() -> None:
    for temperature in (1.0, 4.0):
        told = tile_loss(draw(N, V), LABELS, WEIGHTS, Objective("forward_kl", temperature), (dense(),))
        assert float(told.total) == pytest.approx(float(told.divergence) * temperature**2, rel=1e-12)

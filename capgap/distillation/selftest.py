"""The trainer's own tests, for the machine that it runs on: what must be equal, on an embedded model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from capgap.distillation.data.encoding import IGNORE, EncodedExample, ExampleEncoder
from capgap.distillation.teacher.distributions import CacheForm, ScoredText, score_texts
from capgap.distillation.training.batch_source import StoredBatches
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.micro_batches import n_inputs
from capgap.distillation.training.objectives import DIVERGENCES, Objective, TeacherSignal

__all__ = ["self_tests"]

_CLOSE = 1e-4
"""Of a loss or of the largest gradient, in float32."""
_KEPT = 1e-3
"""Of a loss, where hidden states were rounded to 16 bits."""

Finding = tuple[str, bool, str]


def self_tests(device: str) -> Iterator[Finding]:
    """Name, whether it holds, and what was found, of each test.

    Parameters
    ----------
    device
        Where it runs.
    """
    from capgap.distillation.students.loading import loaded
    from capgap.models import parse_model
    from capgap.models.checkpoint import locate

    model, tokenizer = loaded(spec := parse_model("microworld:teacher"), locate(spec))
    other, _ = loaded(spec := parse_model("microworld:medium"), locate(spec))
    model, other = model.to(device).train(), other.to(device).eval()
    examples = _examples(tokenizer)
    material = StoredBatches(examples, tuple(map(str, range(len(examples)))))
    yield _label_mask(tokenizer, examples[0])
    yield _packed(model, material, device)
    yield _cut(model, material, device)
    yield _itself(model, material, device)
    with tempfile.TemporaryDirectory() as folder:
        yield from _kept(model, other, examples, Path(folder), device)


def _examples(tokenizer: Any) -> tuple[EncodedExample, ...]:
    from capgap.battery import load_battery, training_items

    encoder, found = ExampleEncoder(tokenizer, max_length=64), []
    for item in training_items(load_battery("microworld")):
        text = f" {item.rationale or item.targets[0]}" if item.targets else None
        encoded = encoder.pair(item.prompt, text) if text else None
        if encoded is not None:
            found.append(encoded)
        if len(found) == 2000:
            break
    return tuple(found[:: max(1, len(found) // 12)][:12])


def _label_mask(tokenizer: Any, example: EncodedExample) -> Finding:
    trained = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != IGNORE]
    shown = "".join(
        f"[{tokenizer.decode([token])}]" if label != IGNORE else f"{tokenizer.decode([token])} "
        for token, label in zip(example.input_ids, example.labels, strict=True)
    )
    right = trained[-1] == tokenizer.eos_token_id and example.labels[0] == IGNORE
    return "label mask", right, f"loss on what stands in brackets: {shown}"


def _step(model: Any, material: StoredBatches, tokens: int, device: str, *, packed: bool = True) -> tuple[float, Any]:
    """Loss and gradient of one optimizer step."""
    engine = LossEngine(model, Objective(cross_entropy=1.0))
    if not packed:
        engine.packed.why_not = "asked for"
    model.zero_grad()
    total = 0.0
    for one in material.passes(range(len(material.examples)), tokens):
        with engine.in_use():
            loss = engine.loss(one.to(device)).total / sum(example.n_loss for example in material.examples)
            loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return total, gradient


def _same(name: str, one: tuple[float, Any], other: tuple[float, Any]) -> Finding:
    loss = abs(one[0] - other[0]) / max(abs(other[0]), 1e-9)
    gradient = float((one[1] - other[1]).abs().max() / other[1].abs().max())
    return name, max(loss, gradient) < _CLOSE, f"differs by {loss:.0e} of the loss, {gradient:.0e} of the gradient"


def _packed(model: Any, material: StoredBatches, device: str) -> Finding:
    told = [_step(model, material, 10_000, device, packed=packed) for packed in (True, False)]
    return _same("packed = padded", *told)


def _cut(model: Any, material: StoredBatches, device: str) -> Finding:
    return _same("step = its passes", _step(model, material, 64, device), _step(model, material, 10_000, device))


def _itself(model: Any, material: StoredBatches, device: str) -> Finding:
    worst = 0.0
    for name in DIVERGENCES:
        engine = LossEngine(model, Objective(name))
        (one,) = material.passes(range(len(material.examples)), 10_000)
        one = one.to(device)
        with engine.in_use(), torch.no_grad():
            states = engine.hidden(one)
        told = _loss(engine, one, TeacherSignal(hidden=states, head=engine.head))
        worst = max(worst, abs(told) / len(one.labels))
    return "teacher = student", worst < 1e-5, f"divergences are 0 within {worst:.0e} nats a token"


def _loss(engine: LossEngine, one: Any, signal: TeacherSignal) -> float:
    from dataclasses import replace

    with engine.in_use():
        return float(engine.loss(replace(one, signals=(signal,))).total.detach())


def _kept(model: Any, other: Any, examples: tuple[EncodedExample, ...], folder: Path, device: str) -> Iterator[Finding]:
    questions = []
    for example in examples:
        at = tuple(place - 1 for place, label in enumerate(example.labels) if label != IGNORE)
        questions.append(ScoredText(example.input_ids[: n_inputs(example)], at))
    names = range(len(examples))
    material = StoredBatches(examples, tuple(map(str, names)))
    (one,) = material.passes(names, 10_000)
    one = one.to(device)
    engine, live = LossEngine(model, Objective("forward_kl")), LossEngine(other, Objective("forward_kl"))
    with live.in_use(), torch.no_grad():
        spoken = TeacherSignal(hidden=live.hidden(one), head=live.head)
    exact = _loss(engine, one, spoken)
    n_vocabulary = model.get_input_embeddings().weight.shape[0]
    for form in (CacheForm("hidden"), CacheForm("top_k", 8)):
        judged = score_texts(
            lambda: other, {"self": "test"}, questions, form,
            root=folder, n_vocabulary=n_vocabulary, device=device, tell=lambda line: None,
        )  # fmt: skip
        signal = judged.signal(one.examples).to(device)
        if signal.logprobs is None:
            apart = abs(_loss(engine, one, signal) - exact) / exact
            yield "cached = live", apart < _KEPT, f"differs by {apart:.0e} of the divergence"
        else:
            tail = signal.logprobs[:, -1].float().exp()
            part = _loss(engine, one, signal)
            right = bool((tail >= 0).all()) and 0 <= part <= exact * (1 + _KEPT)
            yield (
                "tail of top-k",
                right,
                f"holds {float(tail.mean()):.1%}; the divergence is {part / exact:.0%} of the whole",
            )

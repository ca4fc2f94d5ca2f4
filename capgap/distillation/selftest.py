"""Self-tests of the trainer on the machine that it runs on, with models of the microworld; `capgap doctor` runs them.

Each compares two ways of computing one number that must be equal: packed and padded passes, a step whole and in parts,
a teacher and itself, cached and live distributions.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from capgap.battery import load_battery, training_items
from capgap.distillation.data.encoding import NO_LOSS, EncodedExample, ExampleEncoder
from capgap.distillation.students.loading import loaded
from capgap.distillation.teacher.distributions import ScoredText, score_texts
from capgap.distillation.teacher.signal_forms import CacheForm, TeacherSignal
from capgap.distillation.training.batch_source import StoredBatches
from capgap.distillation.training.divergences import DIVERGENCES, Objective
from capgap.distillation.training.loss_engine import LossEngine
from capgap.distillation.training.micro_batches import MicroBatch
from capgap.models import parse_model
from capgap.models.checkpoint import locate

__all__ = ["self_tests"]

_TOLERANCE = 1e-4
"""Of a loss or of the largest gradient, in float32."""
_FLOAT16_TOLERANCE = 1e-3
"""Of a loss, where hidden states were rounded to 16 bits."""
_ONE_PASS_TOKENS, _SPLIT_PASS_MAX_TOKENS = 10_000, 64  # tokens

Finding = tuple[str, bool, str]
"""Name of a test, whether it holds, and what was measured."""


def self_tests(device: str) -> Iterator[Finding]:
    """Name, whether it holds, and what was measured, of each test.

    Parameters
    ----------
    device
        Where it runs.
    """
    model, tokenizer = loaded(spec := parse_model("microworld:teacher"), locate(spec))
    other, _ = loaded(spec := parse_model("microworld:medium"), locate(spec))
    model, other = model.to(device).train(), other.to(device).eval()
    examples = _load_test_examples(tokenizer)
    source = StoredBatches(tuple(map(str, range(len(examples)))), examples)
    yield _label_mask(tokenizer, examples[0])
    yield _packed_and_padded(model, source, device)
    yield _check_split_passes(model, source, device)
    yield _check_self_divergence(model, source, device)
    with tempfile.TemporaryDirectory() as folder:
        yield from _check_cached_signal(model, other, source, Path(folder), device)


def _load_test_examples(tokenizer: Any) -> tuple[EncodedExample, ...]:
    """Twelve training examples of the microworld, spread over its tasks."""
    encoder, examples = ExampleEncoder(tokenizer, max_length=64), []
    for item in training_items(load_battery("microworld")):
        text = f" {item.rationale or item.targets[0]}" if item.targets else None
        encoded = encoder.pair(item.prompt, text) if text else None
        if encoded is not None:
            examples.append(encoded)
        if len(examples) == 2000:
            break
    return tuple(examples[:: max(1, len(examples) // 12)][:12])


def _label_mask(tokenizer: Any, example: EncodedExample) -> Finding:
    loss_ids = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != NO_LOSS]
    marked_text = "".join(
        f"[{tokenizer.decode([token])}]" if label != NO_LOSS else f"{tokenizer.decode([token])} "
        for token, label in zip(example.input_ids, example.labels, strict=True)
    )
    is_right = loss_ids[-1] == tokenizer.eos_token_id and example.labels[0] == NO_LOSS
    return "label mask", is_right, f"loss on what stands in brackets: {marked_text}"


def _loss_and_gradient(
    model: Any, source: StoredBatches, max_pass_tokens: int, device: str, *, packed: bool = True
) -> tuple[float, torch.Tensor]:
    """Loss and gradient, shape (parameters,), of one optimizer step over all examples."""
    engine = LossEngine(model, Objective(cross_entropy=1.0))
    if not packed:
        engine.packed.why_not = "the self-test compares packed passes with padded ones"
    model.zero_grad()
    total = 0.0
    for batch in source.micro_batches(range(len(source.examples)), max_pass_tokens):
        with engine.in_use():
            loss = engine.loss(batch.to(device)).total / sum(example.n_loss_tokens for example in source.examples)
            loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return total, gradient


def _compare_steps(name: str, step: tuple[float, torch.Tensor], reference: tuple[float, torch.Tensor]) -> Finding:
    loss = abs(step[0] - reference[0]) / max(abs(reference[0]), 1e-9)
    gradient = float((step[1] - reference[1]).abs().max() / reference[1].abs().max())
    return name, max(loss, gradient) < _TOLERANCE, f"differs by {loss:.0e} of the loss, {gradient:.0e} of the gradient"


def _packed_and_padded(model: Any, source: StoredBatches, device: str) -> Finding:
    steps = [_loss_and_gradient(model, source, _ONE_PASS_TOKENS, device, packed=packed) for packed in (True, False)]
    return _compare_steps("packed = padded", *steps)


def _check_split_passes(model: Any, source: StoredBatches, device: str) -> Finding:
    steps = [_loss_and_gradient(model, source, tokens, device) for tokens in (_SPLIT_PASS_MAX_TOKENS, _ONE_PASS_TOKENS)]
    return _compare_steps("step = its passes", *steps)


def _check_self_divergence(model: Any, source: StoredBatches, device: str) -> Finding:
    max_divergence = 0.0
    for name in DIVERGENCES:
        engine = LossEngine(model, Objective(name))
        batch = _pack_all_examples(source, device)
        loss = _compute_divergence(engine, batch, _compute_teacher_signal(engine, batch))
        max_divergence = max(max_divergence, abs(loss) / len(batch.labels))
    return "teacher = student", max_divergence < 1e-5, f"divergences are 0 within {max_divergence:.0e} nats a token"


def _pack_all_examples(source: StoredBatches, device: str) -> MicroBatch:
    """All examples in one pass."""
    (batch,) = source.micro_batches(range(len(source.examples)), _ONE_PASS_TOKENS)
    return batch.to(device)


def _compute_teacher_signal(engine: LossEngine, batch: MicroBatch) -> TeacherSignal:
    """The distributions of an engine's own model over a batch."""
    with engine.in_use(), torch.no_grad():
        return TeacherSignal(hidden=engine.hidden(batch), head=engine.head)


def _compute_divergence(engine: LossEngine, batch: MicroBatch, signal: TeacherSignal) -> float:
    with engine.in_use():
        return float(engine.loss(replace(batch, signals=(signal,))).total.detach())


def _check_cached_signal(model: Any, other: Any, source: StoredBatches, folder: Path, device: str) -> Iterator[Finding]:
    texts = [
        ScoredText(example.input_ids[: example.n_inputs], tuple(index - 1 for index in example.loss_indices))
        for example in source.examples
    ]
    batch = _pack_all_examples(source, device)
    engine, teacher_engine = LossEngine(model, Objective("forward_kl")), LossEngine(other, Objective("forward_kl"))
    exact_divergence = _compute_divergence(engine, batch, _compute_teacher_signal(teacher_engine, batch))
    n_vocabulary = model.get_input_embeddings().weight.shape[0]
    for form in (CacheForm("hidden"), CacheForm("top_k", 8)):
        options = {"root": folder, "n_vocabulary": n_vocabulary, "device": device}
        cached_signals = score_texts(lambda: other, {"self": "test"}, texts, form, **options)
        signal = cached_signals.signal(batch.indices).to(device)
        value = _compute_divergence(engine, batch, signal)
        if signal.logprobs is None:
            difference = abs(value - exact_divergence) / exact_divergence
            yield "cached = live", difference < _FLOAT16_TOLERANCE, f"differs by {difference:.0e} of the divergence"
        else:
            tail = signal.logprobs[:, -1].float().exp()
            # a tail can only make a divergence smaller
            is_right = bool((tail >= 0).all()) and 0 <= value <= exact_divergence * (1 + _FLOAT16_TOLERANCE)
            measured = f"holds {float(tail.mean()):.1%}; the divergence is {value / exact_divergence:.0%} of the whole"
            yield "tail of top-k", is_right, measured

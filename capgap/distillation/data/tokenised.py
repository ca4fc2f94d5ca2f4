"""What a student is trained on, in tokens, and the order of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import TraceWeights
from capgap.distillation.data.encoding import EncodedExample, ExampleEncoder
from capgap.distillation.data.selection import TrainingExample, data_hash
from capgap.distillation.data.targets import answer_at
from capgap.distillation.training.step_plan import StepPlan, plan_steps
from capgap.errors import DistillError

if TYPE_CHECKING:
    from capgap.distillation.students.student import LoadedStudent

__all__ = ["TokenisedDataset", "tokenise"]


@dataclass(frozen=True)
class TokenisedDataset:
    """Examples in tokens, and the order of them."""

    examples: tuple[TrainingExample, ...]
    """The examples that fit, shape (examples,)."""
    completions: tuple[str, ...]
    """What the student should say to each."""
    encoded: tuple[EncodedExample, ...]
    """The same in tokens."""
    plan: StepPlan
    """Their order."""
    n_too_long: int
    """Completions that are longer than the student can hold, and were left out."""
    n_cut: int
    """Prompts that were cut at their front."""
    data_hash: str
    """Hash of the texts."""

    @property
    def items(self) -> list[str]:
        """``task/item`` of each example, for messages."""
        return [f"{example.task}/{example.item}" for example in self.examples]

    def line(self, name: str) -> str:
        """What there is to learn, in one line."""
        n_tokens = sum(len(encoded.input_ids) for encoded in self.encoded)
        share = sum(encoded.n_loss for encoded in self.encoded) / n_tokens
        line = f"{name}: {n_tokens:,} tokens, {share:.0%} of them carry loss; {self.plan.n_steps:,} steps"
        if self.n_too_long:
            line += f"; {self.n_too_long:,} completions are longer than training.max_length and were left out"
        if self.n_cut:
            line += f"; {self.n_cut:,} prompts were cut at their front"
        return line


def tokenise(
    config: DistillConfig, student: "LoadedStudent", pairs: Sequence[tuple[TrainingExample, str]]
) -> TokenisedDataset:
    """Encode examples and completions for a student, and lay out its training run.

    Raises
    ------
    DistillError
        Nothing fits, or the tokenizer is another model's.
    """
    import numpy as np

    encoder = ExampleEncoder(
        student.tokenizer,
        max_length=config.training.max_length or student.max_length,
        chat=student.chat,
        system_prompt=student.system_prompt,
        template_options={} if student.enable_thinking is None else {"enable_thinking": student.enable_thinking},
    )
    kept = _encode(config, encoder, pairs)
    _check_ids(config, [encoded for _, _, encoded in kept], student.model.get_input_embeddings().weight.shape[0])
    training = config.training
    plan = plan_steps(
        len(kept),
        batch_size=training.batch_size,
        epochs=training.epochs or (None if training.max_steps else 3.0),
        max_steps=training.max_steps,
        rng=np.random.default_rng([config.seed, 1]),
    )
    return TokenisedDataset(
        examples=tuple(example for example, _, _ in kept),
        completions=tuple(completion for _, completion, _ in kept),
        encoded=tuple(encoded for _, _, encoded in kept),
        plan=plan,
        n_too_long=len(pairs) - len(kept),
        n_cut=sum(encoded.cut > 0 for _, _, encoded in kept),
        data_hash=data_hash((_text(example), completion) for example, completion, _ in kept),
    )


def _encode(
    config: DistillConfig, encoder: ExampleEncoder, pairs: Sequence[tuple[TrainingExample, str]]
) -> list[tuple[TrainingExample, str, EncodedExample]]:
    """The examples in tokens; those that are too long are left out."""
    kept: list[tuple[TrainingExample, str, EncodedExample]] = []
    for example, completion in pairs:
        if example.messages is not None:
            encoded = encoder.messages(example.messages)
        else:
            encoded = _pair(config, encoder, example, completion)
        if encoded is not None:
            kept.append((example, completion, encoded))
    if not kept:
        raise DistillError(
            f"{config.name}: no completion fits into {encoder.max_length} tokens. Raise training.max_length."
        )
    return kept


def _pair(
    config: DistillConfig, encoder: ExampleEncoder, example: TrainingExample, completion: str
) -> EncodedExample | None:
    asked = config.trace_weights
    if asked == TraceWeights():
        return encoder.pair(example.prompt, completion)
    at = answer_at(example, completion)
    if at is None:
        raise DistillError(
            f"{config.name}: trace_weights: the answer of task {example.task!r}, item {example.item!r} cannot be told "
            "from its reasoning. Give the data an 'extract'."
        )
    return encoder.pair(example.prompt, completion, answer_at=at, weights=(asked.reasoning, asked.answer))


def _check_ids(config: DistillConfig, encoded: Sequence[EncodedExample], n_embeddings: int) -> None:
    highest = max(max(one.input_ids) for one in encoded)
    if highest >= n_embeddings:
        raise DistillError(
            f"{config.name}: the tokenizer gives id {highest}, and the student has {n_embeddings} embeddings: "
            "the tokenizer is another model's."
        )


def _text(example: TrainingExample) -> str:
    return example.prompt if example.messages is None else json.dumps(example.messages, ensure_ascii=False)

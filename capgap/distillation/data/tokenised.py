"""The tokenised dataset of one student: the examples that fit, encoded, with what was left out or cut."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import TraceWeights
from capgap.distillation.data.encoding import EncodedExample, ExampleEncoder
from capgap.distillation.data.selection import CompletedExample, TrainingExample, data_hash
from capgap.distillation.data.targets import find_answer_offset
from capgap.distillation.students.student import LoadedStudent
from capgap.errors import DistillError


@dataclass(frozen=True)
class TokenisedDataset:
    """Training examples in tokens."""

    examples: tuple[TrainingExample, ...]
    """The examples that fit, shape (examples,)."""
    completions: tuple[str, ...]
    """The completion that each is trained on, shape (examples,)."""
    encoded: tuple[EncodedExample, ...]
    """The same in tokens, shape (examples,)."""
    n_too_long: int
    """Completions that are longer than the student can hold, and were left out."""
    n_truncated: int
    """Prompts that were cut at their front."""
    data_hash: str
    """Hash of the texts."""

    @property
    def items(self) -> tuple[str, ...]:
        """``task/item`` of each example, for messages."""
        return tuple(f"{example.task}/{example.item}" for example in self.examples)

    def summary(self) -> str:
        """The counts in one line, for a note."""
        n_tokens = sum(len(encoded.input_ids) for encoded in self.encoded)
        loss_token_share = sum(encoded.n_loss_tokens for encoded in self.encoded) / n_tokens
        line = f"{n_tokens:,} tokens, {loss_token_share:.0%} of them carry loss"
        if self.n_too_long:
            line += f"; {self.n_too_long:,} completions are longer than training.max_length and were left out"
        if self.n_truncated:
            line += f"; {self.n_truncated:,} prompts were cut at their front"
        return line


def tokenise(config: DistillConfig, student: LoadedStudent, pairs: Sequence[CompletedExample]) -> TokenisedDataset:
    """Encode examples and their completions for a student.

    Raises
    ------
    DistillError
        Nothing fits, or the tokenizer is another model's.
    """
    encoder = ExampleEncoder(
        student.tokenizer,
        max_length=config.training.max_length or student.max_length,
        prompting=student.prompting,
    )
    fitting = _encode_examples(config, encoder, pairs)
    examples, completions, encoded = zip(*fitting, strict=True)
    _check_ids(config, encoded, student.model.get_input_embeddings().weight.shape[0])
    return TokenisedDataset(
        examples=examples,
        completions=completions,
        encoded=encoded,
        n_too_long=len(pairs) - len(fitting),
        n_truncated=sum(encoded_example.n_truncated > 0 for encoded_example in encoded),
        data_hash=data_hash((_text(example), completion) for example, completion, _ in fitting),
    )


def _encode_examples(
    config: DistillConfig, encoder: ExampleEncoder, pairs: Sequence[CompletedExample]
) -> list[tuple[TrainingExample, str, EncodedExample]]:
    """The examples in tokens; those that are too long are left out."""
    fitting: list[tuple[TrainingExample, str, EncodedExample]] = []
    for example, completion in pairs:
        encoded = _encode_one(config.trace_weights, encoder, example, completion)
        if encoded is not None:
            fitting.append((example, completion, encoded))
    if not fitting:
        limit = f"{encoder.max_length} tokens. Raise training.max_length."
        raise DistillError(f"{config.name}: no completion fits into {limit}")
    return fitting


def _encode_one(
    weights: TraceWeights, encoder: ExampleEncoder, example: TrainingExample, completion: str
) -> EncodedExample | None:
    """A conversation, or prompt and completion, weighted where the file weighs reasoning and answer apart."""
    if example.messages is not None:
        return encoder.messages(example.messages)
    if weights == TraceWeights():
        return encoder.pair(example.prompt, completion)
    start = find_answer_offset(example, completion)
    if start is None:
        raise DistillError(
            f"trace_weights: the answer of task {example.task!r}, item {example.item!r} cannot be told from its "
            "reasoning. Give the data an 'extract'."
        )
    return encoder.pair(example.prompt, completion, answer_offset=start, weights=(weights.reasoning, weights.answer))


def _check_ids(config: DistillConfig, encoded: Sequence[EncodedExample], n_embeddings: int) -> None:
    """Refuse ids that the student has no embedding for."""
    max_token_id = max(max(encoded_example.input_ids) for encoded_example in encoded)
    if max_token_id >= n_embeddings:
        raise DistillError(
            f"{config.name}: the tokenizer gives id {max_token_id}, and the student has {n_embeddings} embeddings: "
            "the tokenizer is another model's."
        )


def _text(example: TrainingExample) -> str:
    return example.prompt if example.messages is None else json.dumps(example.messages, ensure_ascii=False)

"""On-policy distillation: the student samples texts, and an online teacher gives its distribution at every token.

The texts of a step are sampled from the student as it is at that step, with a seed of the step's own, so that a run
that was taken up again samples what an undisturbed one would have sampled.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from capgap.distillation.data.encoding import NO_LOSS, EncodedExample
from capgap.distillation.data.packing import first_fit
from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.job import DistillJob
from capgap.distillation.students.student import LoadedStudent
from capgap.distillation.teacher.distributions import OnlineTeacher
from capgap.distillation.teacher.prompt_context import PromptBuilder
from capgap.distillation.teacher.signal_forms import TeacherSignal
from capgap.distillation.teacher.signals import LocatedTeacher, shared_vocabulary
from capgap.distillation.training.batch_source import BatchSource
from capgap.distillation.training.loss_engine import n_virtual_tokens
from capgap.distillation.training.micro_batches import MicroBatch, pack_micro_batch
from capgap.errors import DistillError

_DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class OnPolicyBatches(BatchSource):
    """Micro-batches of texts that the student samples itself."""

    prompts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Token ids of each prompt, as the student and as the teacher are given it, shape (examples,)."""
    student: Any
    """The model that learns."""
    teacher: OnlineTeacher
    """Gives its distributions over what the student samples."""
    max_tokens: int
    """Longest text."""
    temperature: float
    """At which the student samples."""
    seed: int
    """Of the sampling."""
    eos_id: int
    """Ends a text."""
    pad: int
    """Fills up prompts on the left."""

    def micro_batches(self, step: Sequence[int], tokens: int, n_virtual: int = 0) -> list[MicroBatch]:
        """The forward passes of an optimizer step; see `BatchSource.micro_batches`."""
        texts = self._sample_texts(step)
        examples = []  # every token of a text carries loss
        for index, text in zip(step, texts, strict=True):
            prompt = self.prompts[index][0]
            examples.append(EncodedExample((*prompt, *text), (*[NO_LOSS] * len(prompt), *text)))
        batches = []
        for group in first_fit([example.n_inputs + n_virtual for example in examples], tokens):
            batch = pack_micro_batch([examples[n] for n in group], [step[n] for n in group], n_virtual=n_virtual)
            teacher_inputs = [(self.prompts[step[n]][1], texts[n]) for n in group]
            # The token before each of a text predicts it: from the last of the prompt to the last but one of the text.
            hidden = self.teacher.hidden_states(
                [(*prompt, *text[:-1]) for prompt, text in teacher_inputs],
                [range(len(prompt) - 1, len(prompt) + len(text) - 1) for prompt, text in teacher_inputs],
            )
            signal = TeacherSignal(hidden=torch.cat(hidden), head=self.teacher.head)
            batches.append(replace(batch, signals=(signal,)))
        return batches

    @torch.no_grad()
    def _sample_texts(self, step: Sequence[int]) -> list[tuple[int, ...]]:
        """A text for each prompt, its end of text included where it has one."""
        device = next(self.student.parameters()).device
        prompts = [self.prompts[index][0] for index in step]
        width = max(map(len, prompts))
        # Padded on the left, so that every text begins in the same column; shape (examples, width).
        ids = torch.tensor([[self.pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        inputs, n_given = {"input_ids": ids, "attention_mask": mask}, width
        model = self.student
        if n_virtual_tokens(model):
            # peft puts the virtual tokens before the padding, where no pass of training has them; what is generated
            # from embeddings comes back without the prompt
            inputs, n_given = _with_virtual_tokens(model, ids, mask), 0
            model = model.get_base_model()
        seed = int(hashlib.sha256(f"{self.seed}:{list(step)}".encode()).hexdigest()[:12], 16)
        was_in_training_mode = self.student.training
        self.student.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            # the checkpoint's generation settings may cut the distribution; the student's own is what is learnt from
            output = model.generate(
                **inputs, max_new_tokens=self.max_tokens, do_sample=True, temperature=self.temperature, top_k=0,
                top_p=1.0, repetition_penalty=1.0, eos_token_id=self.eos_id, pad_token_id=self.pad,
            )  # fmt: skip
        self.student.train(was_in_training_mode)
        rows = (tuple(row) for row in output[:, n_given:].tolist())
        return [row[: row.index(self.eos_id) + 1] if self.eos_id in row else row for row in rows]


def on_policy_batches(
    job: DistillJob, student: LoadedStudent, model: Any, dataset: TokenisedDataset, context: PromptBuilder
) -> OnPolicyBatches:
    """The prompts of a dataset, whose texts the student samples and an online teacher scores in every step.

    Parameters
    ----------
    job, student, dataset
        What is distilled.
    model
        The student's model as it trains, with its adapter.
    context
        Not used: the teacher sees what the student sees.

    Raises
    ------
    DistillError
        There are conversations, or a prompt leaves no room for a text; or as `teacher_signals`.
    """
    config = job.config
    if any(example.messages is not None for example in dataset.examples):
        raise DistillError(f"{config.name}: on_policy asks prompts, and messages carry their own answers.")
    (word,) = config.teacher
    teacher = LocatedTeacher.locate_teacher(config, word, job.device)
    n_vocabulary = shared_vocabulary(job, student, teacher)
    encoder = teacher.encoder()
    prompts = []
    for example, completion, encoded in zip(dataset.examples, dataset.completions, dataset.encoded, strict=True):
        teachers = encoder.pair(example.prompt, completion)
        assert teachers is not None  # the student's own limit is no longer
        prompts.append((encoded.prompt_ids, teachers.prompt_ids))
    longest_answer = max(example.task_format.max_tokens for example in dataset.examples)
    tokens_after_prompt = student.max_length - max(len(prompt) for prompt, _ in prompts)
    max_tokens = min(config.on_policy.max_tokens or min(longest_answer, _DEFAULT_MAX_TOKENS), tokens_after_prompt)
    if max_tokens < 1:
        raise DistillError(f"{config.name}: a prompt fills all {student.max_length} tokens that a student holds.")
    loaded = teacher.load().to(teacher.device)
    online_teacher = OnlineTeacher(loaded, n_vocabulary, [prompt for _, prompt in prompts], job.on_event)
    return OnPolicyBatches(
        dataset.items, tuple(prompts), model, online_teacher, max_tokens=max_tokens,
        temperature=config.on_policy.temperature, seed=config.seed, eos_id=int(student.tokenizer.eos_token_id),
        pad=student.pad,
    )  # fmt: skip


def _with_virtual_tokens(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Embeddings and mask of left-padded prompts, with the virtual tokens right before each prompt.

    Shapes: ids and mask (examples, width) → embeddings (examples, width + virtual, hidden), mask likewise.
    """
    table, soft_prompt = model.get_base_model().get_input_embeddings(), model.get_prompt(batch_size=1)[0]
    rows, masks = [], []
    for row_ids, row_mask in zip(ids, mask, strict=True):
        n_padding = int((row_mask == 0).sum())
        embeddings = table(row_ids)
        rows.append(torch.cat([embeddings[:n_padding], soft_prompt.to(embeddings.dtype), embeddings[n_padding:]]))
        masks.append(torch.cat([row_mask[:n_padding], row_mask.new_ones(len(soft_prompt)), row_mask[n_padding:]]))
    return {"inputs_embeds": torch.stack(rows), "attention_mask": torch.stack(masks)}

"""On-policy distillation: the student writes, the teacher judges every token of it, live.

The texts of a step are written by the student as it is at that step, with a seed of the step's own, so that a run that
was taken up again writes what an undisturbed one would have written.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from capgap.distillation.data.encoding import IGNORE, EncodedExample
from capgap.distillation.teacher.distributions import OnlineTeacher
from capgap.distillation.training.loss_engine import n_virtual
from capgap.distillation.training.micro_batches import MicroBatch, micro_batches, n_inputs, packed
from capgap.distillation.training.objectives import TeacherSignal

__all__ = ["OnPolicyBatches"]


@dataclass(frozen=True)
class OnPolicyBatches:
    """Steps of texts that the student writes itself; stands where `Material` stands."""

    examples: tuple[EncodedExample, ...]
    """Prompts and, behind them, texts that only say how long an answer may be."""
    items: tuple[str, ...]
    """Their names, for messages."""
    prompts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Token ids of each prompt, as the student and as the teacher are given it."""
    student: Any
    """The model that learns."""
    teacher: OnlineTeacher
    """The judge."""
    max_tokens: int
    """Longest text."""
    temperature: float
    """At which the student writes."""
    seed: int
    """Of the writing."""
    eos: int
    """Ends a text."""
    pad: int
    """Fills up."""

    def passes(self, step: Sequence[int], tokens: int, virtual: int = 0) -> list[MicroBatch]:
        """The forward passes of an optimizer step; see `Material.passes`."""
        written = self._write(step)
        own = [_encoded(self.prompts[index][0], text) for index, text in zip(step, written, strict=True)]
        made = []
        for group in micro_batches([n_inputs(one) + virtual for one in own], tokens):
            one = packed([own[place] for place in group], [step[place] for place in group], n_virtual=virtual)
            asked = [(self.prompts[step[place]][1], written[place]) for place in group]
            states = self.teacher.states(
                [(*prompt, *text[:-1]) for prompt, text in asked],
                [range(len(prompt) - 1, len(prompt) + len(text) - 1) for prompt, text in asked],
            )
            made.append(replace(one, signals=(TeacherSignal(hidden=torch.cat(states), head=self.teacher.head),)))
        return made

    @torch.no_grad()
    def _write(self, step: Sequence[int]) -> list[tuple[int, ...]]:
        """A text for each prompt, its end of text included where it has one."""
        device = next(self.student.parameters()).device
        prompts = [self.prompts[index][0] for index in step]
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(one)) + list(one) for one in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
        given, skipped = {"input_ids": ids, "attention_mask": mask}, width
        model = self.student
        if n_virtual(model):
            # peft puts the virtual tokens before the padding, where no pass of training has them
            given, skipped = _behind_virtual(model, ids, mask), 0
            model = model.get_base_model()
        seed = int(hashlib.sha256(f"{self.seed}:{list(step)}".encode()).hexdigest()[:12], 16)
        mode = self.student.training
        self.student.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            # the checkpoint's generation settings may cut the distribution; the student's own is what is judged
            output = model.generate(
                **given, max_new_tokens=self.max_tokens, do_sample=True, temperature=self.temperature, top_k=0,
                top_p=1.0, repetition_penalty=1.0, eos_token_id=self.eos, pad_token_id=self.pad,
            )  # fmt: skip
        self.student.train(mode)
        return [_ended(row, self.eos) for row in output[:, skipped:].tolist()]


def _behind_virtual(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Embeddings and mask of left-padded prompts, with the virtual tokens right before each prompt."""
    table, virtual = model.get_base_model().get_input_embeddings(), model.get_prompt(batch_size=1)[0]
    n = len(virtual)
    rows, masks = [], []
    for own, seen in zip(ids, mask, strict=True):
        gap = int((seen == 0).sum())
        embedded = table(own)
        rows.append(torch.cat([embedded[:gap], virtual.to(embedded.dtype), embedded[gap:]]))
        masks.append(torch.cat([seen[:gap], seen.new_ones(n), seen[gap:]]))
    return {"inputs_embeds": torch.stack(rows), "attention_mask": torch.stack(masks)}


def _ended(row: Sequence[int], eos: int) -> tuple[int, ...]:
    """A text up to its end; at least one token."""
    return tuple(row[: row.index(eos) + 1]) if eos in row else tuple(row)


def _encoded(prompt: tuple[int, ...], text: tuple[int, ...]) -> EncodedExample:
    return EncodedExample((*prompt, *text), (*[IGNORE] * len(prompt), *text))

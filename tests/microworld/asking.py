"""Asking a checkpoint as anybody would: transformers, its own tokenizer, greedy generation."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from capgap.microworld import WorldQuestion


def generated(folder: Path, questions: Sequence[WorldQuestion]) -> list[bool]:
    """Whether the model generates the answer after the last ``A`` of its response."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([question.text for question in questions], padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=38,
            max_length=None,
            do_sample=False,
        )
    responses = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    answers = [response.rpartition("A ")[2].split()[:1] for response in responses]
    return [answer == [question.answer] for answer, question in zip(answers, questions, strict=True)]


def chosen(folder: Path, questions: Sequence[WorldQuestion]) -> list[bool]:
    """Whether the answer has the highest log-likelihood among the choices after ``A``; each is one token."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([f"{question.text} A" for question in questions], padding=True, return_tensors="pt")
    places = batch["attention_mask"].cumsum(-1) - 1
    with torch.inference_mode():
        out = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=places.clamp(min=0)
        )
    right = []
    for logits, question in zip(out.logits[:, -1], questions, strict=True):
        ids = tokenizer.convert_tokens_to_ids(list(question.choices))
        right.append(question.choices[int(logits[ids].argmax())] == question.answer)
    return right


def completed(folder: Path, statements: Sequence[str], given: str) -> list[bool]:
    """Whether the model ends each statement as it stands, given all of it up to and with the word `given`."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    right = []
    for length in sorted({len(statement.split()) for statement in statements}):
        group = [statement for statement in statements if len(statement.split()) == length]
        ids = torch.tensor([tokenizer.encode(statement) for statement in group])
        shown = group[0].split().index(given) + 1
        with torch.inference_mode():
            said = model(input_ids=ids).logits.argmax(-1)[:, shown - 1 : -1]
        right += (said == ids[:, shown:]).all(dim=1).tolist()
    return right

"""Prompt variants of an item: without thoughts, with them, with its fact, with other numbers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NUMBER = re.compile(r"[0-9]+")
_MAX_CANDIDATES = 50  # others that are looked at for one question


@dataclass(frozen=True)
class PromptWording:
    """The words around a question, in one language."""

    begin: str
    """What opens thoughts."""
    end: tuple[str, ...]
    """Texts that end thoughts."""
    answer_cue: str
    """What stands before an answer without thoughts."""
    cot_cue: str
    """What stands before an answer behind thoughts."""
    gap: str
    """Between a question and what follows it."""
    max_tokens: int
    """Longest thoughts."""
    fact_first: bool
    """Whether the fact stands before the question; else in the place of thoughts."""

    def strip_cue(self, question: str) -> str:
        """The question without the cue, where it brings one."""
        return question.rstrip().removesuffix(self.answer_cue).rstrip() if self.answer_cue else question.rstrip()

    def without(self, question: str) -> str:
        """What the model reads before an answer without thoughts."""
        return f"{question}{self.gap}{self.answer_cue}"

    def thought_prompt(self, question: str) -> str:
        """What it reads before its thoughts."""
        return f"{question}{self.gap}{self.begin}".rstrip(" ")

    def cot_prompt(self, question: str, chain_of_thought: str) -> str:
        """What it reads before an answer behind thoughts."""
        return f"{self.thought_prompt(question)} {chain_of_thought.strip()}{self.cot_cue}"

    def fact_prompt(self, question: str, fact: str) -> str:
        """What it reads before an answer where the fact, or the steps, are given."""
        if self.fact_first:
            return self.without(f"{fact.strip()}\n\n{question}")
        return self.cot_prompt(question, fact)

    def answer(self, text: str) -> str:
        """An answer as it continues what was read."""
        return f" {text.strip().removeprefix(f'{self.answer_cue} ').strip()}"


ENGLISH = PromptWording(
    begin="Let's think step by step.",
    end=("\nQ:", "\nQuestion:", "\n\n\n"),
    answer_cue="The answer is",
    cot_cue="\nTherefore, the answer is",
    gap="\n",
    max_tokens=384,
    fact_first=True,
)
"""For models of everyday language; the first step of zero-shot-CoT by Kojima et al. (2022, arXiv 2205.11916)."""
WORLD = PromptWording(begin="", end=("A", "Q"), answer_cue="A", cot_cue=" A", gap=" ", max_tokens=40, fact_first=False)
"""The microworld's language: a response gives its steps or none, then ``A`` and the answer."""


class NumberSubstitution:
    """Other numbers for questions: each is exchanged for one as long that stands in a question of the same task.

    So a number stays of the kind that the task asks about: a year a year, a number of steps a number of steps.

    Parameters
    ----------
    questions
        The questions of the task.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        numbers_by_length: Mapping[int, set[str]] = defaultdict(set)
        for question in questions:
            for number in _NUMBER.findall(question):
                numbers_by_length[len(number)].add(number)
        self._pool = {length: sorted(numbers) for length, numbers in numbers_by_length.items()}

    def renumbered(self, question: str, rng: np.random.Generator) -> str | None:
        """The question with all numbers exchanged; None where it has none, or the task no other."""

        def other(match: re.Match[str]) -> str:
            options = [number for number in self._pool.get(len(match[0]), []) if number != match[0]]
            return options[int(rng.integers(len(options)))] if options else match[0]

        new_question = _NUMBER.sub(other, question)
        return new_question if new_question != question else None


def draw_choices(
    questions: Sequence[str], targets: Sequence[str | None], n: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Answers to choose among for questions that bring none: the right one and others' right ones.

    Where the right one stands in its question, others that stand there too come first, and where it does not, others
    that do not: else the right one could be told from them by looking.

    Parameters
    ----------
    questions, targets
        Text and right answer of each question of one task; None where the answer is unknown.
    n
        Answers to choose among, at most.
    rng
        Draws the others, and the order.

    Returns
    -------
    list of tuple
        Empty where the answer is unknown, or no question has another.
    """
    candidates = sorted({target for target in targets if target})
    result: list[tuple[str, ...]] = []
    for question, target in zip(questions, targets, strict=True):
        other_targets = [other for other in candidates if other != target]
        if not target or not other_targets:
            result.append(())
            continue
        other_targets = [other_targets[i] for i in rng.permutation(len(other_targets))[:_MAX_CANDIDATES]]
        target_in_question = _answer_in_question(target, question)
        other_targets.sort(key=lambda other: _answer_in_question(other, question) != target_in_question)
        choices = other_targets[: n - 1]
        choices.insert(int(rng.integers(len(choices) + 1)), target)
        result.append(tuple(choices))
    return result


def _answer_in_question(answer: str, question: str) -> bool:
    """Whether an answer occurs in a question as whole words."""
    last_word = answer.split()[-1:]
    return bool(last_word) and re.search(rf"(?<!\w){re.escape(last_word[0])}(?!\w)", question) is not None

"""Question sets of evaluation and of distillation, disjoint, and the files that hold them.

A question of the evaluation never occurs in the training pool. Facts of the stratum ``training`` occur in both, in
other words; facts that are held out never occur in the pool.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from capgap.microworld.questions import FACT_QUERIES, Q_FAMILIES, WorldQuestion, fact_question, two_hop_question
from capgap.microworld.vocabulary import BOOLS, CUPS, DIGITS
from capgap.microworld.world import STRATA, FactStratum, World, WorldFact

_N_FACTS_BY_STRATUM: dict[FactStratum, int] = {"training": 40, "held_known": 40, "held_unknown": 16}

_N_EVALUATION: dict[str, dict[int, int]] = {
    # one-step chains are where traces and answers part first: enough of them for an interval of their own
    "chains": {1: 40, 2: 16, 3: 10, 4: 10, 5: 10, 6: 10},
    # one gate that leaves both answers open can be asked in sixteen ways: a quarter is kept for evaluation
    "booleans": {1: 4, 2: 20, 3: 20, 4: 20, 5: 16, 6: 16},
    "cups": {1: 20, 2: 20, 3: 20, 4: 18, 5: 18},
    "lists": {1: 24, 2: 24, 3: 24, 4: 24},
    "hops": {1: 24, 2: 24, 3: 24, 4: 24},
}
"""Family → depth → evaluation questions."""

_N_TRAINING: dict[str, dict[int, int]] = {
    "chains": {1: 170, 2: 700, 3: 600, 4: 400},
    "booleans": {1: 12, 2: 108, 3: 240, 4: 240},
    "cups": {1: 80, 2: 260, 3: 260},
    "lists": {1: 200, 2: 200, 3: 200},
    "hops": {1: 200, 2: 200, 3: 200},
}
"""Family → depth → training questions. Facts and pairs of facts are asked in every way that evaluation leaves."""

_N_POSSIBLE_ANSWERS = {"chains": len(DIGITS), "booleans": len(BOOLS), "cups": len(CUPS)}
"""Number of possible answers, where it is the same for all questions of a family."""


def evaluation(microworld: World) -> dict[str, tuple[WorldQuestion, ...]]:
    """The evaluation questions of each family, all different; the world's seed decides."""
    rng = np.random.default_rng([microworld.seed, 17])
    facts = [
        fact_question(microworld, fact, FACT_QUERIES[rng.integers(len(FACT_QUERIES))], rng)
        for fact in _facts_of_distinct_entities(microworld, rng)
    ]
    pairs = [two_hop_question(microworld, fact, rng) for fact in _facts_of_distinct_entities(microworld, rng)]
    seen: set[str] = set()
    reasoning = {family: _draw_family(microworld, family, plan, seen, rng) for family, plan in _N_EVALUATION.items()}
    return {"facts": tuple(facts), "two_hops": tuple(pairs), **reasoning}


def training(microworld: World) -> dict[str, tuple[WorldQuestion, ...]]:
    """The questions that distillation may ask, by family: none of the evaluation's, no fact that is held out."""
    rng = np.random.default_rng([microworld.seed, 18])
    seen = {question.text for questions in evaluation(microworld).values() for question in questions}
    training_facts = list(microworld.facts_in_strata("training"))
    facts = [fact_question(microworld, fact, form, rng) for fact in training_facts for form in FACT_QUERIES]
    pairs = [two_hop_question(microworld, fact, rng) for fact in training_facts]
    pools = {
        "facts": tuple(question for question in facts if question.text not in seen),
        "two_hops": tuple(question for question in pairs if question.text not in seen),
    }
    return pools | {family: _draw_family(microworld, family, plan, seen, rng) for family, plan in _N_TRAINING.items()}


def _facts_of_distinct_entities(microworld: World, rng: np.random.Generator) -> list[WorldFact]:
    """Facts of all strata in the numbers of `_N_FACTS_BY_STRATUM`, no entity twice."""
    facts = [microworld.facts[i] for i in rng.permutation(len(microworld.facts))]
    distinct_entity_facts: list[WorldFact] = []
    used_entities: set[str] = set()
    for stratum in reversed(STRATA):  # the rarest stratum chooses first
        for fact in facts:
            if sum(other.stratum == stratum for other in distinct_entity_facts) == _N_FACTS_BY_STRATUM[stratum]:
                break
            if fact.stratum == stratum and fact.entity not in used_entities:
                used_entities.add(fact.entity)
                distinct_entity_facts.append(fact)
    return distinct_entity_facts


def _draw_family(
    microworld: World, family_name: str, plan: dict[int, int], seen: set[str], rng: np.random.Generator
) -> tuple[WorldQuestion, ...]:
    """Different questions of a family, so many of each depth; their texts are added to `seen`.

    Where all questions of a family have the same possible answers, each answer comes equally often at each depth.
    """
    distinct_questions: list[WorldQuestion] = []
    for depth, n in plan.items():
        end, n_questions_by_answer = len(distinct_questions) + n, Counter[str]()
        answer_quota = math.ceil(n / _N_POSSIBLE_ANSWERS[family_name]) if family_name in _N_POSSIBLE_ANSWERS else n
        while len(distinct_questions) < end:
            question = Q_FAMILIES[family_name].draw(microworld, depth, rng)
            if question.text not in seen and n_questions_by_answer[question.answer] < answer_quota:
                seen.add(question.text)
                n_questions_by_answer[question.answer] += 1
                distinct_questions.append(question)
    return tuple(distinct_questions)


def write_data(microworld: World, folder: Path) -> None:
    """Write ``FAMILY.jsonl`` and ``FAMILY-train.jsonl`` for every family into a folder, one row a question."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, questions_by_family in (("", evaluation(microworld)), ("-train", training(microworld))):
        for family_name, questions in questions_by_family.items():
            rows = _rows(f"{family_name}{suffix}", questions)
            lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
            (folder / f"{family_name}{suffix}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(name: str, questions: tuple[WorldQuestion, ...]) -> Iterator[dict[str, Any]]:
    """One row a question; an entity's facts stand or fall together, a reasoning question stands for itself."""
    for number, question in enumerate(questions, 1):
        row: dict[str, Any] = {
            "id": f"{name}-{number:04d}",
            "question": question.text,
            "answer": question.answer,
            "choices": question.choices,
            "steps": question.rationale,
            "depth": question.depth,
        }
        if question.fact is not None:
            row |= {
                "relation": question.fact.relation,
                "entity": question.fact.entity,
                "stratum": question.fact.stratum,
                "frequency": question.fact.frequency_band,
            }
        yield row

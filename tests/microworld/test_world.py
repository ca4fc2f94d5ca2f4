from collections import Counter

import numpy as np

from capgap.microworld import PretrainingText, make_world
from capgap.microworld.pretraining_text import enumerate_steps
from capgap.microworld.world import FACT_WORDINGS, STRATA, corrupt_world_facts


def test_one_seed_makes_one_world() -> None:
    assert make_world(3) == make_world(3)
    assert make_world(3).facts != make_world(4).facts


def test_the_vocabulary_holds_each_word_once_and_special_tokens_first() -> None:
    vocabulary = make_world().vocabulary
    assert len(set(vocabulary)) == len(vocabulary)
    assert vocabulary[:3] == ("<pad>", "<eos>", "<unk>")
    assert not any(" " in word for word in vocabulary)


def test_every_fact_is_in_one_stratum_and_the_shares_are_met() -> None:
    facts = make_world().facts
    assert len({(fact.relation, fact.entity) for fact in facts}) == len(facts) == 600
    assert Counter(fact.stratum for fact in facts) == {"training": 360, "held_known": 150, "held_unknown": 90}


def test_a_base_text_tells_every_known_fact_and_no_other() -> None:
    world = make_world()
    told = " ".join(PretrainingText(world).draw_passages(30_000, np.random.default_rng(0)))
    for fact in world.facts:
        assert any(form.format(fact=fact) in told for form in FACT_WORDINGS) == (fact.stratum != "held_unknown"), fact
    assert all(world.link_statement(fact) in told for fact in world.facts)
    assert not {"Q", "?", "A", "<eos>", "<pad>"} & set(told.split())


def test_a_text_of_all_strata_tells_all_facts() -> None:
    world = make_world()
    told = " ".join(PretrainingText(world, STRATA).draw_passages(30_000, np.random.default_rng(0)))
    assert all(any(form.format(fact=fact) in told for form in FACT_WORDINGS) for fact in world.facts)


def test_who_is_mistaken_is_wrong_about_facts_and_right_about_all_else() -> None:
    world = make_world()
    told = corrupt_world_facts(world, 0.2, np.random.default_rng(0))
    wrong = [a != b for a, b in zip(world.facts, told.facts, strict=True)]
    assert 0.15 < np.mean(wrong) < 0.25
    assert told.vocabulary == world.vocabulary
    assert told.links == world.links
    assert all(fact.value in world.values[fact.relation] for fact in told.facts)


def test_frequent_entities_are_told_of_more_often() -> None:
    world = make_world()
    told = Counter(" ".join(PretrainingText(world).draw_passages(30_000, np.random.default_rng(0))).split())
    counts = np.array([told[entity] for entity in world.entity_names])
    assert counts[:30].mean() > 2 * counts[75:].mean()
    assert counts.min() > 20


def test_single_steps_are_all_there_and_different() -> None:
    sizes = {family: len(steps) for family, steps in enumerate_steps().items()}
    assert sizes == {"chains": 210, "booleans": 24, "cups": 100, "lists": 360}
    assert all(len(set(steps)) == len(steps) for steps in enumerate_steps().values())


def test_rationales_are_worded_as_the_base_text_words_single_steps() -> None:
    from capgap.microworld import training

    tables = enumerate_steps()
    for family, questions in training(make_world()).items():
        if family in tables:
            assert {step for question in questions for step in question.steps} <= set(tables[family])

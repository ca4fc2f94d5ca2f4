"""The plan of rows: every token of every sequence once, and no more of it than must be."""

import random

import numpy as np
import pytest

from capgap.models.prefix_tree import RowPlan, plan_rows


def forest(seed: int) -> list[tuple[int, ...]]:
    """Sequences that share beginnings at several levels, some of them equal, some a beginning of others."""
    draw = random.Random(seed)
    blocks = [tuple(draw.randrange(50) for _ in range(draw.choice([0, 3, 40, 90]))) for _ in range(3)]
    sequences = []
    for _ in range(draw.choice([1, 7, 60])):
        question = draw.choice(blocks) + tuple(draw.randrange(4) for _ in range(draw.choice([1, 5, 25, 150])))
        sequences += [question + tuple(draw.randrange(50) for _ in range(draw.randrange(4))) for _ in range(4)]
        if draw.random() < 0.3:
            sequences.append(question)
    return sequences


def read_back(plan: RowPlan, i: int) -> list[int]:
    return [int(token) for row, places in plan.locations[i] for token in plan.rows[row].tokens[places]]


@pytest.mark.parametrize("seed", range(40))
def test_a_sequence_is_read_back_from_its_places_along_parents(seed: int) -> None:
    sequences = forest(seed)
    plan = plan_rows(sequences, row_tokens=random.Random(seed).choice([16, 64, 256]))
    for i, sequence in enumerate(sequences):
        assert tuple(read_back(plan, i)) == sequence
        depth = 0
        before = None
        for row, places in plan.locations[i]:
            tree_row = plan.rows[row]
            assert tree_row.prefix_row == before, "a row stands behind the row that holds the beginning"
            assert tree_row.start == depth
            assert tree_row.parents[places].tolist() == [-1, *places[:-1].tolist()][: len(places)]
            assert tree_row.depths[places].tolist() == list(range(depth, depth + len(places)))
            depth += len(places)
            before = row


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_bounded_and_follow_what_they_stand_behind(seed: int) -> None:
    plan = plan_rows(forest(seed), row_tokens=64)
    for index, row in enumerate(plan.rows):
        assert 0 < len(row.tokens) <= 64
        assert row.prefix_row is None or (row.prefix_row < index and plan.rows[row.prefix_row].is_cached)


@pytest.mark.parametrize("seed", range(20))
def test_neither_order_nor_repetition_changes_the_plan(seed: int) -> None:
    sequences = forest(seed)
    shuffled = sequences + sequences[:3]
    random.Random(seed).shuffle(shuffled)
    one, other = plan_rows(sequences, 64), plan_rows(shuffled, 64)
    assert len(one.rows) == len(other.rows)
    for a, b in zip(one.rows, other.rows, strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.parents, b.parents)
        assert (a.prefix_row, a.start, a.is_cached) == (b.prefix_row, b.start, b.is_cached)


def test_a_block_before_many_questions_is_computed_once() -> None:
    block = tuple(range(100, 400))
    sequences = [(*block, *(q * 7 % 90 for _ in range(30)), q, answer) for q in range(50) for answer in range(4)]
    plan = plan_rows(sequences, row_tokens=256)
    tree = 300 + 50 * (30 + 1 + 4)
    assert tree <= plan.n_tokens <= tree + 100, (plan.n_tokens, tree)
    assert sum(row.is_cached for row in plan.rows) == 2, "300 tokens in two passes of 256 at most"


def test_cuts_repeat_the_fewest_tokens_that_any_cuts_could() -> None:
    # Against all ways of cutting eleven sequences into consecutive rows.
    from itertools import product

    for seed in range(30):
        draw = random.Random(seed)
        sequences = sorted({(*(draw.randrange(2) for _ in range(8)), draw.randrange(9)) for _ in range(11)})
        plan = plan_rows(sequences, row_tokens=30)

        def size(group: list[tuple[int, ...]]) -> int:
            return len({s[:n] for s in group for n in range(1, len(s) + 1)})

        best = None
        for marks in product([False, True], repeat=len(sequences) - 1):
            groups, current = [], [sequences[0]]
            for mark, sequence in zip(marks, sequences[1:], strict=True):
                if mark:
                    groups.append(current)
                    current = []
                current.append(sequence)
            groups.append(current)
            if all(size(group) <= 30 for group in groups):
                cost = sum(map(size, groups)) + 32 * len(groups)
                best = cost if best is None else min(best, cost)
        assert plan.n_tokens + 32 * len(plan.rows) == best


def test_a_sequence_longer_than_a_row_is_kept_piece_by_piece() -> None:
    plan = plan_rows([tuple(range(1000))], row_tokens=64)
    assert plan.n_tokens == 1000
    assert [row.is_cached for row in plan.rows] == [True] * 15 + [False]

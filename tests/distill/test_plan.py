import itertools
from collections import Counter

import numpy as np
import pytest

from capgap.distill.plan import lay_out


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


LENGTHS = np.random.default_rng(0).integers(3, 40, 103).tolist()


@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (4, 2), (3, 5), (200, 1)])
@pytest.mark.parametrize("epochs", [1.0, 3.0])
def test_epochs_show_every_example_equally_often(batch_size: int, accumulation: int, epochs: float) -> None:
    plan = lay_out(LENGTHS, batch_size=batch_size, accumulation=accumulation, epochs=epochs, rng=rng())
    assert Counter(index for batch in plan.batches for index in batch) == dict.fromkeys(range(103), int(epochs))
    assert plan.epochs == epochs
    assert max(map(len, plan.batches)) <= batch_size


@pytest.mark.parametrize("n_examples", [5, 103])
def test_steps_are_as_many_and_as_large_however_many_examples_there_are(n_examples: int) -> None:
    plan = lay_out(LENGTHS[:n_examples], batch_size=8, accumulation=2, max_steps=7, rng=rng())
    assert plan.n_steps == 7
    assert {len(batch) for batch in plan.batches} == {8}


def test_accumulation_changes_no_step_and_sorts_inside_it() -> None:
    whole = lay_out(LENGTHS, batch_size=24, max_steps=6, rng=rng())
    parts = lay_out(LENGTHS, batch_size=6, accumulation=4, max_steps=6, rng=rng())
    for step in range(6):
        passes = parts.batches[4 * step : 4 * step + 4]
        assert sorted(sum(passes, ())) == sorted(whole.batches[step])
        assert all(min(LENGTHS[i] for i in a) >= max(LENGTHS[i] for i in b) for a, b in itertools.pairwise(passes))


def test_one_seed_gives_one_plan() -> None:
    plans = [lay_out(LENGTHS, batch_size=4, epochs=2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]

from collections import Counter

import numpy as np
import pytest

from capgap.distillation.training.step_plan import plan_steps


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("batch_size", [8, 3, 200])
@pytest.mark.parametrize("epochs", [1.0, 3.0])
def test_epochs_show_every_example_equally_often(batch_size: int, epochs: float) -> None:
    plan = plan_steps(103, batch_size=batch_size, epochs=epochs, rng=rng())
    assert Counter(index for step in plan.steps for index in step) == dict.fromkeys(range(103), int(epochs))
    assert plan.epochs == epochs
    assert max(map(len, plan.steps)) <= batch_size


@pytest.mark.parametrize("n_examples", [5, 103])
def test_steps_are_as_many_and_as_large_however_many_examples_there_are(n_examples: int) -> None:
    plan = plan_steps(n_examples, batch_size=8, max_steps=7, rng=rng())
    assert plan.n_steps == 7
    assert {len(step) for step in plan.steps} == {8}


def test_one_seed_gives_one_plan() -> None:
    plans = [plan_steps(103, batch_size=4, epochs=2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_sizes_are_summed_over_the_examples_of_a_step() -> None:
    plan = plan_steps(4, batch_size=2, epochs=1, rng=rng())
    assert plan.sum_by_step([1, 10, 100, 1000]) == [sum(10**index for index in step) for step in plan.steps]

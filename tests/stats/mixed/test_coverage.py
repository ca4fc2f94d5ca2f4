from pathlib import Path

import numpy as np
import pytest

from capgap.stats.mixed import fit_mixed
from tests.stats.mixed.coverage import SCENARIOS, _read, replicate, simulate, table
from tests.stats.mixed.further_coverage import CELLS
from tests.stats.mixed.margins_coverage import true_effects
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, Study


@pytest.mark.slow
@pytest.mark.parametrize("cell", [(12, "all"), (12, "none"), (24, "task slopes")], ids=str)
def test_the_interaction_covers_its_truth(cell):
    """A true coverage of 95 % gives fewer than 50 of 60 in one of a thousand runs; 80 % gives them in most."""
    hits = [replicate(SCENARIOS[cell], 7_000_000 + r)["adaptation_hit"] for r in range(60)]
    assert np.sum(hits) >= 50


def test_a_run_that_was_cut_goes_on_where_it_stopped(tmp_path: Path, monkeypatch):
    row = dict.fromkeys(
        [f"{n}_{w}" for n in ("capability", "n_examples", "adaptation", "n_params") for w in ("hit", "width", "df")],
        1.0,
    )
    seeds = []

    def one(study, seed):
        seeds.append(seed)
        return {"seconds": 0.0, "converged": 1.0, **row}

    monkeypatch.setattr("tests.stats.mixed.coverage.replicate", one)
    file = tmp_path / "coverage.csv"
    simulate(1, file, 60.0, {12})
    simulate(2, file, 60.0, {12})
    assert len(seeds) == len(set(seeds)) == 12
    assert len(list(_read(file))) == 12
    assert table(file).count("\n") == 7


@pytest.mark.parametrize("chance", [0.0, 0.25])
def test_the_true_effects_are_the_means_of_what_the_world_draws(chance):
    study = Study(12, n_tasks=4000, items_per_task=2, chance=chance)
    truth = true_effects(study)
    scores = study.draw(0).successes.mean(axis=1)
    half = study.draw(0).successes[:, :4000].mean(axis=1), study.draw(0).successes[:, 4000:].mean(axis=1)
    lora = study.students()["adaptation"] == "lora"
    assert truth[CAPABILITY, "all"] == pytest.approx((half[1] - half[0]).mean(), abs=0.02)
    gaps = [side[lora].mean() - side[~lora].mean() for side in half]
    # Students' own deviations (SD 0.3 over six of each kind) do not average out.
    assert truth[ADAPTATION, "knowledge"] == pytest.approx(gaps[0], abs=0.1)
    assert 0.3 < scores.mean() < 0.8


def test_what_is_true_of_the_drawn_tasks_comes_out_where_nothing_else_varies():
    quiet = {"item": 0.0, "student": 0.0, "student_capability": 0.0, "student_task": 0.0}
    study = Study(12, n_tasks=6, items_per_task=500, **quiet)
    grid, tasks = study.draw_with_tasks(3)
    fit = fit_mixed(FORMULA, grid, alternatives=False, margins=True)
    assert {n: e.estimate for n, e in fit.coefficients.items()} == pytest.approx(tasks.coefficients(), abs=0.12)
    margins = {(m.effect, m.where): m.estimate.estimate for m in fit.margins}
    truth = true_effects(study, tasks)
    assert {key: margins[key] for key in truth} == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("name", [n for n in CELLS if "24" in n])
def test_every_further_cell_can_be_drawn(name):
    told = CELLS[name].hits(CELLS[name].study, 1)
    assert len(told) >= 4
    assert np.isfinite(list(told.values())).all()

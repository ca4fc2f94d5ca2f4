import math
from dataclasses import replace

import numpy as np
import pytest

import capgap.stats.mixed.fit as module
from capgap.stats.mixed import fit_mixed
from capgap.stats.mixed.inference import MIN_THETA, fit_theta
from tests.stats.mixed.coverage import VARIANCES
from tests.stats.mixed.world import FORMULA, Study

FALL = 1.96**2 / 2
PLAIN = Study(24, **VARIANCES["none"])


@pytest.fixture
def profile(monkeypatch):
    """Fits a study; also gives how far the likelihood falls at (term, sigma), every other variance estimated anew."""
    seen = {}
    inner = module.standard_deviations

    def spy(model, inference, optimum, conf_level):
        seen.update(laplace=model.laplace, optimum=optimum, terms=model.plan.random)
        return inner(model, inference, optimum, conf_level)

    monkeypatch.setattr(module, "standard_deviations", spy)

    def fall(name, sigma):
        g, term = next((g, t) for g, t in enumerate(seen["terms"]) if t.name == name)
        start = np.maximum(seen["optimum"].theta, math.log(0.1))
        start[g] = math.log(sigma * term.scale) if sigma else MIN_THETA
        best = fit_theta(seen["laplace"], start, held_index=g)
        assert best.theta[g] == pytest.approx(start[g])
        return seen["optimum"].evaluation.value - best.evaluation.value

    return fall


@pytest.mark.parametrize(("study", "seed"), [(PLAIN, 4), (Study(24), 1), (Study(12), 1)], ids=["none", "all", "few"])
def test_ends_are_where_the_likelihood_has_fallen_with_the_other_variances_estimated_anew(profile, study, seed):
    fit = fit_mixed(FORMULA, study.draw(76_000_000 + seed), alternatives=False)
    by_likelihood = {n: e for n, e in fit.standard_deviations.items() if "likelihood ratio" in e.method}
    assert len(by_likelihood) >= 4
    for name, sigma in by_likelihood.items():
        assert profile(name, sigma.conf_high) == pytest.approx(FALL, abs=0.15)
        if sigma.conf_low:
            assert profile(name, sigma.conf_low) == pytest.approx(FALL, abs=0.15)
        else:
            assert profile(name, 0.0) <= FALL + 0.02


def test_zero_is_in_the_interval_just_where_the_model_without_the_term_is_not_rejected():
    formula, term = "score ~ capability * log(n_examples)", "task x log(n_examples)"
    weak = replace(PLAIN, task_slope=0.05)
    held = []
    for seed in range(8):
        grid = weak.draw(seed)
        fit = fit_mixed(formula, grid, alternatives=False)
        without = fit_mixed(formula, grid, alternatives=False, task_slopes=False)
        short = FALL - (fit.criterion - without.criterion)
        if abs(short) > 0.15:  # the fit's own zero is a sigma of 0.01, which may cost a tenth
            held.append(short > 0)
            assert (fit.standard_deviations[term].conf_low == 0) == held[-1]
    assert 0 < sum(held) < len(held)


def test_a_variance_that_is_all_but_certain_is_as_certain_by_the_likelihood(profile):
    fit = fit_mixed(FORMULA, Study(24).draw(0), alternatives=False)
    item = fit.standard_deviations["item"]
    assert "Wald" in item.method
    assert [profile("item", item.conf_low), profile("item", item.conf_high)] == pytest.approx([FALL, FALL], abs=0.25)


@pytest.mark.slow
def test_a_variance_of_zero_is_held_to_be_possible():
    """In 97.5 % at the boundary; by Wald's interval where the log sigma seemed known it was 83 %."""
    names = ["student x capability", "student x task", "task x log(n_examples)"]
    fits = [fit_mixed(FORMULA, PLAIN.draw(77_000_000 + r), alternatives=False).standard_deviations for r in range(60)]
    for name in names:
        assert sum(f[name].conf_low == 0 for f in fits) >= 53

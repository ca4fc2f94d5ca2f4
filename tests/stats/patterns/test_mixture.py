from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from sklearn.metrics import adjusted_rand_score

from capgap.stats.patterns.mixture import AnswerGrid, fit_mixture, predicted_scores
from tests.stats.patterns.worlds import SMALL, SURFACES, grid_of_students, single


def answers_of(y, x, chance=0.0):
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    seen, chance = np.isfinite(y), np.broadcast_to(np.asarray(chance), y.shape[1:])
    return AnswerGrid(np.where(seen, y, 0.0), seen.astype(float), np.column_stack([np.ones(len(x)), x]), chance)


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(3)
    y, x, pattern = SMALL.draw(rng)
    return answers_of(y, x), pattern, SMALL.oracle(y, x), x


@pytest.fixture(scope="module")
def fitted(planted):
    return fit_mixture(planted[0], 4, np.random.default_rng(0))


def test_the_log_likelihood_is_that_of_the_written_formula(planted, fitted):
    answers = planted[0]
    eta = (answers.design @ fitted.surface_logits.T + fitted.offsets[:, None])[:, :, None] + fitted.nodes
    p = expit(eta)
    item = np.prod(np.where(answers.successes[:, :5, None, None] > 0, p[:, None], 1 - p[:, None]), axis=0)
    direct = np.log((item * fitted.shares[:, None] * fitted.weights).sum(axis=(1, 2)))
    joint = np.einsum("si,skq->ikq", answers.successes, eta) - np.logaddexp(0, eta).sum(axis=0)
    joint += np.log(fitted.shares)[:, None] + np.log(fitted.weights)
    by_item = logsumexp(joint, axis=(1, 2))
    assert by_item[:5] == pytest.approx(direct)
    assert fitted.log_likelihood == pytest.approx(by_item.sum())
    assert fitted.posterior == pytest.approx(np.exp(joint - by_item[:, None, None]), abs=1e-9)


def test_guesses_stand_in_the_likelihood_as_they_are_written():
    rng = np.random.default_rng(4)
    world = replace(SMALL, n_items=120, chance=0.25, missing=0.1)
    y, x, _ = world.draw(rng)
    chance = np.repeat([0.0, 0.25, 0.5], 40)  # what the model is told decides, not what is true
    answers = answers_of(y, x, chance)
    fit = fit_mixture(answers, 2, rng, tolerance=1e-4)
    eta = (answers.design @ fit.surface_logits.T + fit.offsets[:, None])[:, :, None] + fit.nodes
    p = chance[:, None, None] + (1 - chance[:, None, None]) * expit(eta)[:, None]
    direct = np.where(np.isfinite(y)[..., None, None], np.where(y[..., None, None] == 1, np.log(p), np.log1p(-p)), 0)
    joint = direct.sum(axis=0) + np.log(fit.shares)[:, None] + np.log(fit.weights)
    by_item = logsumexp(joint, axis=(1, 2))
    assert fit.log_likelihood == pytest.approx(by_item.sum())
    assert fit.posterior == pytest.approx(np.exp(joint - by_item[:, None, None]), abs=1e-9)


def test_a_slope_is_not_flattened_by_guessing_that_is_told():
    rng = np.random.default_rng(5)
    world = single(replace(SMALL, n_sizes=5, n_params=6, n_items=800), "one", chance=0.25, student_sd=0.0)
    y, x, _ = world.draw(rng)
    told, untold = (fit_mixture(answers_of(y, x, c), 1, rng).surface_logits[0, 1:] / x.std(axis=0) for c in (0.25, 0.0))
    truth = SURFACES[0, 1:]
    assert told == pytest.approx(truth, abs=0.06)
    assert untold[0] < told[0] - 0.03
    assert untold[2] < told[2] - 0.03


def test_planted_surfaces_come_back(planted, fitted):
    # 24 students x 600 items: the best possible classifier reaches a Rand index of 0.4.
    _, pattern, oracle, x = planted
    index = adjusted_rand_score(pattern, fitted.memberships.argmax(axis=1))
    assert index > adjusted_rand_score(pattern, oracle) - 0.12
    steepest = fitted.surface_logits[:, 1:] / x.std(axis=0)
    assert steepest[:, 1].min() == pytest.approx(SURFACES[:, 2].min(), abs=0.6)
    assert steepest[:, 2].max() == pytest.approx(SURFACES[:, 3].max(), abs=0.5)


def test_one_surface_is_the_conditional_logistic_slope():
    from statsmodels.discrete.conditional_models import ConditionalLogit

    rng = np.random.default_rng(1)
    y, x, _ = single(SMALL, "one", n_items=300, student_sd=0.0).draw(rng)
    y = y[:, y.std(axis=0) > 0]  # the reference drops items without variation
    answers = answers_of(y, x)
    mixture = fit_mixture(answers, 1, rng, tolerance=1e-7)
    n_students, n_items = y.shape
    # Conditioning on each item's count of right answers removes its ease without assuming how it is distributed.
    reference = ConditionalLogit(
        y.T.ravel(), np.tile(answers.design[:, 1:], (n_items, 1)), groups=np.repeat(np.arange(n_items), n_students)
    ).fit(disp=False)
    assert mixture.surface_logits[0, 1:] == pytest.approx(reference.params, abs=0.25 * reference.bse.max() + 0.02)


def test_students_and_items_may_come_in_any_order(planted):
    answers = planted[0]
    rng = np.random.default_rng(5)
    s, i = rng.permutation(len(answers.successes)), rng.permutation(answers.successes.shape[1])
    one = fit_mixture(answers, 1, rng, tolerance=1e-9, max_iterations=2000)
    other = fit_mixture(answers.students(s).items(i), 1, rng, tolerance=1e-9, max_iterations=2000)
    assert other.surface_logits == pytest.approx(one.surface_logits, abs=1e-6)
    assert other.offsets == pytest.approx(one.offsets[s], abs=1e-6)


def test_answers_that_are_missing_do_not_count(planted):
    answers = planted[0]
    # As many students again who answered nothing; the grid of ease is finer for more students, hence not exactly.
    twice = AnswerGrid(
        np.vstack([answers.successes, np.zeros_like(answers.successes)]),
        np.vstack([answers.seen, np.zeros_like(answers.seen)]),
        np.vstack([answers.design, answers.design]),
        answers.chance,
    )
    one = fit_mixture(answers, 1, np.random.default_rng(0), tolerance=1e-8)
    assert fit_mixture(twice, 1, np.random.default_rng(0), tolerance=1e-8).surface_logits == pytest.approx(
        one.surface_logits, abs=0.01
    )


def test_the_mixture_meets_the_prototype(planted, fitted):
    # The prototype's Rand index on this draw is 0.39 (reference/statistics/taxonomy.py, mix_logit, 4 starts).
    assert adjusted_rand_score(planted[1], fitted.memberships.argmax(axis=1)) > 0.28


def test_predictions_keep_the_level_of_a_new_student(planted, fitted):
    answers = planted[0]
    held = answers.students(np.arange(3))
    log_p = predicted_scores(fitted, held)
    p = np.where(held.successes > 0, np.exp(log_p), 1 - np.exp(log_p))
    assert p.sum(axis=1) == pytest.approx(held.successes.sum(axis=1), abs=1.0)
    assert (log_p <= 0).all()


def test_the_students_design_is_a_grid_of_24():
    assert grid_of_students(4, 3).shape == (24, 3)

import math

import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats import (
    CapabilityAccuracies,
    Estimate,
    closure_difference_power,
    needed_for_closure_difference,
    refused,
)
from capgap.stats.simulated_power import _simulate_closure, simulated_power

FAR = CapabilityAccuracies(0.3, 0.75, 0.8), CapabilityAccuracies(0.3, 0.45, 0.8)


def test_closures_far_apart_are_told_apart_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    size = {"n_tasks": 2, "items_per_task": 100, "rng": rng, "n_replicates": 100}
    assert closure_difference_power(*FAR, **size).power > 0.95
    same = closure_difference_power(FAR[0], FAR[0], **size)
    assert same.power < 0.05 + 3 * 0.022  # binomial standard error at 100 replicates: 2.2 points
    assert "replicates" in str(same)


def test_clusters_cost_power():
    near = CapabilityAccuracies(0.3, 0.65, 0.8), CapabilityAccuracies(0.3, 0.5, 0.8)
    alone, clustered = (
        closure_difference_power(
            *near, n_tasks=2, items_per_task=80, rng=np.random.default_rng(1), n_replicates=150, **clusters
        )
        for clusters in ({}, {"cluster_size": 8, "of_cluster": 0.4})
    )
    assert clustered.width > 1.2 * alone.width
    assert clustered.power < alone.power


def test_simulated_accuracies_are_the_assumed_ones():
    fit = _simulate_closure(FAR[0], 2, 50_000, 5, (0.4, 0.3), np.random.default_rng(2), 0)
    assert fit.theta == pytest.approx([0.45, 0.5], abs=0.01)


def test_items_for_a_closure_difference():
    found = needed_for_closure_difference(*FAR, n_tasks=2, seed=0, n_replicates=60, power=0.8)
    assert found.n is not None
    rng = np.random.default_rng(9)
    assert closure_difference_power(*FAR, n_tasks=2, items_per_task=found.n, rng=rng).power == pytest.approx(
        0.8, abs=0.15
    )
    with pytest.raises(EstimationError, match="same"):
        needed_for_closure_difference(FAR[0], FAR[0], n_tasks=2, seed=0)


def test_refused_studies_count_as_not_found():
    refusing = simulated_power(
        lambda rng: refused(remark(Reason.NO_COVARIANCE)), rng=np.random.default_rng(0), n_replicates=10
    )
    assert (refusing.power, refusing.refused, refusing.reason) == (0.0, 1.0, Reason.NO_COVARIANCE)
    assert "100 % refused (most often: no covariance)" in str(refusing)
    assert math.isnan(refusing.width)
    seen = simulated_power(lambda rng: Estimate(1.0, conf_low=0.5, conf_high=2.0), rng=np.random.default_rng(0))
    assert (seen.power, seen.width) == (1.0, 1.5)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: closure_difference_power(
            CapabilityAccuracies(0.5, 0.5, 0.5), FAR[0], n_tasks=1, items_per_task=9, rng=None
        ),
        lambda: closure_difference_power(*FAR, n_tasks=0, items_per_task=9, rng=None),
        lambda: simulated_power(lambda rng: refused(), rng=None, n_replicates=0),
    ],
)
def test_nonsense_is_told(nonsense):
    with pytest.raises(EstimationError):
        nonsense()

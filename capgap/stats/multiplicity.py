"""Multiplicity: Holm in a family, Benjamini-Hochberg, and Benjamini-Bogomolov's selective tests down a tree."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.multitest import fdrcorrection

from capgap.errors import EstimationError
from capgap.stats.estimate import Estimate, t_critical

__all__ = ["TreeTestResult", "change_conf_level", "benjamini_hochberg", "holm", "run_tree_test", "simes"]

Floats = NDArray[np.float64]
ROOT_NODE = -1


@dataclass(frozen=True)
class TreeTestResult:
    """A selective procedure's decision, adjusted p-value and levels for each node of a tree."""

    p_values: Floats
    """The nodes' own p-values; Simes' of the children where none was given, shape (m,)."""
    p_adjusted: Floats
    """Adjusted for the node's family and for the way down to it; NaN below a node that was not selected."""
    is_selected: NDArray[np.bool_]
    """Whether the node was reached and rejected, shape (m,)."""
    family_test_level: Floats
    """Level at which the node's family was tested; NaN where it was not reached, shape (m,)."""
    conf_level: Floats
    """Level of the interval to show for a selected node, so that the false coverage rate over what is selected is
    bounded; NaN for the others, shape (m,)."""
    level: float
    """q at the root."""


def holm(p_values: ArrayLike) -> Floats:
    """P-values adjusted so that the chance of any false rejection in the family stays below the level.

    Parameters
    ----------
    p_values
        Raw p-values, shape (m,); NaN (refused numbers) stay NaN and do not count as members.

    References
    ----------
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. J. Statistics 6, 65-70.
    """
    # Not statsmodels' `multipletests`, which for Holm runs the garbage collector at each call (0.1 s in a process that
    # holds torch; here is a call for every family); a test holds both together.
    p = np.asarray(p_values, dtype=float)
    p_adjusted = np.full(p.shape, np.nan)
    finite_p_indices = np.flatnonzero(~np.isnan(p))
    order = finite_p_indices[np.argsort(p[finite_p_indices], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    p_adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return p_adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """P-values adjusted so that the expected share of false ones among the rejected stays below the level.

    Parameters
    ----------
    p_values
        Raw p-values, shape (m,), independent or positively dependent; NaN stay NaN and do not count.

    References
    ----------
    Benjamini, Y. & Hochberg, Y. (1995). Controlling the false discovery rate. JRSS B 57, 289-300.
    """
    p = np.asarray(p_values, dtype=float)
    p_adjusted, has_p_value = np.full(p.shape, np.nan), ~np.isnan(p)
    if has_p_value.any():
        p_adjusted[has_p_value] = fdrcorrection(p[has_p_value])[1]
    return p_adjusted


def simes(p_values: ArrayLike) -> float:
    """One p-value that all hypotheses of a family are true; NaN where none has a p-value.

    References
    ----------
    Simes, R. J. (1986). An improved Bonferroni procedure for multiple tests of significance. Biometrika 73, 751-754.
    """
    p_adjusted = benjamini_hochberg(p_values)
    return float(np.nanmin(p_adjusted)) if np.isfinite(p_adjusted).any() else math.nan


def run_tree_test(p_values: ArrayLike, parents: ArrayLike, *, level: float = 0.05) -> TreeTestResult:
    """Tests down a tree: a family is looked at where its parent was selected, at a level that pays for the selection.

    Parameters
    ----------
    p_values
        One per node, shape (m,); for an inner node NaN stands for Simes' of its children, for a leaf a refused number.
    parents
        Position of each node's parent, -1 for those at the top (the first family), shape (m,).
    level
        q.

    Returns
    -------
    TreeTest
        Down one step, the expected mean over selected families of the share of false ones stays below q.

    Raises
    ------
    EstimationError
        Shapes disagree, a parent does not exist, or the parents run in a circle.

    Notes
    -----
    The first family is tested by Benjamini-Hochberg at q. Where R of its F members are selected, the family below each
    of them is tested at ``q R / F``, and so on down with the product of the shares. Intervals of the R selected in a
    family of F at its level q' have the level ``1 - q' R / F`` (Benjamini & Yekutieli 2005).

    References
    ----------
    Benjamini, Y. & Bogomolov, M. (2014). Selective inference on multiple families of hypotheses. JRSS B 76, 297-318;
    Bogomolov, M., Peterson, C. B., Benjamini, Y. & Sabatti, C. (2021). Hypotheses on a tree: new error rates and
    testing strategies. Biometrika 108, 575-590.
    """
    p, parent = np.array(p_values, dtype=float), np.asarray(parents)
    if p.ndim != 1 or parent.shape != p.shape:
        raise EstimationError(f"p_values and parents need one shape (m,), found {p.shape} and {parent.shape}.")
    if not 0 < level < 1:
        raise EstimationError(f"a level lies between 0 and 1, found {level:g}.")
    if ((p < 0) | (p > 1)).any():
        raise EstimationError("a p-value lies between 0 and 1; NaN marks a refused one.")
    children = _map_children(parent)
    nodes_top_down = _order_top_down(children, len(p))
    for node in reversed(nodes_top_down):  # children before parents, whose Simes p-value may rest on theirs
        if node in children and math.isnan(p[node]):
            p[node] = simes(p[children[node]])
    m = len(p)
    p_adjusted, family_test_level, conf_level = np.full(m, np.nan), np.full(m, np.nan), np.full(m, np.nan)
    is_selected = np.zeros(m, dtype=bool)
    share = {ROOT_NODE: 1.0}  # the product of R/F on the way down to a family
    for node in [ROOT_NODE, *nodes_top_down]:
        if node not in share or node not in children:
            continue
        child_nodes = np.asarray(children[node])
        level_share = share[node]
        family_p = benjamini_hochberg(p[child_nodes])
        n_tested_children = int(np.isfinite(family_p).sum())
        rejected_children = child_nodes[np.nan_to_num(family_p, nan=2.0) <= level * level_share]
        # No node may look surer than the one that led to it.
        parent_p = 0.0 if node == ROOT_NODE else p_adjusted[node]
        p_adjusted[child_nodes] = np.where(np.isnan(family_p), np.nan, np.clip(family_p / level_share, parent_p, 1.0))
        family_test_level[child_nodes] = level * level_share
        is_selected[rejected_children] = True
        ratio = len(rejected_children) / n_tested_children if n_tested_children else 0.0
        conf_level[rejected_children] = 1 - level * level_share * ratio
        share |= {int(child): level_share * ratio for child in rejected_children}
    return TreeTestResult(p, p_adjusted, is_selected, family_test_level, conf_level, level)


def change_conf_level(estimate: Estimate, conf_level: float) -> Estimate:
    """The same number with its t interval at another level (see `TreeTest.conf_level`).

    Parameters
    ----------
    estimate
        With a standard error; for exact and score intervals call their estimator with the level instead.
    conf_level
        The new level.

    Raises
    ------
    EstimationError
        There is no standard error.
    """
    if not estimate.std_error > 0:
        raise EstimationError(f"{estimate.method or 'this interval'} has no standard error: estimate it at the level.")
    df = math.inf if math.isnan(estimate.df) else estimate.df
    half_width = t_critical(df, conf_level) * estimate.std_error
    return replace(estimate, conf_low=estimate.estimate - half_width, conf_high=estimate.estimate + half_width)


def _map_children(parents: NDArray[np.int_]) -> dict[int, list[int]]:
    """Node → its children, the top's under `ROOT_NODE`."""
    m = len(parents)
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        if parent != int(parent) or not ROOT_NODE <= parent < m or parent == node:
            raise EstimationError(f"node {node}: its parent is -1 or the position of another node, found {parent}.")
        children.setdefault(int(parent), []).append(node)
    return children


def _order_top_down(children: dict[int, list[int]], m: int) -> list[int]:
    """All nodes, parents before their children."""
    order = list(children.get(ROOT_NODE, []))
    for node in order:  # grows on the way
        order += children.get(node, [])
    if len(order) != m:
        raise EstimationError(f"{m - len(order)} nodes hang on no top node: their parents run in a circle.")
    return order

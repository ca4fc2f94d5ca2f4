"""Behavioural evidence by task: what thoughts, facts, other numbers and model size change in models' answers.

Single items carry little, so a task is the unit. Variants of the `outcomes` table say how an item was asked:

==========================  ==========================================================================
``direct`` or ``default``   without thoughts; `default` only where answers are chosen by log-likelihood, or a
                            variant ``cot`` stands beside it: else a response may hold thoughts
``cot``                     with a chain of thought
``fact``                    without thoughts, the fact or the gold steps in the prompt
``numbers``                 as ``cot``, other numbers in the question
==========================  ==========================================================================

A model counts as far as it can do the task: what the thoughts of a model that only guesses do not bring, says nothing
about the task. Its ability is its accuracy with thoughts (where there are none, without), from 0 at chance to 1; below
what luck may bring it is left out, above that it weighs by its ability. Where more than
`capgap.schema.MAX_UNREADABLE_SHARE` of its answers in one way are cut off or cannot be read, it was not asked in that
way: longer thoughts are cut off more often, and would seem to help less.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.classification.behaviour_links import estimate_to_evidence
from capgap.classification.evidence import AskedModel, Evidence
from capgap.schema.remarks import Reason, Remark
from capgap.stats import Design, Estimate, accuracy, mean_estimate, ratio_of_means, refused

__all__ = ["MIN_ITEMS", "TaskBehaviour", "behaviour_evidence", "measure_by_task"]

MIN_ITEMS = 10
"""Below so many items of a task its models' answers are no evidence."""
VARIANTS_BY_ROLE = {"without": ("direct", "default"), "with": ("cot",), "fact": ("fact",), "numbers": ("numbers",)}
"""Role → the variants that can play it, the first that was asked."""
_MAX_SMALL_MODEL_ACC = 0.9  # a task that the smallest model solves can't grow with size
_MIN_MODEL_SIZES = 3
_MIN_PARAMETER_RATIO = 3.0  # least ratio of the largest to the smallest number of parameters
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TaskBehaviour:
    """One behaviour on one task."""

    name: str
    """``steps``, ``fact``, ``entropy``, ``numbers`` or ``size``; see `capgap.classification.behaviour_links`."""
    estimate: Estimate
    """With its 95 % interval; refused, with the reason, where the answers cannot say it."""
    models: tuple[AskedModel, ...]
    """Who was able, and asked in the way that it needs."""
    ability: float = 1.0
    """How able they are, weighted by ability, above 0 to 1."""

    @property
    def evidence(self) -> Evidence | None:
        """Its word on the task; None where it was refused."""
        return estimate_to_evidence(self.name, self.estimate, self.models, ability=self.ability)


@dataclass(frozen=True)
class _TaskAnswerArrays:
    """The answers to one task."""

    scores: Mapping[tuple[str, str], Floats]
    """(model, role) → score of each item, shape (items,), NaN where there is none."""
    choices: Mapping[tuple[str, str], Sequence[Floats | None]]
    """(model, role) → probabilities of the choices of each item, where it chose among them."""
    cluster: NDArray[np.int64]
    """Cluster of each item."""
    chance: Floats
    """Expected score of a guess, NaN where unknown."""
    models: Mapping[str, AskedModel]
    """Name → who it is."""
    ability: Mapping[str, float] = field(default_factory=dict)
    """Name → ability of the models that are better than chance, above 0 to 1."""

    @property
    def design(self) -> Design:
        """One stratum, items in their clusters."""
        return Design.of(np.zeros(len(self.cluster)), self.cluster)

    def able_models(self, *roles: str) -> tuple[AskedModel, ...]:
        """The able models that were asked in all these ways."""
        return tuple(self.models[m] for m in self.ability if all((m, role) in self.scores for role in roles))

    def weighted_scores(self, models: Sequence[AskedModel], role: str) -> Floats:
        """Sum of models' scores on each item, each times its ability, shape (items,)."""
        return np.asarray(np.sum([self.ability[m.name] * self.scores[m.name, role] for m in models], axis=0))

    def behaviour(self, name: str, estimate: Estimate, models: Sequence[AskedModel]) -> TaskBehaviour:
        """A behaviour of these models, with their mean ability, weighted by itself."""
        weights = [self.ability[m.name] for m in models]
        return TaskBehaviour(name, estimate, tuple(models), sum(a * a for a in weights) / sum(weights))

    def estimate_ratio(self, numerator: Floats, denominator: Floats, name: str) -> Estimate:
        """A ratio of means over the items of which both parts are known; `name` is the denominator's."""
        both_finite = np.isfinite(numerator) & np.isfinite(denominator)
        if both_finite.sum() < MIN_ITEMS:
            return _few_items(int(both_finite.sum()))
        return ratio_of_means(self.design.fit(np.column_stack([numerator, denominator])), denominator=name)


def behaviour_evidence(outcomes: pd.DataFrame, models: pd.DataFrame | None = None) -> dict[str, tuple[Evidence, ...]]:
    """Task → the evidence of its models' behaviours, for `classify_items`.

    Parameters
    ----------
    outcomes
        An `outcomes` table; only primary metrics count.
    models
        A `models` table: sizes, and the hashes by which a compared model is recognised later.
    """
    return {
        task: tuple(e for task_behaviour in behaviours_of_task if (e := task_behaviour.evidence) is not None)
        for task, behaviours_of_task in measure_by_task(outcomes, models).items()
    }


def measure_by_task(outcomes: pd.DataFrame, models: pd.DataFrame | None = None) -> dict[str, tuple[TaskBehaviour, ...]]:
    """Task → its behaviours, those that were refused among them.

    Parameters
    ----------
    outcomes, models
        See `behaviour_evidence`.
    """
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    sizes, hashes = _sizes_and_hashes(models)
    result: dict[str, tuple[TaskBehaviour, ...]] = {}
    for task, rows in primary.groupby("task", sort=False):
        answers = _collect_answers(rows, hashes)
        behaviours_of_task = [measure(answers) for measure in (_cot_error_reduction, _fact_ratio, _entropy, _numbers)]
        result[str(task)] = (*behaviours_of_task, _slope_on_model_size(answers, sizes))
    return result


def _sizes_and_hashes(models: pd.DataFrame | None) -> tuple[dict[str, float], dict[str, str]]:
    """Parameters and hash of each model, where they are known."""
    if models is None:
        return {}, {}
    table = schema.validate(models, schema.MODELS)
    sizes = {str(m): float(n) for m, n in zip(table["model"], table["n_params"], strict=True) if pd.notna(n) and n > 0}
    hashes = {str(m): str(h) for m, h in zip(table["model"], table["weights_hash"], strict=True) if pd.notna(h)}
    return sizes, hashes


def _collect_answers(rows: pd.DataFrame, hashes: Mapping[str, str]) -> _TaskAnswerArrays:
    """One task's rows as arrays over its items."""
    index_by_item = {item: n for n, item in enumerate(rows["item"].unique())}
    positions = rows["item"].map(index_by_item).to_numpy()
    first_row_per_item = rows.drop_duplicates("item")
    chance = rows.groupby("item", sort=False)["chance"].max()
    scores: dict[tuple[str, str], Floats] = {}
    choices: dict[tuple[str, str], list[Floats | None]] = {}
    for model, model_rows in rows.groupby("model", sort=True):
        variants = set(model_rows["variant"])
        for role, candidates in VARIANTS_BY_ROLE.items():
            variant = next((name for name in candidates if name in variants), None)
            if variant is None:
                continue
            chosen = model_rows[model_rows["variant"] == variant]
            if not _can_judge_variant(chosen, variant, variants):
                continue
            means = chosen.groupby(positions[rows.index.get_indexer(chosen.index)])["score"].mean()
            scores[str(model), role] = np.full(len(index_by_item), np.nan)
            scores[str(model), role][means.index.to_numpy()] = means.to_numpy()
            choices[str(model), role] = _choice_probabilities(chosen, index_by_item)
    answers = _TaskAnswerArrays(
        scores,
        choices,
        np.asarray(pd.factorize(first_row_per_item["cluster"])[0], dtype=np.int64),
        chance.to_numpy(dtype=float),
        {str(name): AskedModel(str(name), hashes.get(str(name))) for name in sorted(set(rows["model"]))},
    )
    return replace(answers, ability={name: a for name in answers.models if (a := _ability(answers, name)) > 0})


def _can_judge_variant(rows: pd.DataFrame, variant: str, variants: Collection[str]) -> bool:
    """Whether a model's answers in one variant can be judged as that; `variants` are all in which it was asked."""
    if schema.is_unreadable(rows).mean() > schema.MAX_UNREADABLE_SHARE:
        return False
    return variant != "default" or "cot" in variants or bool((rows["format"] == "choose").all())


def _choice_probabilities(rows: pd.DataFrame, index_by_item: Mapping[str, int]) -> list[Floats | None]:
    """Probabilities of the choices of each item, of its first repeat; None where it did not choose."""
    probabilities: list[Floats | None] = [None] * len(index_by_item)
    for item, form, response in zip(rows["item"], rows["format"], rows["response"], strict=True):
        if form != "choose" or not isinstance(response, str) or probabilities[index_by_item[item]] is not None:
            continue
        try:
            logprobs = np.array(json.loads(response), dtype=float)
        except (ValueError, TypeError):
            continue
        if logprobs.ndim == 1 and len(logprobs) > 1 and np.isfinite(logprobs).all():
            p = np.exp(logprobs - logprobs.max())
            probabilities[index_by_item[item]] = p / p.sum()
    return probabilities


def _ability(answers: _TaskAnswerArrays, model: str) -> float:
    """Accuracy with thoughts (else without) from 0 at chance to 1; 0 where it may be luck."""
    for role in ("with", "without"):
        scores = answers.scores.get((model, role))
        if scores is None or np.isfinite(scores).sum() < MIN_ITEMS:
            continue
        chance = float(np.nanmean(answers.chance)) if np.isfinite(answers.chance).any() else 0.0
        estimate = accuracy(scores, answers.design)
        # above chance implies that chance is below 1
        return (estimate.estimate - chance) / (1 - chance) if estimate.conf_low > chance else 0.0
    return 0.0


def _cot_error_reduction(answers: _TaskAnswerArrays) -> TaskBehaviour:
    models = answers.able_models("without", "with")
    if not models:
        return _refused_no_able_model("steps", "without and with thoughts that were not cut off")
    no_cot_sum, cot_scores = answers.weighted_scores(models, "without"), answers.weighted_scores(models, "with")
    no_cot_errors = sum(answers.ability[m.name] for m in models) - no_cot_sum
    ratio = answers.estimate_ratio(cot_scores - no_cot_sum, no_cot_errors, "the share of errors without thoughts")
    return answers.behaviour("steps", ratio, models)


def _fact_ratio(answers: _TaskAnswerArrays) -> TaskBehaviour:
    models = answers.able_models("without", "with", "fact")
    if not models:
        return _refused_no_able_model("fact", "without thoughts, with them, and with the fact")
    no_cot_sum, cot_scores, fact_sum = (answers.weighted_scores(models, role) for role in ("without", "with", "fact"))
    ratio = answers.estimate_ratio(cot_scores - no_cot_sum, fact_sum - no_cot_sum, "what the fact in the prompt brings")
    return answers.behaviour("fact", ratio, models)


def _entropy(answers: _TaskAnswerArrays) -> TaskBehaviour:
    models = answers.able_models("without", "with")
    entropy, weights = np.zeros(len(answers.cluster)), np.zeros(len(answers.cluster))
    for model in models:
        weight = answers.ability[model.name]
        for i, p in enumerate(answers.choices[model.name, "without"]):
            if p is not None and answers.scores[model.name, "with"][i] == 1:
                weights[i] += weight
                # of 1, whatever the number of choices; a probability of zero adds nothing
                entropy[i] -= weight * (float((p * np.log(np.maximum(p, 1e-300))).sum()) / math.log(len(p)))
    if not weights.any():
        return _refused_no_able_model("entropy", "to choose without thoughts and was right with them")
    return answers.behaviour("entropy", answers.estimate_ratio(entropy, weights, "the share of right answers"), models)


def _numbers(answers: _TaskAnswerArrays) -> TaskBehaviour:
    models = answers.able_models("with", "numbers")
    total_variation, weights = np.zeros(len(answers.cluster)), np.zeros(len(answers.cluster))
    for model in models:
        pairs = zip(answers.choices[model.name, "with"], answers.choices[model.name, "numbers"], strict=True)
        for i, (original_p, changed_p) in enumerate(pairs):
            if original_p is not None and changed_p is not None and len(original_p) == len(changed_p):
                weights[i] += answers.ability[model.name]
                # total variation between the two distributions over the choices
                total_variation[i] += answers.ability[model.name] * float(np.abs(original_p - changed_p).sum()) / 2
    if (weights > 0).sum() < MIN_ITEMS:
        return TaskBehaviour("numbers", _few_items(int((weights > 0).sum())), ())
    total_variation[weights == 0] = np.nan
    ratio = answers.estimate_ratio(total_variation, weights, "the share of questions with numbers")
    return answers.behaviour("numbers", ratio, models)


def _slope_on_model_size(answers: _TaskAnswerArrays, sizes: Mapping[str, float]) -> TaskBehaviour:
    names = [m for (m, role) in answers.scores if role == "without" and m in sizes]
    x = np.log10([sizes[name] for name in names])
    n_sizes = len(set(x))
    if n_sizes < _MIN_MODEL_SIZES or x.max() - x.min() < math.log10(_MIN_PARAMETER_RATIO) or not answers.ability:
        remark_values = {"n": n_sizes, "least": _MIN_MODEL_SIZES, "span": _MIN_PARAMETER_RATIO}
        return TaskBehaviour("size", refused(Remark(Reason.FEW_MODEL_SIZES, remark_values)), ())
    y = np.array([answers.scores[name, "without"] for name in names])
    items_scored_by_all = np.isfinite(y).all(axis=0)
    if items_scored_by_all.sum() < MIN_ITEMS:
        return TaskBehaviour("size", _few_items(int(items_scored_by_all.sum())), ())
    smallest_accuracy = y[int(np.argmin(x))][items_scored_by_all].mean()
    if smallest_accuracy > _MAX_SMALL_MODEL_ACC:
        return TaskBehaviour("size", refused(Remark(Reason.SOLVED_BY_SMALLEST, {"share": 100 * smallest_accuracy})), ())
    # an item's least-squares slope over the models; their mean is the task's
    slope = ((x - x.mean())[:, None] * y).sum(axis=0) / ((x - x.mean()) ** 2).sum()
    estimate = mean_estimate(answers.design.fit(slope))
    return TaskBehaviour("size", estimate, tuple(answers.models[n] for n in names), max(answers.ability.values()))


def _refused_no_able_model(name: str, required_variants: str) -> TaskBehaviour:
    return TaskBehaviour(name, refused(Remark(Reason.NO_ABLE_MODEL, {"ways": required_variants})), ())


def _few_items(n: int) -> Estimate:
    return refused(Remark(Reason.FEW_ITEMS, {"n": n, "least": MIN_ITEMS}), n_items=n)

"""Evidence from how models answer: what thoughts, facts, other numbers and size change, task by task.

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
what luck may bring it is left out, above that it weighs by its ability. Where more than `capgap.schema.GUARD` of its
answers in one way are cut off or cannot be read, it was not asked in that way: longer thoughts are cut off more often,
and would seem to help less.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.classification.behaviour_links import linked
from capgap.classification.evidence import Evidence, EvidenceModel
from capgap.stats import Design, Estimate, accuracy, mean_estimate, ratio_of_means, refused

__all__ = ["MIN_ITEMS", "Behaviour", "behaviour_evidence", "behaviours"]

MIN_ITEMS = 10
"""Below so many items of a task its models' answers are no evidence."""
VARIANTS = {"without": ("direct", "default"), "with": ("cot",), "fact": ("fact",), "numbers": ("numbers",)}
"""Role → the variants that can play it, the first that was asked."""
_ROOM = "the share of errors without thoughts"
_SATURATED = 0.9  # a task that the smallest model solves can't grow with size
_SPAN = 3.0  # least ratio of the largest to the smallest number of parameters
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Behaviour:
    """One behaviour on one task."""

    name: str
    """``steps``, ``fact``, ``entropy``, ``numbers`` or ``size``; see `capgap.classification.behaviour_links`."""
    estimate: Estimate
    """With its 95 % interval; refused, with the reason, where the answers cannot say it."""
    models: tuple[EvidenceModel, ...]
    """Who was able, and asked in the way that it needs."""
    ability: float = 1.0
    """How able they are, weighted by ability, above 0 to 1."""

    @property
    def evidence(self) -> Evidence | None:
        """Its word on the task; None where it was refused."""
        return linked(self.name, self.estimate, self.models, ability=self.ability)


@dataclass(frozen=True)
class _TaskAnswers:
    """The answers to one task."""

    scores: Mapping[tuple[str, str], Floats]
    """(model, role) → score of each item, shape (items,), NaN where there is none."""
    choices: Mapping[tuple[str, str], Sequence[Floats | None]]
    """(model, role) → probabilities of the choices of each item, where it chose among them."""
    cluster: NDArray[np.int64]
    """Cluster of each item."""
    chance: Floats
    """Expected score of a guess, NaN where unknown."""
    models: Mapping[str, EvidenceModel]
    """Name → who it is."""
    ability: Mapping[str, float] = field(default_factory=dict)
    """Name → ability of the models that are better than chance, above 0 to 1."""

    def who(self, *roles: str) -> tuple[EvidenceModel, ...]:
        """The able models that were asked in all these ways."""
        return tuple(self.models[m] for m in self.ability if all((m, role) in self.scores for role in roles))

    def total(self, who: Sequence[EvidenceModel], role: str) -> Floats:
        """Sum of models' scores on each item, each times its ability."""
        return np.asarray(np.sum([self.ability[w.name] * self.scores[w.name, role] for w in who], axis=0))

    def told(self, name: str, estimate: Estimate, who: Sequence[EvidenceModel]) -> Behaviour:
        """A behaviour of these models."""
        weights = [self.ability[w.name] for w in who]
        return Behaviour(name, estimate, tuple(who), sum(a * a for a in weights) / sum(weights))


def behaviour_evidence(outcomes: pd.DataFrame, models: pd.DataFrame | None = None) -> dict[str, tuple[Evidence, ...]]:
    """Task → the evidence of its models' behaviours, for `classify_items`.

    Parameters
    ----------
    outcomes
        An `outcomes` table; only primary metrics count.
    models
        A `models` table: sizes, and the hashes by which a compared model is recognised later.
    """
    found = behaviours(outcomes, models)
    return {task: tuple(e for b in several if (e := b.evidence) is not None) for task, several in found.items()}


def behaviours(outcomes: pd.DataFrame, models: pd.DataFrame | None = None) -> dict[str, tuple[Behaviour, ...]]:
    """Task → its behaviours, those that were refused among them.

    Parameters
    ----------
    outcomes, models
        See `behaviour_evidence`.
    """
    primary = outcomes[outcomes["primary"].fillna(False).astype(bool)]
    sizes, hashes = _known(models)
    result: dict[str, tuple[Behaviour, ...]] = {}
    for task, rows in primary.groupby("task", sort=False):
        answers = _answers(rows, hashes)
        result[str(task)] = (
            _steps(answers),
            _fact(answers),
            _entropy(answers),
            _numbers(answers),
            _size(answers, sizes),
        )
    return result


def _known(models: pd.DataFrame | None) -> tuple[dict[str, float], dict[str, str]]:
    """Parameters and hash of each model, where they are known."""
    if models is None:
        return {}, {}
    table = schema.validate(models, schema.MODELS)
    sizes = {str(m): float(n) for m, n in zip(table["model"], table["n_params"], strict=True) if pd.notna(n) and n > 0}
    hashes = {str(m): str(h) for m, h in zip(table["model"], table["weights_hash"], strict=True) if pd.notna(h)}
    return sizes, hashes


def _answers(rows: pd.DataFrame, hashes: Mapping[str, str]) -> _TaskAnswers:
    """One task's rows as arrays over its items."""
    items = {item: n for n, item in enumerate(rows["item"].unique())}
    at = rows["item"].map(items).to_numpy()
    first = rows.drop_duplicates("item")
    chance = rows.groupby("item", sort=False)["chance"].max()
    scores: dict[tuple[str, str], Floats] = {}
    choices: dict[tuple[str, str], list[Floats | None]] = {}
    for model, own in rows.groupby("model", sort=True):
        asked = set(own["variant"])
        for role, names in VARIANTS.items():
            variant = next((name for name in names if name in asked), None)
            if variant is None:
                continue
            chosen = own[own["variant"] == variant]
            if not _fair(chosen, variant, asked):
                continue
            means = chosen.groupby(at[rows.index.get_indexer(chosen.index)])["score"].mean()
            scores[str(model), role] = np.full(len(items), np.nan)
            scores[str(model), role][means.index.to_numpy()] = means.to_numpy()
            choices[str(model), role] = _probabilities(chosen, items)
    answers = _TaskAnswers(
        scores,
        choices,
        np.asarray(pd.factorize(first["cluster"])[0], dtype=np.int64),
        chance.to_numpy(dtype=float),
        {str(name): EvidenceModel(str(name), hashes.get(str(name))) for name in sorted(set(rows["model"]))},
    )
    return replace(answers, ability={name: a for name in answers.models if (a := _ability(answers, name)) > 0})


def _fair(chosen: pd.DataFrame, variant: str, asked: Collection[str]) -> bool:
    """Whether a model's answers in one way can be judged as that."""
    if chosen["status"].isin(["unparsed", "truncated"]).mean() > schema.MAX_UNREADABLE_SHARE:
        return False
    return variant != "default" or "cot" in asked or bool((chosen["format"] == "choose").all())


def _probabilities(rows: pd.DataFrame, items: Mapping[str, int]) -> list[Floats | None]:
    """Probabilities of the choices of each item, of its first repeat; None where it did not choose."""
    found: list[Floats | None] = [None] * len(items)
    for item, form, response in zip(rows["item"], rows["format"], rows["response"], strict=True):
        if form != "choose" or not isinstance(response, str) or found[items[item]] is not None:
            continue
        try:
            logprobs = np.array(json.loads(response), dtype=float)
        except (ValueError, TypeError):
            continue
        if logprobs.ndim == 1 and len(logprobs) > 1 and np.isfinite(logprobs).all():
            p = np.exp(logprobs - logprobs.max())
            found[items[item]] = p / p.sum()
    return found


def _ability(answers: _TaskAnswers, model: str) -> float:
    """Accuracy with thoughts (else without) from 0 at chance to 1; 0 where it may be luck."""
    for role in ("with", "without"):
        y = answers.scores.get((model, role))
        if y is None or np.isfinite(y).sum() < MIN_ITEMS:
            continue
        chance = float(np.nanmean(answers.chance)) if np.isfinite(answers.chance).any() else 0.0
        found = accuracy(y, _design(answers))
        # above chance implies that chance is below 1
        return (found.estimate - chance) / (1 - chance) if found.conf_low > chance else 0.0
    return 0.0


def _design(answers: _TaskAnswers) -> Design:
    return Design.of(np.zeros(len(answers.cluster)), answers.cluster)


def _ratio(answers: _TaskAnswers, numerator: Floats, denominator: Floats, name: str) -> Estimate:
    """A ratio of means over the items of which both parts are known."""
    keep = np.isfinite(numerator) & np.isfinite(denominator)
    if keep.sum() < MIN_ITEMS:
        return refused(f"{int(keep.sum())} items are too few", n_items=int(keep.sum()))
    return ratio_of_means(_design(answers).fit(np.column_stack([numerator, denominator])), denominator=name)


def _steps(answers: _TaskAnswers) -> Behaviour:
    who = answers.who("without", "with")
    if not who:
        return _none("steps", "no able model was asked without and with thoughts (that were not cut off)")
    without, thinking = answers.total(who, "without"), answers.total(who, "with")
    room = sum(answers.ability[w.name] for w in who) - without
    return answers.told("steps", _ratio(answers, thinking - without, room, _ROOM), who)


def _fact(answers: _TaskAnswers) -> Behaviour:
    who = answers.who("without", "with", "fact")
    if not who:
        return _none("fact", "no able model was asked without thoughts, with them, and with the fact")
    without = answers.total(who, "without")
    thinking, told = answers.total(who, "with") - without, answers.total(who, "fact") - without
    return answers.told("fact", _ratio(answers, thinking, told, "what the fact in the prompt brings"), who)


def _entropy(answers: _TaskAnswers) -> Behaviour:
    who = answers.who("without", "with")
    entropy, right = np.zeros(len(answers.cluster)), np.zeros(len(answers.cluster))
    for w in who:
        for i, p in enumerate(answers.choices[w.name, "without"]):
            if p is not None and answers.scores[w.name, "with"][i] == 1:
                right[i] += answers.ability[w.name]
                bits = float((p * np.log(np.maximum(p, 1e-300))).sum()) / math.log(len(p))
                entropy[i] -= answers.ability[w.name] * bits
    if not right.any():
        return _none("entropy", "no able model chose without thoughts and was right with them")
    return answers.told("entropy", _ratio(answers, entropy, right, "the share of right answers"), who)


def _numbers(answers: _TaskAnswers) -> Behaviour:
    who = answers.who("with", "numbers")
    moved, asked = np.zeros(len(answers.cluster)), np.zeros(len(answers.cluster))
    for w in who:
        pairs = zip(answers.choices[w.name, "with"], answers.choices[w.name, "numbers"], strict=True)
        for i, (before, after) in enumerate(pairs):
            if before is not None and after is not None and len(before) == len(after):
                asked[i] += answers.ability[w.name]
                moved[i] += answers.ability[w.name] * float(np.abs(before - after).sum()) / 2
    if (asked > 0).sum() < MIN_ITEMS:
        return _none("numbers", "too few questions with numbers were asked with others")
    moved[asked == 0] = np.nan
    return answers.told("numbers", _ratio(answers, moved, asked, "the share of questions with numbers"), who)


def _size(answers: _TaskAnswers, sizes: Mapping[str, float]) -> Behaviour:
    names = [m for (m, role) in answers.scores if role == "without" and m in sizes]
    x = np.log10([sizes[name] for name in names])
    if len(set(x)) < 3 or x.max() - x.min() < math.log10(_SPAN) or not answers.ability:
        return _none("size", f"three sizes that span a factor of {_SPAN:g} are needed, one of them able")
    y = np.array([answers.scores[name, "without"] for name in names])
    keep = np.isfinite(y).all(axis=0)
    if keep.sum() < MIN_ITEMS:
        return _none("size", f"{int(keep.sum())} items are too few")
    if y[int(np.argmin(x))][keep].mean() > _SATURATED:
        return _none("size", "the smallest model solves it already")
    slope = ((x - x.mean())[:, None] * y).sum(axis=0) / ((x - x.mean()) ** 2).sum()
    estimate = mean_estimate(_design(answers).fit(slope))
    return Behaviour("size", estimate, tuple(answers.models[n] for n in names), max(answers.ability.values()))


def _none(name: str, why: str) -> Behaviour:
    return Behaviour(name, refused(why), ())

"""Right choice, taken choice and margins from the log-probabilities in lm-eval's samples.

A samples file does not say outright what the choices and the right one were: it has the continuations with their
delimiter, and the target as text that may be a place or the choice itself. Every reading is therefore held against
the accuracies in the same records, and what contradicts them is not used: a margin is right, or null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from capgap.errors import TableError
from capgap.importers.lm_eval_samples import LmEvalSample
from capgap.importers.reading import parse_json
from capgap.importers.values import as_json, text_or_list

__all__ = ["ItemChoices", "RankedMetric", "read_choices"]

_ACCURACY_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""Metrics that are 1 where the highest-ranked choice is right, and 0 otherwise."""


@dataclass(frozen=True)
class RankedMetric:
    """What a metric's ranking says about one item."""

    prediction: str | None
    """The choice taken."""
    margin: float
    """Best choice over the next."""
    margin_target: float
    """Right choice over the best wrong one; not a number where the right one is not known."""


@dataclass(frozen=True)
class ItemChoices:
    """The choices of one item."""

    texts: tuple[str, ...]
    """As they are read, without the delimiter; empty where the file does not tell them apart."""
    logprobs: np.ndarray
    """Log-probability of each, shape (choices,)."""
    unconditional_logprobs: np.ndarray | None
    """Log-probability of each without the question, shape (choices,), where it was asked."""
    gold: tuple[int, ...]
    """Indices of the right ones; empty where they are not known."""
    lengths_known: bool
    """Whether `texts` are exactly what lm-eval divided by the length of."""

    @property
    def response(self) -> str:
        """The log-probabilities as JSON, as capgap's own runs write them."""
        return as_json([round(float(value), 6) for value in self.logprobs])

    @property
    def target_logprob(self) -> float:
        """Log-probability of the right choice; not a number where it is not known."""
        return float(self.logprobs[list(self.gold)].max()) if self.gold else float("nan")

    @property
    def target(self) -> str | None:
        """The right choice as text; several as a JSON list."""
        return text_or_list([self.texts[index] for index in self.gold] if self.texts else [])

    def rank_by_metric(self, metric: str, value: float | None) -> RankedMetric | None:
        """The ranking of this metric; None where it contradicts the metric's own value, or is not known."""
        ranked = self._ranking_scores(metric)
        if ranked is None:
            return None
        chosen = int(np.argmax(ranked))
        if self.gold and metric in _ACCURACY_METRICS and value in (0.0, 1.0) and (chosen in self.gold) != bool(value):
            return None
        ordered = np.sort(ranked)
        wrong_scores = np.delete(ranked, list(self.gold))
        has_target = self.gold and len(wrong_scores)
        return RankedMetric(
            prediction=self.texts[chosen] if self.texts else None,
            margin=float(ordered[-1] - ordered[-2]) if len(ordered) > 1 else float("nan"),
            margin_target=float(ranked[list(self.gold)].max() - wrong_scores.max()) if has_target else float("nan"),
        )

    def _ranking_scores(self, metric: str) -> np.ndarray | None:
        """What the metric ranks the choices by, shape (choices,); None where it is not known or not finite."""
        ranked = self.logprobs
        if metric == "acc_mutual_info":
            ranked = ranked - (np.nan if self.unconditional_logprobs is None else self.unconditional_logprobs)
        elif metric in ("acc_norm", "acc_bytes"):
            sizes = [len(t) if metric == "acc_norm" else len(t.encode("utf-8", "replace")) for t in self.texts]
            if not self.lengths_known or not sizes or not all(sizes):
                return None
            ranked = ranked / np.array(sizes, dtype=float)
        return ranked if np.isfinite(ranked).all() else None

    def check_accuracies(self, gold: tuple[int, ...], sample: LmEvalSample) -> list[bool]:
        """Of each accuracy of the sample, whether it is what it would be if these were the right choices."""
        values = {metric: sample.metrics.get(metric) for metric in _ACCURACY_METRICS}
        ranked = {metric: self._ranking_scores(metric) for metric, value in values.items() if value in (0.0, 1.0)}
        return [(int(np.argmax(r)) in gold) == bool(values[metric]) for metric, r in ranked.items() if r is not None]


GoldIndexReader = Callable[[LmEvalSample, ItemChoices], tuple[int, ...]]
"""A way to read the target of a sample: indices of the right choices, empty where it cannot be read so."""


def read_choices(samples: Sequence[LmEvalSample], delimiter: str) -> list[ItemChoices]:
    """The choices of each sample of one task, the right ones where the task's own accuracies confirm them.

    Parameters
    ----------
    samples
        All with log-probabilities of several continuations.
    delimiter
        What lm-eval put before each choice.
    """
    choices = [_choices(sample, delimiter) for sample in samples]
    golds = _confirmed_golds(samples, choices)
    return [replace(item, gold=gold) for item, gold in zip(choices, golds, strict=True)]


def _choices(sample: LmEvalSample, delimiter: str) -> ItemChoices:
    logprobs = np.array(sample.logprobs, dtype=float)
    contexts, continuations = sample.contexts, sample.continuations
    n_choices = len(logprobs) // 2
    unconditional_logprobs = None
    # For acc_mutual_info lm-eval asks every choice once more without its question, after all the others.
    if "acc_mutual_info" in sample.metrics and len(logprobs) == 2 * n_choices:
        logprobs, unconditional_logprobs = logprobs[:n_choices], logprobs[n_choices:]
        contexts, continuations = contexts[:n_choices], continuations[:n_choices]
    if continuations and len(set(contexts)) == 1:
        texts = tuple(text.removeprefix(delimiter) for text in continuations)
        return ItemChoices(texts, logprobs, unconditional_logprobs, (), lengths_known=True)
    # Several contexts with one continuation: the choices are inside the contexts, and where they end is not told.
    return ItemChoices(_distinct_endings(contexts), logprobs, unconditional_logprobs, (), lengths_known=False)


def _distinct_endings(contexts: tuple[str, ...]) -> tuple[str, ...]:
    """What differs at the end of texts that begin alike, from the last space before it."""
    if len(contexts) < 2 or len(set(contexts)) < len(contexts):
        return ()
    min_text, max_text = min(contexts), max(contexts)
    n_shared = next((n for n, (a, b) in enumerate(zip(min_text, max_text, strict=False)) if a != b), len(min_text))
    start = max(min_text.rfind(" ", 0, n_shared), min_text.rfind("\n", 0, n_shared)) + 1
    return tuple(text[start:] for text in contexts)


def _confirmed_golds(samples: Sequence[LmEvalSample], choices: Sequence[ItemChoices]) -> list[tuple[int, ...]]:
    """The right choices of each sample, by the readings of the targets that no accuracy of the task contradicts."""
    gold_index_readers: tuple[GoldIndexReader, ...] = (_gold_by_index, _gold_by_text, _gold_by_exclusion)
    confirmed_golds = []
    for read_target in gold_index_readers:
        golds = [read_target(sample, item) for sample, item in zip(samples, choices, strict=True)]
        gold_triples = zip(golds, choices, samples, strict=True)
        golds_agree = [agrees for gold, item, s in gold_triples if gold for agrees in item.check_accuracies(gold, s)]
        if golds_agree and all(golds_agree):
            confirmed_golds.append(golds)
    # Two readings that both agree with every accuracy count only where they say the same.
    gold_candidates = [{golds[n] for golds in confirmed_golds if golds[n]} for n in range(len(samples))]
    return [next(iter(golds)) if len(golds) == 1 else () for golds in gold_candidates]


def _gold_by_index(sample: LmEvalSample, choices: ItemChoices) -> tuple[int, ...]:
    """The target as an index, or a list of indices, counted from 0."""
    target = sample.target
    if isinstance(target, str):
        try:
            target = parse_json(target) if len(target) < 1_000 else None
        except TableError:
            return ()
    indices = target if isinstance(target, list) else [target]
    if not indices or any(isinstance(index, bool) or not isinstance(index, int) for index in indices):
        return ()
    n = len(choices.logprobs)
    return tuple(sorted(set(indices))) if all(0 <= index < n for index in indices) else ()


def _gold_by_text(sample: LmEvalSample, choices: ItemChoices) -> tuple[int, ...]:
    """The target as the text of a choice, or as a list of such texts."""
    targets: Any = sample.target if isinstance(sample.target, list) else [sample.target]
    texts = choices.texts
    if not targets or not all(isinstance(target, str) and target in texts for target in targets):
        return ()
    return tuple(sorted({texts.index(target) for target in targets}))


def _gold_by_exclusion(sample: LmEvalSample, choices: ItemChoices) -> tuple[int, ...]:
    """Of two contexts, the likelier one where acc is 1, the other where it is 0."""
    value, logprobs = sample.metrics.get("acc"), choices.logprobs
    if choices.lengths_known or len(logprobs) != 2 or value not in (0.0, 1.0) or not np.isfinite(logprobs).all():
        return ()
    chosen = int(np.argmax(logprobs))
    return (chosen,) if value else (1 - chosen,)

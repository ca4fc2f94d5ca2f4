"""Text evidence: log-odds of reasoning from the text of an item, with the reasons."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capgap.classification.coefficients import TextModelCoefficients
from capgap.classification.evidence import Evidence, EvidenceReason, ItemText
from capgap.classification.features import FEATURES, ItemFeatures, item_features, table
from capgap.classification.reason_texts import GROUPS, describe_group
from capgap.errors import TableError

__all__ = ["TextModel", "measure_text_novelty"]

N_REASONS = 5
# A text of which less than this share of words is known is unlike the corpus; at none of them nothing can be said.
_MIN_KNOWN_SHARE = 0.4
_LONG_TEXT = 1000.0
_UNKNOWN_TEXT_SD = 3.0  # of the log-odds of a text of which nothing is known
_PUNCTUATION = frozenset(".,?!;:'\"’“”-–—()…`")
Floats = NDArray[np.float64]


class TextModel:
    """Logistic regression on an item's features and words, calibrated; needs no language model and no network."""

    def __init__(self, coefficients: TextModelCoefficients) -> None:
        self.coefficients = coefficients
        # features x groups: 1 where a feature is of a group
        self._group = np.array([[float(feature.group == group) for group in GROUPS] for feature in FEATURES])

    @classmethod
    def read(cls, path: str | Path) -> "TextModel":
        """The model of a file that `capgap.classification.fitting` wrote.

        Raises
        ------
        TableError
            There is no such file, or it holds something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TableError(f"{path}: cannot be read ({error}). Expected coefficients of a text model.") from error
        return cls(TextModelCoefficients.from_json(text, str(path)))

    @classmethod
    @cache
    def load_shipped_model(cls) -> "TextModel":
        """The model that comes with capgap, read once."""
        return cls.read(Path(__file__).with_name("text_model.json"))

    def raw_logits(self, feature_sets: Sequence[ItemFeatures]) -> Floats:
        """Log-odds before calibration, exactly those of the fitted regression; one for each reading."""
        return self._parts(feature_sets)[0]

    def evidence(self, questions: Sequence[ItemText]) -> list[Evidence]:
        """What the text of each item says.

        Parameters
        ----------
        questions
            Items; any text in any script, empty texts too.

        Returns
        -------
        list of Evidence
            Of kind ``text``, in the order of the questions. Texts unlike the corpus have a log-odds near zero and a
            wide standard deviation.
        """
        feature_sets = [item_features(question) for question in questions]
        logits, by_group, raw = self._parts(feature_sets)
        calibrated_logits = self.coefficients.calibration.logit(logits)
        return [
            self._make_item_evidence(features, float(logits[n]), float(calibrated_logits[n]), by_group[n], raw[n])
            for n, features in enumerate(feature_sets)
        ]

    def _parts(self, feature_sets: Sequence[ItemFeatures]) -> tuple[Floats, Floats, Floats]:
        """Log-odds, their parts by group (items x groups), and the raw numbers (items x features)."""
        c = self.coefficients
        feature_logits = np.clip((table(feature_sets) - c.mean) / c.scale, -c.clip, c.clip) * c.weight
        get_word_weight = c.words.get
        word_logit_sums = [sum(get_word_weight(word, 0.0) for word in item.words) for item in feature_sets]
        raw = np.array([item.values for item in feature_sets], dtype=float).reshape(len(feature_sets), len(FEATURES))
        return feature_logits.sum(axis=1) + np.array(word_logit_sums) + c.intercept, feature_logits @ self._group, raw

    def _make_item_evidence(
        self, features: ItemFeatures, uncalibrated_logit: float, logit: float, by_group: Floats, raw: Floats
    ) -> Evidence:
        """One item's evidence; `by_group` has shape (groups,), `raw` (features,)."""
        c = self.coefficients
        corpus_novelty = measure_text_novelty(features, c.known)
        corpus_familiarity = 1.0 - corpus_novelty
        sd = math.hypot(c.family_sd, c.item_sd, _UNKNOWN_TEXT_SD * corpus_novelty)
        if corpus_novelty >= 1.0:
            return Evidence("text", 0.0, sd, (EvidenceReason("a text of which hardly a word is known here", 0.0),))
        # Weights of reasons are parts of the evidence's log-odds: calibration shrinks all of them alike.
        weight_scale = c.calibration.slope * corpus_familiarity
        uncapped_logit = c.calibration.slope * uncalibrated_logit + c.calibration.offset
        if abs(uncapped_logit) > abs(logit) > 0:
            weight_scale *= abs(logit / uncapped_logit)
        group_terms = [(abs(value), n, value) for n, value in enumerate(by_group.tolist())]
        word_terms = [(abs(w), word, w) for word in features.words if (w := c.words.get(word)) is not None]
        top_terms = [(size, GROUPS[n], value, True) for size, n, value in sorted(group_terms, reverse=True)[:N_REASONS]]
        top_terms += [(size, word, value, False) for size, word, value in sorted(word_terms, reverse=True)[:N_REASONS]]
        top_terms.sort(key=lambda scored_term: -scored_term[0])
        by_name = dict(zip(_FEATURE_NAMES, raw.tolist(), strict=True))
        reasons = [
            EvidenceReason(describe_group(name, by_name) if is_group else f'the word "{name}"', weight_scale * value)
            for _, name, value, is_group in top_terms[:N_REASONS]
        ]
        # Words that mean another thing in a family do so in all its items: that part of the error is theirs in common.
        family_variance_share = c.family_sd**2 / sd**2
        return Evidence("text", logit * corpus_familiarity, sd, tuple(reasons), shared=family_variance_share)


_FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def measure_text_novelty(features: ItemFeatures, known_words: frozenset[str]) -> float:
    """Novelty of a text beside the corpus, from 0 (alike) to 1 (nothing of it was ever seen).

    It grows where fewer than 40 % of the words, numbers and signs are known, where there are fewer than three of
    them, and where there are more than a thousand.
    """
    counted_words = [(word, n) for word, n in features.words.items() if word not in _PUNCTUATION]
    total = sum(n for _, n in counted_words)
    if total == 0:
        return 1.0
    share = sum(n for word, n in counted_words if word in known_words) / total
    unknown_word_novelty = max(0.0, 1.0 - share / _MIN_KNOWN_SHARE)
    short_text_novelty = max(0.0, 1.0 - total / 3.0)
    long_text_novelty = min(0.8, max(0.0, math.log(total / _LONG_TEXT) / math.log(50.0))) if total > _LONG_TEXT else 0.0
    return max(unknown_word_novelty, short_text_novelty, long_text_novelty)

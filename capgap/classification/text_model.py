"""Text evidence: log-odds of reasoning from the text of an item, with the reasons."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capgap.classification.coefficients import Coefficients
from capgap.classification.evidence import Evidence, EvidenceReason, ItemText
from capgap.classification.features import FEATURES, ItemFeatures, item_features, table
from capgap.classification.reason_texts import GROUPS, in_words
from capgap.errors import TableError

__all__ = ["TextModel", "strangeness"]

N_REASONS = 5
# A text of which less than this share of words is known is unlike the corpus; at none of them nothing can be said.
_KNOWN_ENOUGH = 0.4
_LONG = 1000.0
_UNKNOWN_SD = 3.0  # of the log-odds of a text of which nothing is known
_MARKS = frozenset(".,?!;:'\"’“”-–—()…`")
Floats = NDArray[np.float64]


class TextModel:
    """Logistic regression on an item's features and words, calibrated; needs no language model and no network."""

    def __init__(self, coefficients: Coefficients) -> None:
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
        return cls(Coefficients.from_json(text, str(path)))

    @classmethod
    @cache
    def shipped(cls) -> "TextModel":
        """The model that comes with capgap, read once."""
        return cls.read(Path(__file__).with_name("text_model.json"))

    def raw_logits(self, readings: Sequence[ItemFeatures]) -> Floats:
        """Log-odds before calibration, exactly those of the fitted regression; one for each reading."""
        return self._parts(readings)[0]

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
        readings = [item_features(question) for question in questions]
        logits, by_group, raw = self._parts(readings)
        calibrated = self.coefficients.calibration.logit(logits)
        return [
            self._evidence_of(reading, float(logits[n]), float(calibrated[n]), by_group[n], raw[n])
            for n, reading in enumerate(readings)
        ]

    def _parts(self, readings: Sequence[ItemFeatures]) -> tuple[Floats, Floats, Floats]:
        """Log-odds, their parts by group (items x groups), and the raw numbers (items x features)."""
        c = self.coefficients
        standard = np.clip((table(readings) - c.mean) / c.scale, -c.clip, c.clip) * c.weight
        weight_of = c.words.get
        of_words = [sum(weight_of(word, 0.0) for word in reading.words) for reading in readings]
        raw = np.array([reading.values for reading in readings], dtype=float).reshape(len(readings), len(FEATURES))
        return standard.sum(axis=1) + np.array(of_words) + c.intercept, standard @ self._group, raw

    def _evidence_of(
        self, reading: ItemFeatures, uncalibrated: float, logit: float, by_group: Floats, raw: Floats
    ) -> Evidence:
        """One item's evidence; `by_group` has shape (groups,), `raw` (features,)."""
        c = self.coefficients
        strange = strangeness(reading, c.known)
        trust = 1.0 - strange
        sd = math.hypot(c.family_sd, c.item_sd, _UNKNOWN_SD * strange)
        if strange >= 1.0:
            return Evidence("text", 0.0, sd, (EvidenceReason("a text of which hardly a word is known here", 0.0),))
        # Weights of reasons are parts of the evidence's log-odds: calibration shrinks all of them alike.
        factor = c.calibration.slope * trust
        inner = c.calibration.slope * uncalibrated + c.calibration.offset
        if abs(inner) > abs(logit) > 0:
            factor *= abs(logit / inner)
        parts = [(abs(value), n, value) for n, value in enumerate(by_group.tolist())]
        of_words = [(abs(w), word, w) for word in reading.words if (w := c.words.get(word)) is not None]
        heaviest = [(size, GROUPS[n], value, True) for size, n, value in sorted(parts, reverse=True)[:N_REASONS]]
        heaviest += [(size, word, value, False) for size, word, value in sorted(of_words, reverse=True)[:N_REASONS]]
        heaviest.sort(key=lambda candidate: -candidate[0])
        by_name = dict(zip(_NAMES, raw.tolist(), strict=True))
        reasons = [
            EvidenceReason(in_words(name, by_name) if is_group else f'the word "{name}"', factor * value)
            for _, name, value, is_group in heaviest[:N_REASONS]
        ]
        # Words that mean another thing in a family do so in all its items: that part of the error is theirs in common.
        shared = c.family_sd**2 / sd**2
        return Evidence("text", logit * trust, sd, tuple(reasons), shared=shared)


_NAMES = tuple(feature.name for feature in FEATURES)


def strangeness(reading: ItemFeatures, known: frozenset[str]) -> float:
    """Novelty of a text beside the corpus, from 0 (alike) to 1 (nothing of it was ever seen).

    It grows where fewer than 40 % of the words, numbers and signs are known, where there are fewer than three of
    them, and where there are more than a thousand.
    """
    words: Counter[str] = reading.words
    counted = [(word, n) for word, n in words.items() if word not in _MARKS]
    total = sum(n for _, n in counted)
    if total == 0:
        return 1.0
    share = sum(n for word, n in counted if word in known) / total
    foreign = max(0.0, 1.0 - share / _KNOWN_ENOUGH)
    few = max(0.0, 1.0 - total / 3.0)
    long = min(0.8, max(0.0, math.log(total / _LONG) / math.log(50.0))) if total > _LONG else 0.0
    return max(foreign, few, long)

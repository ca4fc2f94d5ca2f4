"""Text evidence: the log-odds of reasoning from what stands in an item, with the reasons."""

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
_IGNORANT_SD = 3.0
_MARKS = frozenset(".,?!;:'\"’“”-–—()…`")


class TextModel:
    """Log-odds of reasoning for items, without any model or network."""

    def __init__(self, coefficients: Coefficients) -> None:
        self.coefficients = coefficients
        groups = {group: n for n, group in enumerate(GROUPS)}
        self._group = np.zeros((len(FEATURES), len(GROUPS)))
        for n, feature in enumerate(FEATURES):
            self._group[n, groups[feature.group]] = 1.0

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
    def shipped(cls) -> "TextModel":
        """The model that comes with capgap."""
        return _shipped()

    def raw_logits(self, readings: Sequence[ItemFeatures]) -> NDArray[np.float64]:
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
            self._one(reading, float(logits[n]), float(calibrated[n]), by_group[n], raw[n])
            for n, reading in enumerate(readings)
        ]

    def _parts(
        self, readings: Sequence[ItemFeatures]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log-odds, their parts by group (items x groups), and the raw numbers (items x features)."""
        c = self.coefficients
        standard = np.clip((table(readings) - c.mean) / c.scale, -c.clip, c.clip) * c.weight
        weight_of = c.words.get
        worded = [sum(weight_of(word, 0.0) for word in reading.words) for reading in readings]
        raw = np.array([reading.values for reading in readings], dtype=float).reshape(len(readings), len(FEATURES))
        return standard.sum(axis=1) + np.array(worded) + c.intercept, standard @ self._group, raw

    def _one(
        self,
        reading: ItemFeatures,
        before: float,
        logit: float,
        by_group: NDArray[np.float64],
        raw: NDArray[np.float64],
    ) -> Evidence:
        c = self.coefficients
        strange = strangeness(reading, c.known)
        trust = 1.0 - strange
        sd = math.hypot(c.family_sd, c.item_sd, _IGNORANT_SD * strange)
        if strange >= 1.0:
            return Evidence("text", 0.0, sd, (EvidenceReason("a text of which hardly a word is known here", 0.0),))
        # Weights of reasons are parts of what is told: what calibration takes off is taken off all of them alike.
        factor = c.calibration.slope * trust
        inner = c.calibration.slope * before + c.calibration.offset
        if abs(inner) > abs(logit) > 0:
            factor *= abs(logit / inner)
        parts = [(abs(value), n, value) for n, value in enumerate(by_group.tolist())]
        worded = [(abs(w), word, w) for word in reading.words if (w := c.words.get(word)) is not None]
        heaviest = sorted(parts, reverse=True)[:N_REASONS]
        said = [(size, GROUPS[n], value, True) for size, n, value in heaviest]
        said += [(size, word, value, False) for size, word, value in sorted(worded, reverse=True)[:N_REASONS]]
        said.sort(key=lambda one: -one[0])
        named: dict[str, float] = {}
        reasons = []
        for _, name, value, is_group in said[:N_REASONS]:
            if is_group and not named:
                named = dict(zip(_NAMES, raw.tolist(), strict=True))
            words = in_words(name, named) if is_group else f'the word "{name}"'
            reasons.append(EvidenceReason(words, factor * value))
        # Words that mean another thing in a family do so in all its items: that part of the error is theirs in common.
        shared = c.family_sd**2 / sd**2
        return Evidence("text", logit * trust, sd, tuple(reasons), shared=shared)


_NAMES = tuple(feature.name for feature in FEATURES)


def strangeness(reading: ItemFeatures, known: frozenset[str]) -> float:
    """How unlike the corpus a text is, from 0 (alike) to 1 (nothing of it was ever seen).

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


@cache
def _shipped() -> TextModel:
    return TextModel.read(Path(__file__).with_name("text_model.json"))

"""Text evidence: the log-odds of reasoning from what stands in an item, with its reasons; coefficients from a small JSON."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classify.evidence import Evidence, Question, Reason
from capgap.classify.features import FEATURES, Reading, read, table
from capgap.classify.reasons import GROUPS, in_words
from capgap.errors import BatteryError

__all__ = ["Calibration", "Coefficients", "TextModel", "strangeness"]

VERSION = 1
N_REASONS = 5
# A text of which less than this share of words is known is unlike the corpus; at none of them nothing can be said.
_KNOWN_ENOUGH = 0.4
_LONG = 1000.0
_IGNORANT_SD = 3.0
_MARKS = frozenset(".,?!;:'\"’“”-–—()…`")


@dataclass(frozen=True)
class Calibration:
    """Log-odds of the regression to a probability that holds for families that it has not seen.

    ``p = low + (1 - low - high) / (1 + exp(-(slope * x + offset)))``: however sure the text looks, some share of new
    kinds of items is of the other label.
    """

    slope: float
    offset: float
    low: float
    """Share of reasoning among items that look like nothing but knowledge."""
    high: float
    """Share of knowledge among items that look like nothing but reasoning."""

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of reasoning."""
        inner = 1.0 / (1.0 + np.exp(-np.clip(self.slope * logits + self.offset, -500.0, 500.0)))
        found: NDArray[np.float64] = self.low + (1.0 - self.low - self.high) * inner
        return found

    def logit(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same as log-odds."""
        p = self.probability(logits)
        found: NDArray[np.float64] = np.log(p) - np.log1p(-p)
        return found


@dataclass(frozen=True)
class Coefficients:
    """Everything that the fit found; what the JSON file holds."""

    mean: NDArray[np.float64]
    """Centre of each of `FEATURES` (family-balanced), after `table`."""
    scale: NDArray[np.float64]
    """Standard deviation of each, likewise."""
    weight: NDArray[np.float64]
    """Log-odds for one standard deviation."""
    clip: float
    """Standard deviations beyond which a feature counts no more."""
    words: dict[str, float]
    """Log-odds of a word that stands in the question."""
    intercept: float
    """Log-odds of an average item without any of the words."""
    calibration: Calibration
    """From the regression's log-odds to those that are told."""
    family_sd: float
    """Standard deviation of the calibrated log-odds between families of one label that the fit had not seen."""
    known: frozenset[str]
    """Words that several families use; a text with few of them is unlike anything seen."""
    about: dict[str, Any]
    """Date, corpus and settings of the fit."""

    def to_json(self) -> str:
        """The file's text."""
        features = [
            {"name": feature.name, "mean": float(m), "scale": float(s), "weight": float(w)}
            for feature, m, s, w in zip(FEATURES, self.mean, self.scale, self.weight, strict=True)
        ]
        data = {
            "version": VERSION,
            "about": self.about,
            "intercept": self.intercept,
            "calibration": asdict(self.calibration),
            "family_sd": self.family_sd,
            "clip": self.clip,
            "features": features,
            "words": dict(sorted(self.words.items())),
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        return text[:-2] + ',\n "known": ' + json.dumps(" ".join(sorted(self.known)), ensure_ascii=False) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Coefficients":
        """Read the file's text.

        Raises
        ------
        BatteryError
            It is no such file, of another version, or for other features.
        """
        again = "Refit it with `python -m capgap.classify.refit CORPUS`."
        try:
            data = json.loads(text)
            if data["version"] != VERSION or [f["name"] for f in data["features"]] != [f.name for f in FEATURES]:
                raise BatteryError(f"{where}: coefficients for other features than this version of capgap reads. {again}")
            numbers = {key: float(data[key]) for key in ("clip", "intercept", "family_sd")}
            calibration = Calibration(**{key: float(value) for key, value in data["calibration"].items()})
            columns = {k: np.array([float(f[k]) for f in data["features"]]) for k in ("mean", "scale", "weight")}
            words = {str(word): float(value) for word, value in data["words"].items()}
            known, about = frozenset(data["known"].split()), dict(data["about"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, BatteryError):
                raise
            raise BatteryError(f"{where}: not the coefficients of a text model ({error!r}). {again}") from error
        values = [*numbers.values(), *asdict(calibration).values(), *words.values(), *(v for column in columns.values() for v in column)]
        if not all(map(math.isfinite, values)) or (columns["scale"] <= 0).any() or numbers["family_sd"] < 0 or not _sound(calibration):
            raise BatteryError(f"{where}: a coefficient is not finite, or a scale is not above zero. {again}")
        return cls(**columns, **numbers, calibration=calibration, words=words, known=known, about=about)


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
        """The model of a file that `capgap.classify.fit` wrote.

        Raises
        ------
        BatteryError
            There is no such file, or it holds something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BatteryError(f"{path}: cannot be read ({error}). Expected coefficients of a text model.") from error
        return cls(Coefficients.from_json(text, str(path)))

    @classmethod
    def shipped(cls) -> "TextModel":
        """The model that comes with capgap."""
        return _shipped()

    def raw_logits(self, readings: Sequence[Reading]) -> NDArray[np.float64]:
        """Log-odds before calibration, exactly those of the fitted regression; one for each reading."""
        return self._parts(readings)[0]

    def evidence(self, questions: Sequence[Question]) -> list[Evidence]:
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
        readings = [read(question) for question in questions]
        logits, by_group, raw = self._parts(readings)
        calibrated = self.coefficients.calibration.logit(logits)
        return [
            self._one(reading, float(logits[n]), float(calibrated[n]), by_group[n], raw[n])
            for n, reading in enumerate(readings)
        ]

    def _parts(
        self, readings: Sequence[Reading]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log-odds, their parts by group (items x groups), and the raw numbers (items x features)."""
        c = self.coefficients
        standard = np.clip((table(readings) - c.mean) / c.scale, -c.clip, c.clip) * c.weight
        weight_of = c.words.get
        worded = [sum(weight_of(word, 0.0) for word in reading.words) for reading in readings]
        raw = np.array([reading.values for reading in readings], dtype=float).reshape(len(readings), len(FEATURES))
        return standard.sum(axis=1) + np.array(worded) + c.intercept, standard @ self._group, raw

    def _one(
        self, reading: Reading, before: float, logit: float, by_group: NDArray[np.float64], raw: NDArray[np.float64]
    ) -> Evidence:
        c = self.coefficients
        strange = strangeness(reading, c.known)
        trust = 1.0 - strange
        sd = math.hypot(c.family_sd, _IGNORANT_SD * strange)
        if strange >= 1.0:
            return Evidence("text", 0.0, sd, (Reason("a text of which hardly a word is known here", 0.0),))
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
            reasons.append(Reason(words, factor * value))
        return Evidence("text", logit * trust, sd, tuple(reasons))


def _sound(calibration: Calibration) -> bool:
    """Whether it keeps the order and gives probabilities."""
    return calibration.slope > 0 and min(calibration.low, calibration.high) > 0 and calibration.low + calibration.high < 1


_NAMES = tuple(feature.name for feature in FEATURES)


def strangeness(reading: Reading, known: frozenset[str]) -> float:
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

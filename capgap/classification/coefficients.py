"""The coefficients of the text model and the small JSON file that holds them."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classification.features import FEATURES
from capgap.errors import TableError

__all__ = ["LogitCalibration", "TextModelCoefficients"]

VERSION = 1
_FEATURE_KEYS = ("mean", "scale", "weight")
_SCALAR_KEYS = ("clip", "intercept", "family_sd", "item_sd")


@dataclass(frozen=True)
class LogitCalibration:
    """Calibration of the regression's log-odds to probabilities that hold for families that it has not seen.

    ``p = low + (1 - low - high) / (1 + exp(-(slope * x + offset)))``: however sure the text looks, some share of new
    kinds of items is of the other label.
    """

    slope: float
    offset: float
    low: float
    """Share of reasoning among items that look like nothing but knowledge."""
    high: float
    """Share of knowledge among items that look like nothing but reasoning."""

    @property
    def is_valid(self) -> bool:
        """Whether it keeps the order and gives probabilities."""
        return self.slope > 0 and min(self.low, self.high) > 0 and self.low + self.high < 1

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of reasoning for log-odds of any shape."""
        sigmoid_p = 1.0 / (1.0 + np.exp(-np.clip(self.slope * logits + self.offset, -500.0, 500.0)))
        return np.asarray(self.low + (1.0 - self.low - self.high) * sigmoid_p)

    def logit(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated log-odds."""
        p = self.probability(logits)
        return np.asarray(np.log(p) - np.log1p(-p))


@dataclass(frozen=True)
class TextModelCoefficients:
    """The fitted text model: what the JSON file holds."""

    mean: NDArray[np.float64]
    """Mean of each of `FEATURES` (family-balanced), after `table`; shape (features,)."""
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
    calibration: LogitCalibration
    """From the regression's log-odds to those of the labels."""
    family_sd: float
    """Standard deviation of the calibrated log-odds between families of one label that the fit had not seen."""
    item_sd: float
    """Standard deviation of the log-odds of items around the mean of their family."""
    known: frozenset[str]
    """Words that several families use; a text with few of them is unlike anything seen."""
    provenance: dict[str, Any]
    """Date, corpus and settings of the fit."""

    @property
    def is_valid(self) -> bool:
        """Whether all numbers are finite and in their ranges."""
        scalars = [self.clip, self.intercept, self.family_sd, self.item_sd, *asdict(self.calibration).values()]
        finite = all(map(math.isfinite, [*scalars, *self.words.values(), *self.mean, *self.scale, *self.weight]))
        positive = min(*self.scale, self.clip) > 0 and min(self.family_sd, self.item_sd) >= 0
        return finite and positive and self.calibration.is_valid

    def to_json(self) -> str:
        """The file's text."""
        columns = [getattr(self, key).tolist() for key in _FEATURE_KEYS]
        data = {
            "version": VERSION,
            "about": self.provenance,
            "intercept": self.intercept,
            "calibration": asdict(self.calibration),
            "family_sd": self.family_sd,
            "item_sd": self.item_sd,
            "clip": self.clip,
            "features": [
                {"name": feature.name, **dict(zip(_FEATURE_KEYS, values, strict=True))}
                for feature, *values in zip(FEATURES, *columns, strict=True)
            ],
            "words": dict(sorted(self.words.items())),
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        return text[:-2] + ',\n "known": ' + json.dumps(" ".join(sorted(self.known)), ensure_ascii=False) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "TextModelCoefficients":
        """Read the file's text.

        Parameters
        ----------
        text
            What stands in the file.
        source
            How messages begin, such as its path.

        Raises
        ------
        TableError
            It is no such file, of another version, or for other features.
        """
        remedy = "Refit it with `python -m capgap.classification.refit CORPUS`."
        try:
            data = json.loads(text)
            matches = data["version"] == VERSION and [f["name"] for f in data["features"]] == [f.name for f in FEATURES]
            numbers: dict[str, Any] = {key: float(data[key]) for key in _SCALAR_KEYS}
            numbers |= {key: np.array([float(feature[key]) for feature in data["features"]]) for key in _FEATURE_KEYS}
            coefficients = cls(
                **numbers,
                calibration=LogitCalibration(**{key: float(value) for key, value in data["calibration"].items()}),
                words={str(word): float(value) for word, value in data["words"].items()},
                known=frozenset(data["known"].split()),
                provenance=dict(data["about"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TableError(f"{source}: not the coefficients of a text model ({error!r}). {remedy}") from error
        if not matches:
            raise TableError(f"{source}: coefficients for other features than this version of capgap reads. {remedy}")
        if not coefficients.is_valid:
            raise TableError(f"{source}: a coefficient is not finite, or out of its range. {remedy}")
        return coefficients

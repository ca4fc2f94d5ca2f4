"""The coefficients of the text model and the small JSON file that holds them."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.classification.features import FEATURES
from capgap.errors import TableError

__all__ = ["Calibration", "Coefficients"]

VERSION = 1
_NUMBERS = ("clip", "intercept", "family_sd", "item_sd")


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

    @property
    def sound(self) -> bool:
        """Whether it keeps the order and gives probabilities."""
        return self.slope > 0 and min(self.low, self.high) > 0 and self.low + self.high < 1

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
    item_sd: float
    """Standard deviation of the log-odds of items around the mean of their family."""
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
            "item_sd": self.item_sd,
            "clip": self.clip,
            "features": features,
            "words": dict(sorted(self.words.items())),
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        return text[:-2] + ',\n "known": ' + json.dumps(" ".join(sorted(self.known)), ensure_ascii=False) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Coefficients":
        """Read the file's text.

        Parameters
        ----------
        text
            What stands in the file.
        where
            How messages begin, such as its path.

        Raises
        ------
        TableError
            It is no such file, of another version, or for other features.
        """
        again = "Refit it with `python -m capgap.classification.refit CORPUS`."
        try:
            data = json.loads(text)
            same = data["version"] == VERSION and [f["name"] for f in data["features"]] == [f.name for f in FEATURES]
            mean, scale, weight = (
                np.array([float(feature[key]) for feature in data["features"]]) for key in ("mean", "scale", "weight")
            )
            clip, intercept, family_sd, item_sd = (float(data[key]) for key in _NUMBERS)
            calibration = Calibration(**{key: float(value) for key, value in data["calibration"].items()})
            words = {str(word): float(value) for word, value in data["words"].items()}
            known, about = frozenset(data["known"].split()), dict(data["about"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TableError(f"{where}: not the coefficients of a text model ({error!r}). {again}") from error
        if not same:
            raise TableError(f"{where}: coefficients for other features than this version of capgap reads. {again}")
        numbers = [clip, intercept, family_sd, item_sd, *asdict(calibration).values(), *words.values()]
        finite = all(map(math.isfinite, [*numbers, *mean, *scale, *weight]))
        if not finite or min(*scale, clip) <= 0 or min(family_sd, item_sd) < 0 or not calibration.sound:
            raise TableError(f"{where}: a coefficient is not finite, or out of its range. {again}")
        return cls(
            mean=mean,
            scale=scale,
            weight=weight,
            clip=clip,
            words=words,
            intercept=intercept,
            calibration=calibration,
            family_sd=family_sd,
            item_sd=item_sd,
            known=known,
            about=about,
        )

"""Numbers that say how good a classifier is: its confusion of classes, and whether its confidence can be believed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Reliability(NamedTuple):
    """The images whose confidence falls into one bin."""

    images: int
    confidence: float
    """Mean probability of the class that was named."""
    accuracy: float
    """Share of them that were named rightly."""


def confusion_of(labels: NDArray[np.int64], named: NDArray[np.int64], *, classes: int) -> NDArray[np.int64]:
    """How often each class (row) was named as each (column)."""
    return np.bincount(labels * classes + named, minlength=classes * classes).reshape(classes, classes)


def reliability_of(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS) -> list[Reliability]:
    """Confidence beside accuracy, in bins of equal width, each open below and closed above; empty ones left out."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    inside = ((confidence[place == number], right[place == number]) for number in range(bins))
    return [Reliability(len(each), float(each.mean()), float(hits.mean())) for each, hits in inside if len(each)]


def calibration_error(reliability: list[Reliability]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, 0 to 1 (Guo et al. 2017)."""
    total = sum(each.images for each in reliability)
    return sum(each.images * abs(each.confidence - each.accuracy) for each in reliability) / total

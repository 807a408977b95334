"""From out-of-fold logits to probabilities that can be trusted: the temperature, and prediction sets with coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from gramlet_server.train import report
from gramlet_server.train.arrays import Floats, Labels

TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature."""
SHARPENED_FROM = 50
"""Fewer pictures never make a head more sure than its training did."""
PRIOR_DEVIATION = 0.5
"""Standard deviation of the prior of log T. It counts as much as one picture or two: a few pictures that are all
classified right would otherwise ask for a temperature of 0."""

EVIDENCE = 2.0
"""A temperature is kept if the gain of likelihood is so many times its standard error."""


@dataclass(frozen=True)
class Calibrated:
    """A temperature and what it does to out-of-fold logits.

    Attributes:
        temperature: Logits are divided by it.
        logits: (n, classes) of the pictures, each group divided by the temperature that the other groups give.
    """

    temperature: float
    logits: Floats


def calibrate(logits: Floats, labels: Labels, groups: Labels) -> Calibrated:
    """Fits a temperature, and keeps it only if it improves the likelihood of pictures that it was not fitted on.

    Args:
        logits: (n, classes) out-of-fold.
        labels: (n,).
        groups: (n,) groups for cross-fitting.
    """
    scaled = logits.copy()
    for group in np.unique(groups):
        others = groups != group
        if others.any():
            scaled[~others] /= fit_temperature(logits[others], labels[others])
    gains = report.losses(logits, labels) - report.losses(scaled, labels)
    if len(gains) < 2 or not gains.mean() > EVIDENCE * gains.std(ddof=1) / math.sqrt(len(gains)):
        return Calibrated(1.0, logits)
    return Calibrated(fit_temperature(logits, labels), scaled)


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The most probable temperature (Guo et al., ICML 2017), with a normal prior of its logarithm, in `TEMPERATURES`.

    Args:
        logits: (n, classes).
        labels: (n,).
    """

    def cost(log_temperature: float) -> float:
        likelihood = len(labels) * report.cross_entropy(logits / math.exp(log_temperature), labels)
        return likelihood + log_temperature**2 / (2 * PRIOR_DEVIATION**2)

    low = TEMPERATURES[0] if len(labels) >= SHARPENED_FROM else 1.0
    bounds = (math.log(low), math.log(TEMPERATURES[1]))
    return math.exp(optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def conformal_scores(probabilities: Floats, labels: Labels) -> Floats:
    """(n,) sorted nonconformity scores 1 - p(label) (Sadinle, Lei and Wasserman, JASA 2019) of out-of-fold pictures."""
    return np.sort(1 - probabilities[np.arange(len(labels)), labels])


def conformal_limit(scores: NDArray[Any], coverage: float) -> float:
    """The largest score of a plausible class: the quantile of the sorted scores (n,), 1 if there are too few of them.

    Args:
        scores: From `conformal_scores`.
        coverage: Above 0 and below 1.
    """
    # Rounding: 0.9 * 10 must be 9, not a little more.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def prediction_set(probabilities: NDArray[Any], scores: NDArray[Any], coverage: float) -> NDArray[np.bool_]:
    """(classes,) which classes are plausible: the right one is among them with probability `coverage` or more.

    The set is empty if no class is as probable as the right classes of the training pictures were. With too few scores
    for that coverage, every class is in the set.

    Args:
        probabilities: (classes,) of a picture.
        scores: From `conformal_scores`.
        coverage: Above 0 and below 1.
    """
    result: NDArray[np.bool_] = 1 - probabilities <= conformal_limit(scores, coverage)
    return result

"""What TrainService's Predict is asked, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gramlet.types import Array, Timing

TAIL = 0.1
"""A picture with this typicality or less is counted by `group_typicality`. Of pictures from the same source as the
training pictures, 10 % are."""
REFERENCE = 2_000
"""A typicality is computed from at most so many training pictures."""


@dataclass(frozen=True)
class ClassProbability:
    """A class and its calibrated probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class PredictOptions:
    """What Predict returns for each picture.

    Attributes:
        top_k: Classes.
        coverage: How often the right class is in the prediction set.
        heat_maps: Whether to return where the most probable class is seen.
        weights_digest: The only network that may be used; empty: the head's.
    """

    top_k: int = 5
    coverage: float = 0.9
    heat_maps: bool = False
    weights_digest: str = ""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first.

    Attributes:
        prediction_set: Plausible classes: the right one is among them as often as the asked coverage says, for pictures
            from the same source as the training pictures. Empty: no class is as probable as right classes usually are.
        typicality: Share of the training pictures that are as unlike the others as this picture, or more (a p-value).
            A picture with a low one, such as 0.05, is unlike all training pictures; its classes then mean little.
        heat_map: (height, width) float32 for the square of the picture that the network sees: positive where the most
            probable class is seen, negative where others are. None unless asked for.
        weights_digest: Of the network, on which the head was trained.
    """

    classes: tuple[ClassProbability, ...]
    timing: Timing = field(default_factory=Timing)
    prediction_set: tuple[str, ...] = ()
    typicality: float = 1.0
    heat_map: Array | None = field(default=None, repr=False, compare=False)
    weights_digest: str = ""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0].label

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.classes[0].probability

    def top(self, k: int) -> tuple[ClassProbability, ...]:
        """The k most probable classes, as far as the call asked for them."""
        return self.classes[:k]


@dataclass(frozen=True)
class GroupTypicality:
    """Whether pictures, taken together, come from the same source as the training pictures.

    Attributes:
        pictures: How many there are.
        atypical: How many of them have a typicality of `TAIL` or less.
        expected: How many would have, on average, if the source were the same.
        p_value: The probability of `atypical` or more of them, if the source were the same.
    """

    pictures: int
    atypical: int
    expected: float
    p_value: float


def group_typicality(typicality: Iterable[float], training_pictures: int) -> GroupTypicality:
    """Judges pictures of one source together, where one alone shows little.

    How many of them are in a tail of the training pictures has a beta-binomial distribution (Bates et al., Annals of
    Statistics 2023), which is exact if the pictures are independent and their classes are as frequent as in training.

    Args:
        typicality: Of each picture.
        training_pictures: How many the head was trained on. With fewer than 9 the p-value is 1.
    """
    values = list(typicality)
    count, reference = len(values), min(training_pictures, REFERENCE)
    tail = math.floor(TAIL * (reference + 1) + 1e-9)  # training pictures in it
    atypical = sum(value <= TAIL for value in values)
    p_value = 1.0
    if tail and atypical:
        log_terms = [_log_beta_binomial(k, count, tail, reference + 1 - tail) for k in range(atypical, count + 1)]
        p_value = min(1.0, math.fsum(map(math.exp, log_terms)))
    return GroupTypicality(count, atypical, TAIL * count, p_value)


def _log_beta_binomial(k: int, n: int, a: int, b: int) -> float:
    """The logarithm of P(K = k) for K of n, with a share that is Beta(a, b)."""
    binomial = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return binomial + _log_beta(k + a, n - k + b) - _log_beta(a, b)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

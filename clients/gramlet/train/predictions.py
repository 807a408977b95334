"""What TrainService's Predict is asked, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from gramlet.types import Array, Timing


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

"""What a descent is: an objective, how an optimizer steps down on it, and what it reports on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gramlet.feature.types import Objective
from gramlet.signatures import checks_calls
from gramlet.types import Array, Timing


class Optimizer(Enum):
    """What moves the picture: L-BFGS (Liu and Nocedal, 1989), Adam (Kingma and Ba, 2015), or gradient descent."""

    LBFGS = "lbfgs"
    ADAM = "adam"
    GRADIENT_DESCENT = "gd"


class LineSearch(Enum):
    """How L-BFGS finds the length of a step: the learning rate itself, or the strong Wolfe conditions."""

    NONE = "none"
    STRONG_WOLFE = "strong-wolfe"


class DescentEnding(Enum):
    """What a descent hands out at its end.

    BEST: the picture of the lowest loss, as DescentFinished. PICTURE: where it is, as a DescentState without the
    optimizer's history, for a descent at another size. STATE: the same with the history, for a descent at the same size
    on another objective.
    """

    BEST = "best"
    PICTURE = "picture"
    STATE = "state"


class RecoveryReason(Enum):
    """What was recovered from: a loss that was no number or had grown without bound, or a lost FeatureService."""

    DIVERGED = "diverged"
    RECONNECTED = "reconnected"


@checks_calls
@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """How the optimizer steps.

    Attributes:
        optimizer: L-BFGS, Adam or gradient descent.
        learning_rate: What a direction is multiplied by. Adam moves each number by about so much; the first step of
            gradient descent moves the numbers by so much on average, and all its steps have one length per gradient.
        history_size: Pairs of vectors that L-BFGS remembers; at most 1 GiB of them.
        line_search: The line search of L-BFGS.
        momentum: Of gradient descent (Polyak, 1964): the share of the last step that is taken again; less than 1.
    """

    optimizer: Optimizer = Optimizer.LBFGS
    learning_rate: float = 1.0
    history_size: int = 100
    line_search: LineSearch = LineSearch.NONE
    momentum: float = 0.0


@checks_calls
@dataclass(frozen=True, kw_only=True)
class DescentStart:
    """A descent, from its first iteration or from a state that was handed out before.

    Attributes:
        objective: The loss.
        settings: How the optimizer steps.
        iterations: The number of the last iteration. A state of iteration 40 leads to 60 more of 100.
        initial: (3, H, W) of any size, brought to the content's; None: the content. Ignored where there is a state.
        state: A DescentState's `data`. One of another size is resized and goes on without the optimizer's history.
        luminance_only: Move the luminance only, and show it with the content's chroma. The network sees gray pictures.
        ending: What to hand out at the end.
        preview_every: Iterations between previews; 0: none.
        preview_side: The longest side of a preview in pixels; 0: 512. Previews are not enlarged.
        state_seconds: Seconds between states, fewer between the first ones; 0: none.
        confirm_last: Report DescentWaiting before the last iteration, and wait there for `proceed` or new weights.
        weights_digest: The only network that may do this; empty: any.
    """

    objective: Objective
    settings: DescentSettings = DescentSettings()
    iterations: int
    initial: Array | None = None
    state: bytes = field(default=b"", repr=False)
    luminance_only: bool = False
    ending: DescentEnding = DescentEnding.BEST
    preview_every: int = 0
    preview_side: int = 0
    state_seconds: float = 0.0
    confirm_last: bool = False
    weights_digest: str = ""


@checks_calls
@dataclass(frozen=True, kw_only=True)
class DescentWeights:
    """All weights of an objective, for a descent under way; each as in Objective.

    Attributes:
        number: Larger than that of all weights that were sent before.
    """

    number: int
    content_weight: float
    style_weight: float
    total_variation_weight: float
    style_stages: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DescentEvent:
    """Something that happened after so many iterations."""

    iteration: int = 0


@dataclass(frozen=True, kw_only=True)
class DescentQueued(DescentEvent):
    """The descent waits for the device, with `position` others before it."""

    position: int


@dataclass(frozen=True, kw_only=True)
class DescentReady(DescentEvent):
    """The descent begins, or goes on after `iteration`, on a picture of this size in pixels."""

    height: int
    width: int
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The terms of a loss, each times its weight; of the stages without the style weight."""

    loss: float = math.nan
    style_loss: float = math.nan
    content_loss: float = math.nan
    total_variation_loss: float = math.nan
    stage_losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DescentIteration(LossTerms, DescentEvent):
    """One iteration, and the loss at the picture from which it stepped.

    Attributes:
        evaluations: Evaluations of loss and gradient so far, those of a line search included.
        timing: Where the time of this iteration went.
    """

    evaluations: int = 0
    timing: Timing = Timing()


@dataclass(frozen=True, kw_only=True)
class DescentPreview(DescentEvent):
    """How the picture looks after `iteration`: a JPEG file, reduced to at most 512 pixels on its longest side."""

    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class DescentState(DescentEvent):
    """All that the next steps depend on, beside the start. A descent that starts here takes the same ones.

    Attributes:
        data: For DescentStart; a safetensors file.
        number: Of the weights in force; 0 for those of the start. A start from this state has these in its objective.
        reweighted: These weights came into force here; a DescentReweighted follows.
    """

    data: bytes = field(repr=False)
    number: int = 0
    reweighted: bool = False


@dataclass(frozen=True, kw_only=True)
class DescentReweighted(DescentEvent):
    """The weights of this number are in force from the next iteration on. A DescentState with them came just before."""

    number: int


@dataclass(frozen=True, kw_only=True)
class DescentRecovered(DescentEvent):
    """The descent met an obstacle at `iteration`, and goes on.

    Attributes:
        reason: Which.
        message: For people.
        restarts: How often the descent has diverged so far.
    """

    reason: RecoveryReason
    message: str = ""
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class DescentWaiting(DescentEvent):
    """The next iteration is the last, and begins after `proceed`."""


@dataclass(frozen=True, kw_only=True)
class DescentFinished(LossTerms, DescentEvent):
    """The picture of the lowest loss, (3, H, W), its loss, and the time of all iterations. Values may exceed 0..1."""

    picture: Array = field(repr=False)
    timing: Timing = Timing()

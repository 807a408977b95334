"""What FeatureService talks about: the model, extractions, features, objectives, evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from gramlet.errors import InvalidInput, did_you_mean
from gramlet.signatures import checks_calls
from gramlet.types import Array, ElementType, Limits, Picture, Resize, Timing

P_co = TypeVar("P_co", covariant=True)


class Form(Enum):
    """A form in which the features of a stage can be returned."""

    ACTIVATIONS = "activations"
    GRAM = "gram"
    POOLED = "pooled"


class GramNormalization(Enum):
    """What a Gram matrix F Fᵀ is divided by: nothing, H·W, or C·H·W."""

    NONE = "none"
    POSITIONS = "positions"
    ELEMENTS = "elements"


class StageBalance(Enum):
    """What losses are divided by before they are weighted.

    NONE: nothing. CONTENT: each stage's style loss by its value at the content picture, and the content loss by the
    mean square of the content's activations.
    """

    NONE = "none"
    CONTENT = "content"


@dataclass(frozen=True)
class Stage:
    """One named stage of a network: its channels, and its stride in input pixels (0: no spatial extent)."""

    name: str
    channels: int
    stride: int


def find_stage(name: str, stages: Iterable[Stage], network: str, field: str) -> Stage:
    """The stage of that name among those of a network.

    Raises:
        InvalidInput: There is none; the message names those that there are.
    """
    known = {stage.name: stage for stage in stages}
    if name not in known:
        raise InvalidInput(
            f"{network} has no stage {name!r}; it has {', '.join(known)}{did_you_mean(name, known)}", field=field
        )
    return known[name]


@dataclass(frozen=True)
class Load:
    """How busy a FeatureService is.

    Attributes:
        queued, queue_limit: Pictures that wait for the device, and that may wait.
        callers: Streams and calls that are open.
        device_seconds: The time that the device has worked since the start.
        descents_running, descents_limit: Descents that run, and that run at once.
        descents_queued, descent_queue_limit: Descents that wait, and that may wait.
        backlog_seconds: Estimate of the time that the device needs for everything that it has accepted.
    """

    queued: int = 0
    queue_limit: int = 0
    callers: int = 0
    device_seconds: float = 0.0
    descents_running: int = 0
    descents_limit: int = 0
    descents_queued: int = 0
    descent_queue_limit: int = 0
    backlog_seconds: float = 0.0


@dataclass(frozen=True)
class Model:
    """The network behind a FeatureService.

    `weights_digest` is a SHA-256 over names, shapes and values of all parameters and buffers: equal digests mean equal
    networks. A server that decodes pictures in another way than the default adds its name, such as `+nvjpeg`. `stages`
    are in the order of the forward pass.
    """

    backbone: str
    weights_digest: str
    weights_source: str
    device: str
    precision: str
    stages: tuple[Stage, ...]
    limits: Limits = field(default_factory=Limits)
    load: Load = field(default_factory=Load)
    server_version: str = ""

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)


@checks_calls
@dataclass(frozen=True)
class Extraction:
    """What to extract from each picture: every stage in every form.

    With a `weights_digest`, only the network with these weights may do it.
    """

    stages: tuple[str, ...]
    forms: tuple[Form, ...] = (Form.ACTIVATIONS,)
    gram_normalization: GramNormalization = GramNormalization.NONE
    triangle: bool = False
    element_type: ElementType = ElementType.FLOAT32
    resize: Resize = Resize()
    weights_digest: str = ""


@dataclass(frozen=True)
class Features:
    """Features of one picture, by stage name. Forms that were not asked for are empty.

    Attributes:
        activations: (C, H, W) each.
        grams: (C, C) each.
        pooled: (C,) each.
        height, width: The picture as the network saw it, in pixels.
        weights_digest: Of the network.
    """

    activations: Mapping[str, Array]
    grams: Mapping[str, Array]
    pooled: Mapping[str, Array]
    height: int
    width: int
    timing: Timing = Timing()
    weights_digest: str = ""


@checks_calls
@dataclass(frozen=True)
class Style(Generic[P_co]):
    """A style picture of any size, its share of the style loss, and the regions that it is taken from and given to.

    Regions are masks: white is inside, black outside, gray in between; what is transparent is outside. A style with a
    content region has a loss of its own there, with guided Gram matrices (Gatys et al., "Controlling Perceptual Factors
    in Neural Style Transfer", CVPR 2017); styles without one share the whole picture.

    Attributes:
        picture: In the SDK any input; (3, H', W') in an objective.
        weight: Its share, relative to the other styles; where styles overlap, they divide the region by their shares.
        content_region: Where in the result this style rules: a mask of the content's aspect ratio within 1 %. None:
            everywhere. In an objective (H, W) in 0..1.
        style_region: Which part of the style picture counts: a mask of its aspect ratio. None: all of it.
    """

    picture: P_co
    weight: float = 1.0
    content_region: P_co | None = None
    style_region: P_co | None = None


@checks_calls
@dataclass(frozen=True)
class Objective:
    """The loss of neural style transfer as a function of a picture x (Gatys, Ecker, Bethge, CVPR 2016).

    style_weight · Σ_stage weight · mean((G(x) - G(style))²) + content_weight · mean((F(x) - F(content))²)
    + total_variation_weight · TV(x)

    Attributes:
        content: (3, H, W), the shape of x; None where neither content_weight nor stage_balance needs it.
        styles: At least one where style_weight is not 0.
        style_stages: Weight of each stage, by name.
        antialiased: Run a residual network with its strides antialiased (Zhang, ICML 2019).
        reduced_precision: A network of mixed precision may compute this in its reduced precision.
    """

    content: Array | None = None
    content_stage: str = ""
    content_weight: float = 0.0
    styles: tuple[Style[Array], ...] = ()
    style_stages: Mapping[str, float] = field(default_factory=dict)
    style_weight: float = 0.0
    total_variation_weight: float = 0.0
    gram_normalization: GramNormalization = GramNormalization.NONE
    stage_balance: StageBalance = StageBalance.NONE
    antialiased: bool = False
    reduced_precision: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Loss terms at one picture, each times its weight, and the gradient of their sum, (3, H, W)."""

    loss: float
    style_loss: float
    content_loss: float
    total_variation_loss: float
    stage_losses: Mapping[str, float]
    gradient: Array
    timing: Timing = Timing()


PictureStyle = Style[Picture]
"""A style as it travels."""

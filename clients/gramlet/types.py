"""What travels between gramlet's services, as Python sees it: plain frozen dataclasses over NumPy arrays.

Client and server share these. `gramlet.messages` turns them into protobuf messages and back; nothing here knows gRPC.
Arrays are C-contiguous; activations are (C, H, W), Gram matrices (C, C), pictures (3, H, W) float32 RGB in 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class ElementType(Enum):
    """The type of one element of a tensor on the wire."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    UINT8 = "uint8"


class ResizeMode(Enum):
    """What the size of a `Resize` measures."""

    KEEP = "keep"
    LONGEST_SIDE = "longest-side"
    SHORTEST_SIDE = "shortest-side"
    CENTER_CROP = "center-crop"
    STRETCH = "stretch"


@dataclass(frozen=True)
class Resize:
    """How a picture is brought to the size that the network sees.

    `size` is in pixels and must be positive unless the mode is KEEP. Resampling is Lanczos with antialiasing.
    """

    mode: ResizeMode = ResizeMode.KEEP
    size: int = 0


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
    """What the stages' style losses are divided by: nothing, or their value at the initial picture."""

    NONE = "none"
    INITIAL = "initial"


@dataclass(frozen=True)
class Timing:
    """Where the time of a reply went, in seconds. A device pass shared by a batch counts whole for each member."""

    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 1


@dataclass(frozen=True)
class Stage:
    """One named stage of a network: its channels, and its stride in input pixels (0: no spatial extent)."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Limits:
    """What a FeatureService accepts; the defaults are the server's."""

    message_bytes: int = 64 * 1024 * 1024
    picture_bytes: int = 32 * 1024 * 1024
    decoded_pixels: int = 64_000_000
    network_pixels: int = 4096 * 2304
    pictures_per_extract: int = 64


@dataclass(frozen=True)
class Load:
    """How busy a FeatureService is."""

    queued: int = 0
    queue_limit: int = 0
    callers: int = 0
    device_seconds: float = 0.0


@dataclass(frozen=True)
class Model:
    """The network behind a FeatureService.

    `weights_digest` is a SHA-256 over names, shapes and values of all parameters and buffers: equal digests mean equal
    networks. `stages` are in the order of the forward pass.
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


@dataclass(frozen=True)
class Extraction:
    """What to extract from each picture: every stage in every form."""

    stages: tuple[str, ...]
    forms: tuple[Form, ...] = (Form.ACTIVATIONS,)
    gram_normalization: GramNormalization = GramNormalization.NONE
    triangle: bool = False
    element_type: ElementType = ElementType.FLOAT32
    resize: Resize = Resize()


@dataclass(frozen=True)
class Features:
    """Features of one picture, by stage name. Forms that were not asked for are empty.

    Attributes:
        activations: (C, H, W) each.
        grams: (C, C) each.
        pooled: (C,) each.
        height, width: The picture as the network saw it, in pixels.
    """

    activations: Mapping[str, Array]
    grams: Mapping[str, Array]
    pooled: Mapping[str, Array]
    height: int
    width: int
    timing: Timing = Timing()


@dataclass(frozen=True)
class Style:
    """A style picture, (3, H', W') of any size, and its share of the style loss."""

    picture: Array
    weight: float = 1.0


@dataclass(frozen=True)
class Objective:
    """The loss of neural style transfer as a function of a picture x (Gatys, Ecker, Bethge, CVPR 2016).

    style_weight · Σ_stage weight · mean((G(x) - G(style))²) + content_weight · mean((F(x) - F(content))²)
    + total_variation_weight · TV(x)

    Attributes:
        content: (3, H, W), the shape of x; None where content_weight is 0.
        styles: At least one where style_weight is not 0.
        style_stages: Weight of each stage, by name.
        initial: (3, H, W): where StageBalance.INITIAL takes its divisors.
    """

    content: Array | None = None
    content_stage: str = ""
    content_weight: float = 0.0
    styles: tuple[Style, ...] = ()
    style_stages: Mapping[str, float] = field(default_factory=dict)
    style_weight: float = 0.0
    total_variation_weight: float = 0.0
    gram_normalization: GramNormalization = GramNormalization.NONE
    stage_balance: StageBalance = StageBalance.NONE
    initial: Array | None = None


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

"""What See talks about: which channels to show and how, and what happens on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from gramlet.errors import GramletError
from gramlet.images import PngFile, open_image
from gramlet.types import Resize, Timing

if TYPE_CHECKING:
    from PIL import Image

MOST_CHANNELS = 64
"""Channels that are projected or optimized in one call."""


class Projection(Enum):
    """How a patch is projected back to pixels: by the gradient of its activation, with another rule for the ReLUs.

    NONE: not at all. DECONVNET: a ReLU passes back what is positive of the signal (Zeiler and Fergus, ECCV 2014).
    GUIDED: the same, and only where it passed something forward (Springenberg et al., ICLR workshop 2015); networks
    with few max poolings, such as ResNet-50, give a clear picture by this rule only.
    """

    NONE = "none"
    DECONVNET = "deconvnet"
    GUIDED = "guided"


class PatchField(Enum):
    """What a patch shows of its picture, around the position of its activation.

    EFFECTIVE: the effective receptive field (Luo et al., NeurIPS 2016): the smallest square that holds 95 % of the
    squared gradient of activations there. THEORETICAL: the receptive field, all that a position can see.
    """

    EFFECTIVE = "effective"
    THEORETICAL = "theoretical"


@dataclass(frozen=True, kw_only=True)
class Maximization:
    """How a picture is optimized for a channel (Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017).

    Attributes:
        steps: Steps of Adam.
        size: Height and width of the picture in pixels.
        seed: Of the first picture and of the random transformations.
        preview_every: Steps between previews; 0: none.
    """

    steps: int = 128
    size: int = 160
    seed: int = 0
    preview_every: int = 0


@dataclass(frozen=True, kw_only=True)
class SeeStart:
    """What to show.

    Attributes:
        stage: The name of the stage.
        channels: Of the stage, from 0; none stands for all.
        patches: Patches of each channel; 0: none.
        patch_field: What a patch shows.
        patch_size: The longest side of a patch in pixels; None: 224, and 64 for more than 64 channels.
        projection: How patches are projected back to pixels.
        maximization: How a picture is optimized for each channel; None: not at all.
        resize: How every picture is resized.
        weights_digest: The only network that may do this; empty: any.
    """

    stage: str
    channels: tuple[int, ...] = ()
    patches: int = 9
    patch_field: PatchField = PatchField.EFFECTIVE
    patch_size: int | None = None
    projection: Projection = Projection.NONE
    maximization: Maximization | None = None
    resize: Resize = Resize()
    weights_digest: str = ""


@dataclass(frozen=True)
class Box:
    """A part of a picture, in pixels of the picture as the network saw it."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Where a channel responds most strongly in one picture.

    Attributes:
        index: The picture's place among the pictures of the call, from 0.
        id: Its name: its path, its name in its folder, or its place.
        activation: The largest activation of the channel in this picture.
        row, column: Where in the stage's activations it is.
        box: What the patch shows: the field of that position, as far as it lies in the picture.
        height, width: Of the picture as the network saw it, in pixels.
        jpeg: The patch, a JPEG file.
        projection: What in the patch leads to the activation, a JPEG file of the same size in which mid-gray is 0;
            empty if it was not asked for.
    """

    index: int
    id: str
    activation: float
    row: int
    column: int
    box: Box
    height: int
    width: int
    jpeg: bytes = field(repr=False)
    projection: bytes = field(default=b"", repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """The patch, decoded when first asked for."""
        return open_image(self.jpeg)

    @cached_property
    def projection_image(self) -> Image.Image | None:
        """The projection; None if it was not asked for."""
        return open_image(self.projection) if self.projection else None


@dataclass(frozen=True, kw_only=True)
class SeeQueued:
    """The call waits, with `position` others before it."""

    position: int


@dataclass(frozen=True, kw_only=True)
class SeeStarted:
    """The call begins.

    Attributes:
        channels: The channels of the stage.
        stride: Input pixels between two positions of the stage; 0 for `avgpool`.
        receptive_field: The side in pixels of the square that a position can see; 0: the whole picture.
        effective_field: The side of its effective receptive field; 0: the whole picture.
        weights_digest: Of the network.
    """

    channels: int
    stride: int
    receptive_field: int
    effective_field: int
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class SeeProgress:
    """`pictures` of `total` were looked at, those that failed included."""

    pictures: int
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class SeeRefused:
    """Picture `index` failed alone, as `error` says; `id` is its name."""

    index: int
    id: str
    error: GramletError


@dataclass(frozen=True, kw_only=True)
class SeePatches:
    """The strongest patches of a channel, at most one of a picture, the strongest first.

    Pictures in which the channel is nowhere above 0 have none. Positions closer to the border than a quarter of the
    effective field, which see mostly padding, are left out if the picture has others.
    """

    channel: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True, kw_only=True)
class SeePreview:
    """How the optimized picture of a channel looks after `step` of `steps`: `jpeg` is the file, `image` the picture.

    `activation` is the mean of the channel over all positions of the picture as the network saw it in this step.
    """

    channel: int
    step: int
    steps: int
    activation: float
    jpeg: bytes = field(repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """The picture, decoded when first asked for."""
        return open_image(self.jpeg)


@dataclass(frozen=True, kw_only=True)
class SeeOptimized(PngFile):
    """The optimized picture of a channel: `png` is the file, `image` the picture, and `save` writes it.

    Attributes:
        activation: The mean of the channel over all positions of the picture.
        timing: Of all steps.
    """

    channel: int
    activation: float
    png: bytes = field(repr=False)
    timing: Timing = Timing()


@dataclass(frozen=True, kw_only=True)
class SeeReconnecting:
    """The server was lost: the client looks for it, or for another one, which begins again.

    What was reported before is not reported again.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class SeeFinished:
    """The last message of a call: how many pictures there were, and how many of them failed."""

    pictures: int
    refused: int
    timing: Timing = Timing()
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class SeeResult:
    """Everything that was seen.

    Attributes:
        stage: The name of the stage.
        patches: By channel; see `SeePatches`.
        optimized: By channel; empty if it was not asked for.
        pictures: How many pictures there were, those that failed included.
        refused: Those that failed.
        timing: Of the whole call.
        weights_digest: Of the network.
    """

    stage: str
    patches: Mapping[int, tuple[Patch, ...]]
    optimized: Mapping[int, SeeOptimized]
    pictures: int = 0
    refused: tuple[SeeRefused, ...] = ()
    timing: Timing = Timing()
    weights_digest: str = ""


SeeEvent: TypeAlias = (
    SeeQueued
    | SeeStarted
    | SeeProgress
    | SeeRefused
    | SeePatches
    | SeePreview
    | SeeOptimized
    | SeeReconnecting
    | SeeResult
)
"""What a See reports, in order; the last is the SeeResult."""

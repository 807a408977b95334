"""What StylizeService talks about: settings, stylizations and their events. Sweeps: sweep_types.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
from gramlet.feature.descent_types import LineSearch as LineSearch
from gramlet.feature.descent_types import Optimizer as Optimizer
from gramlet.feature.descent_types import RecoveryReason as RecoveryReason
from gramlet.feature.types import GramNormalization, PictureStyle, StageBalance
from gramlet.images import PngFile, open_image
from gramlet.signatures import checks_calls
from gramlet.types import Picture, Timing


class Initial(Enum):
    """The picture from which a stylization starts."""

    CONTENT = "content"
    STYLE = "style"
    NOISE = "noise"
    GIVEN = "given"


class Colors(Enum):
    """Whose colors a result has (Gatys et al., "Preserving Color in Neural Artistic Style Transfer", 2016).

    STYLE: the style's. CONTENT_LUMINANCE: the content's chroma, exactly; only the luminance is transferred.
    CONTENT_HISTOGRAM: about the content's; the style is first given the content's mean and covariance of RGB.
    """

    STYLE = "style"
    CONTENT_LUMINANCE = "content-luminance"
    CONTENT_HISTOGRAM = "content-histogram"


@checks_calls
@dataclass(frozen=True)
class StylizeSettings:
    """The settings of a stylization. What is None follows the preset.

    Attributes:
        preset: A name from the service's status, such as `classic`; None is the network's own default.
        size: Longest side of the result, in pixels.
        iterations: Iterations of the optimizer.
        content_stage: The stage at which contents are compared.
        style_stages: The stages at which styles are compared, each with its weight.
        content_weight, style_weight, total_variation_weight: Weights of the loss terms.
        gram_normalization: What Gram matrices are divided by.
        stage_balance: What losses are divided by before they are weighted.
        initial: The starting picture.
        seed: Seed of all noise.
        optimizer: L-BFGS, Adam or gradient descent.
        learning_rate: The optimizer's step length.
        history_size: Pairs of vectors that L-BFGS remembers; at most 1 GiB of them.
        line_search: The line search of L-BFGS.
        antialiased: Run a residual network with its strides antialiased: no grid, about twice the work.
        scales: Coarse to fine: scales, each twice the size of the one before, that share the iterations: of n scales
            the coarsest has n parts, the next n - 1, the last 1.
        style_size: Longest side of the style pictures as the network sees them, in pixels: the larger, the larger the
            strokes. None: like `size`.
        colors: Whose colors the result has.
        momentum: Of gradient descent: the share of the last step that is taken again, less than 1.
    """

    preset: str | None = None
    size: int | None = None
    iterations: int | None = None
    content_stage: str | None = None
    style_stages: Mapping[str, float] | None = None
    content_weight: float | None = None
    style_weight: float | None = None
    total_variation_weight: float | None = None
    gram_normalization: GramNormalization | None = None
    stage_balance: StageBalance | None = None
    initial: Initial | None = None
    seed: int | None = None
    optimizer: Optimizer | None = None
    learning_rate: float | None = None
    history_size: int | None = None
    line_search: LineSearch | None = None
    antialiased: bool | None = None
    scales: int | None = None
    style_size: int | None = None
    colors: Colors | None = None
    momentum: float | None = None


@dataclass(frozen=True)
class Stylization:
    """The pictures of a stylization as they travel, and its settings.

    `initial` goes with Initial.GIVEN. With `previous_content`, the content that it is a painting of, it is moved along
    with what moved from that content to this one.
    """

    content: Picture
    styles: tuple[PictureStyle, ...]
    settings: StylizeSettings = StylizeSettings()
    initial: Picture | None = None
    previous_content: Picture | None = None


@dataclass(frozen=True)
class StylizeOrder:
    """What is asked of StylizeService: a new stylization, or the run to resume or to watch, and how to report it.

    Attributes:
        stylization: A new stylization; None to resume or to watch.
        resume_run_id: The run to resume; empty for a new one.
        run_id: The name of a new run; empty lets the server choose.
        preview_every: Iterations between previews; 0 is none.
        preview_side: The longest side of a preview in pixels; 0 is 512. Previews are not enlarged.
        state_seconds: Seconds between checkpoints; None is the server's choice, 0 none.
        watch_run_id: The run to watch, without any influence on it; empty for none.
        detached: Whether the run goes on when its caller leaves.
        keep_inputs: Whether the store keeps the pictures after the run has ended.
        take_over: Whether to resume the run at once, even if another replica seems to execute it.
        weights_digest: The only network that may make a new stylization; empty: any.
    """

    stylization: Stylization | None = None
    resume_run_id: str = ""
    run_id: str = ""
    preview_every: int = 0
    preview_side: int = 0
    state_seconds: float | None = None
    watch_run_id: str = ""
    detached: bool = False
    keep_inputs: bool = False
    take_over: bool = False
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class StylizeEvent:
    """What every event of a stylization reports.

    Attributes:
        run_id: The name of the run, with which it can be resumed.
        iteration: The last iteration done; 0 before the first.
        loss: The newest total loss; NaN before the first iteration.
    """

    run_id: str = ""
    iteration: int = 0
    loss: float = math.nan

    @property
    def image(self) -> Image.Image:
        """The picture of a `Preview` or a `Result`. Other events have none, and raise AttributeError."""
        raise AttributeError(f"{type(self).__name__} has no picture: Preview and Result have one")


@dataclass(frozen=True, kw_only=True)
class Queued(StylizeEvent):
    """The run waits for its turn, with `position` others before it."""

    position: int


@dataclass(frozen=True, kw_only=True)
class Started(StylizeEvent):
    """The run begins, or goes on after `iteration`. `settings` has the preset's values filled in; sizes in pixels."""

    height: int
    width: int
    settings: StylizeSettings
    backbone: str = ""
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class ScaleStarted(StylizeEvent):
    """A scale begins after `iteration`: the next losses are those of a picture of this size, in pixels."""

    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Iteration(StylizeEvent):
    """One iteration: the loss terms, each times its weight, at the picture from which it stepped.

    Attributes:
        stage_losses: The style loss stage by stage, without the style weight.
        evaluations: Evaluations of loss and gradient so far.
        timing: Device time of this iteration.
    """

    style_loss: float
    content_loss: float
    total_variation_loss: float = 0.0
    stage_losses: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = 0
    timing: Timing = Timing()


@dataclass(frozen=True, kw_only=True)
class Preview(StylizeEvent):
    """How the picture looks after `iteration`: `jpeg` is the file, `image` the picture, at most 512 pixels long.

    While a coarse scale is under way, the picture has the size of that scale.
    """

    jpeg: bytes = field(repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """The picture, decoded when first asked for."""
        return open_image(self.jpeg)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(StylizeEvent):
    """The run can be resumed after `iteration`."""


@dataclass(frozen=True)
class Adjustment:
    """New weights for a run under way. What is None stays; so do stages that `style_stages` does not name."""

    content_weight: float | None = None
    style_weight: float | None = None
    total_variation_weight: float | None = None
    style_stages: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Adjusted(StylizeEvent):
    """The weights were changed after `iteration`: `settings` are those in force now, `number` counts the changes.

    Where a server was lost meanwhile, iterations after this one may have been reported before. They are done again
    with the new weights, and reported again.
    """

    settings: StylizeSettings
    number: int


@dataclass(frozen=True, kw_only=True)
class Recovered(StylizeEvent):
    """The run met an obstacle at `iteration` and goes on."""

    reason: RecoveryReason
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class RemoteProgress(StylizeEvent):
    """The progress of a run that another replica executes: `iteration` of `total` is done."""

    total: int


@dataclass(frozen=True, kw_only=True)
class Reconnecting(StylizeEvent):
    """The server was lost after `iteration`: the client looks for it, or for another one, which goes on there."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Result(PngFile, StylizeEvent):
    """The run is done: `png` is the file, `image` the picture, and the losses are the returned picture's.

    Where the content is transparent, so is the picture. It was painted there as well, as if the content lay on white.
    """

    png: bytes = field(repr=False)
    style_loss: float = math.nan
    content_loss: float = math.nan
    timing: Timing = Timing()
    weights_digest: str = ""


@dataclass(frozen=True)
class StylizeStatus:
    """How busy a StylizeService is, its presets (the default first), and where its features come from.

    `preset_settings` are the complete settings of each preset, in the order of `presets`.
    """

    running: int = 0
    running_limit: int = 0
    queued: int = 0
    queue_limit: int = 0
    presets: tuple[str, ...] = ()
    features: str = ""
    server_version: str = ""
    preset_settings: tuple[StylizeSettings, ...] = ()

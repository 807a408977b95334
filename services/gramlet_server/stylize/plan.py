"""A stylization as prepared: its pictures at every scale, its objective, and the scales that share its iterations; and
where one is on its way.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from itertools import accumulate

from gramlet.feature.descent_types import DescentSettings, LineSearch, Optimizer
from gramlet.feature.types import GramNormalization, Objective, StageBalance, Style
from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import Colors, Iteration, StylizeSettings
from gramlet.types import Array, Limits, Pixels

from gramlet_server.pictures.masks import stretch_region
from gramlet_server.pictures.prepare import stretch

COARSEST = 64
"""The least longest side of the content at the coarsest scale, in pixels. The deepest style stages find little to
compare in a smaller picture, so scales below it are left out."""

FULL_PRECISION = 0.2
"""A network of mixed precision computes this share of the iterations at full size, the last ones, in full precision."""

REPORTED = 200
"""How many iterations a position, or a result in the store, remembers. A process that is killed takes along what it had
not sent yet: a packed message of 50 ms at the pace of a GPU, and what a slow reader had not taken."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a stylization at one scale.

    Attributes:
        content: (3, H, W) float32, RGB in 0..1.
        styles: Each (3, H', W') float32 of its own size, with regions of the sizes of their pictures.
        initial: (3, H, W) float32: where the descent starts.
    """

    content: Array
    styles: tuple[Style[Array], ...]
    initial: Array
    _scaled: dict[float, Pictures] = field(default_factory=dict, init=False, repr=False, compare=False)

    def at(self, factor: float) -> Pictures:
        """All pictures with their sides multiplied by `factor`. They are resampled once, and then kept."""
        if factor == 1:
            return self
        if factor not in self._scaled:
            content = _scale_picture(self.content, factor)
            initial = content if self.initial is self.content else _scale_picture(self.initial, factor)
            styles = tuple(_scale_style(style, factor) for style in self.styles)
            self._scaled[factor] = Pictures(content, styles, initial)
        return self._scaled[factor]


@dataclass(frozen=True)
class Scale:
    """A stretch of a run at one size and one precision.

    Attributes:
        factor: Sides of the pictures, relative to the full size.
        pictures: The pictures at this scale.
        end: The last iteration of the stretch, counted from the start of the run.
        reduced_precision: Whether a network of mixed precision computes in its reduced one.
    """

    factor: float
    pictures: Pictures
    end: int
    reduced_precision: bool = False


@dataclass(frozen=True)
class PreparedStylization:
    """A stylization that is ready to run.

    Attributes:
        pictures: At their working sizes; styles have the colors that the settings ask for.
        settings: Complete: none is None.
        alpha: The alpha channel of the content, (H, W) uint8 at its working size, which the result gets as well; None:
            all of it is opaque.
    """

    pictures: Pictures
    settings: StylizeSettings
    alpha: Pixels | None = None

    def scales(self, mixed: bool = False) -> list[Scale]:
        """The scales of the run, coarse to fine; see `StylizeSettings.scales`. Only the last may have no iterations.

        Args:
            mixed: The network is of mixed precision. It computes all but the last iterations in its reduced one.
        """
        _, height, width = self.pictures.content.shape
        halvings = [n for n in range(self.settings.scales or 1) if n == 0 or max(height, width) >> n >= COARSEST]
        # Shares of n, ..., 2, 1: coarse scales make the large shapes of a style, which need the most iterations and
        # cost the least there.
        parts = list(accumulate(range(len(halvings), 0, -1)))
        ends = [round((self.settings.iterations or 0) * part / parts[-1]) for part in parts]
        factors = [0.5**n for n in reversed(halvings)]
        scales = [Scale(f, self.pictures.at(f), end) for f, end in zip(factors, ends, strict=True)]
        if mixed:
            *_, begin, end = 0, *ends
            begin = end - math.ceil((end - begin) * FULL_PRECISION)
            reduced = [*scales[:-1], dataclasses.replace(scales[-1], end=begin)]
            scales = [*(dataclasses.replace(scale, reduced_precision=True) for scale in reduced), scales[-1]]
        begins = [0, *(scale.end for scale in scales)]
        return [s for s, begin in zip(scales, begins, strict=False) if begin < s.end or s is scales[-1]]

    @property
    def descent_settings(self) -> DescentSettings:
        """How the optimizer steps."""
        settings = self.settings
        return DescentSettings(
            optimizer=settings.optimizer or Optimizer.LBFGS,
            learning_rate=settings.learning_rate or 1.0,
            history_size=settings.history_size or 100,
            line_search=settings.line_search or LineSearch.NONE,
            momentum=settings.momentum or 0.0,
        )

    @property
    def luminance_only(self) -> bool:
        """Whether only the luminance is stylized."""
        return self.settings.colors is Colors.CONTENT_LUMINANCE

    def objective(self, factor: float = 1.0, *, reduced_precision: bool = False) -> Objective:
        """The loss at a scale.

        Args:
            factor: Sides of the pictures, relative to the full size.
            reduced_precision: See `Scale`.
        """
        settings, pictures = self.settings, self.pictures.at(factor)
        return Objective(
            content=pictures.content,
            content_stage=settings.content_stage or "",
            content_weight=settings.content_weight or 0.0,
            styles=pictures.styles,
            style_stages=settings.style_stages or {},
            style_weight=settings.style_weight or 0.0,
            total_variation_weight=settings.total_variation_weight or 0.0,
            gram_normalization=settings.gram_normalization or GramNormalization.NONE,
            stage_balance=settings.stage_balance or StageBalance.NONE,
            antialiased=settings.antialiased or False,
            reduced_precision=reduced_precision,
        )


def _scale_picture(picture: Array, factor: float) -> Array:
    return stretch(picture, *_scaled_shape(picture.shape[1:], factor), Limits())


def _scale_region(region: Array | None, factor: float) -> Array | None:
    return None if region is None else stretch_region(region, *_scaled_shape(region.shape, factor))


def _scale_style(style: Style[Array], factor: float) -> Style[Array]:
    return Style(
        _scale_picture(style.picture, factor),
        style.weight,
        _scale_region(style.content_region, factor),
        _scale_region(style.style_region, factor),
    )


def _scaled_shape(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in shape)
    return height, width


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a stylization is.

    Attributes:
        settings: Those in force: the ordered ones with the adjustments so far. Complete: none is None.
        adjustments: How many adjustments they contain.
        iteration: The last one done.
        scale: The index of the scale.
        state: A DescentState of that scale, or of the one before; empty at the start.
        reported: The last iterations up to that one. They are reported again where the run goes on, since nobody knows
            which of them reached a reader before the process was lost. Readers skip those that they have seen.
    """

    settings: StylizeSettings
    adjustments: int = 0
    iteration: int = 0
    scale: int = 0
    state: bytes = field(default=b"", repr=False)
    reported: tuple[Iteration, ...] = ()

    def to_bytes(self) -> bytes:
        """For the store: a line of JSON, then the state."""
        return to_json(dataclasses.replace(self, state=b"")) + b"\n" + self.state

    @classmethod
    def from_bytes(cls, data: bytes) -> Position:
        """The position that `to_bytes` wrote."""
        end = data.index(b"\n")
        return dataclasses.replace(from_json(cls, data[:end]), state=data[end + 1 :])

"""An ordered stylization becomes a prepared one: settings complete, pictures at their working sizes."""

from __future__ import annotations

import numpy as np
from gramlet.feature.types import GramNormalization, Style
from gramlet.stylize.types import Colors, Initial, Stylization, StylizeSettings
from gramlet.types import Array, Limits, Picture, Pixels, Resize, ResizeMode

from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.decode import opacity
from gramlet_server.pictures.masks import check_aspect, fit_region, region, stretch_region
from gramlet_server.pictures.prepare import prepare, shape, stretch
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.stylize.colors import match_colors, match_luminance
from gramlet_server.stylize.motion import carry_along
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.presets import resolve

_NOISE_MEAN, _NOISE_DEVIATION = 0.5, 0.15
_MOVING_BYTES = 400
"""For each pixel of a frame: its motion, in float64, and what it is found by."""
_COLORING_BYTES = 72
"""For each pixel of the style and of the content: both in float64, and copies."""


def prepare_stylization(stylization: Stylization, features: FeatureSource, limits: Limits) -> PreparedStylization:
    """Completes the settings and brings the pictures to their working sizes.

    The content's longest side becomes `size` pixels, that of each style picture `style_size` pixels. Raw Gram matrices
    are sums over positions and can be compared only between pictures of one shape: with them, style pictures are
    stretched to the content's shape. Regions get the sizes of their pictures.

    Args:
        stylization: The order.
        features: The network.
        limits: The limits on the pictures.

    Raises:
        InvalidInput: Naming the field of the request.
    """
    return prepare_pictures(stylization, resolve(stylization.settings, features.model()), limits)


def prepare_pictures(stylization: Stylization, settings: StylizeSettings, limits: Limits) -> PreparedStylization:
    """The same with settings that are complete."""
    resize = Resize(ResizeMode.LONGEST_SIDE, settings.size or 0)
    content = prepare(stylization.content, resize, limits, "stylization.content")
    _, height, width = content.shape
    styles = tuple(
        _style(style, settings, content, limits, f"stylization.styles[{index}]")
        for index, style in enumerate(stylization.styles)
    )
    initial = _initial(stylization.initial, styles[0].picture, settings, content, limits)
    if stylization.previous_content is not None:
        field = "stylization.previous_content"
        before = stretch(stylization.previous_content, height, width, limits, field)
        start = initial
        initial = PROCESS.make(_MOVING_BYTES * height * width, lambda: carry_along(start, before, content), field)
    alpha = _alpha(stylization.content, height, width, limits)
    return PreparedStylization(Pictures(content, styles, initial), settings, alpha)


def _alpha(content: Picture, height: int, width: int, limits: Limits) -> Pixels | None:
    levels = opacity(content, limits, "stylization.content") if isinstance(content, bytes) else None
    if levels is None:
        return None
    shares = stretch_region(levels.astype(np.float32) / np.float32(255), height, width)
    sized: Pixels = np.rint(shares * np.float32(255)).astype(np.uint8)
    return sized


def _style(
    style: Style[Picture], settings: StylizeSettings, content: Array, limits: Limits, field: str
) -> Style[Array]:
    picture = _style_picture(style.picture, settings, content, limits, f"{field}.picture")
    content_region, style_region = None, None
    _, height, width = content.shape
    if style.content_region is not None:
        mask = region(style.content_region, limits, f"{field}.content_region")
        content_region = fit_region(mask, height, width, f"{field}.content_region")
    if style.style_region is not None:
        mask = region(style.style_region, limits, f"{field}.style_region")
        # The mask was drawn over the picture as it was sent. It is stretched together with the picture.
        check_aspect(mask, *shape(style.picture, limits), f"{field}.style_region")
        style_region = stretch_region(mask, *picture.shape[1:])
    return Style(picture, style.weight, content_region, style_region)


def _style_picture(picture: Picture, settings: StylizeSettings, content: Array, limits: Limits, field: str) -> Array:
    """A style picture at its working size, in the colors that the settings ask for."""
    if settings.gram_normalization is GramNormalization.NONE:
        sized = stretch(picture, content.shape[1], content.shape[2], limits, field)
    else:
        sized = prepare(picture, Resize(ResizeMode.LONGEST_SIDE, settings.style_size or 0), limits, field)
    match settings.colors:
        case Colors.CONTENT_LUMINANCE:
            return PROCESS.make(_coloring_bytes(sized, content), lambda: match_luminance(sized, content), field)
        case Colors.CONTENT_HISTOGRAM:
            return PROCESS.make(_coloring_bytes(sized, content), lambda: match_colors(sized, content), field)
        case _:
            return sized


def _coloring_bytes(picture: Array, content: Array) -> int:
    return _COLORING_BYTES * int(picture[0].size + content[0].size)


def _initial(given: Picture | None, style: Array, settings: StylizeSettings, content: Array, limits: Limits) -> Array:
    _, height, width = content.shape
    match settings.initial:
        case Initial.STYLE:
            return stretch(style, height, width, limits)
        case Initial.NOISE:
            random = np.random.default_rng(settings.seed)
            size = (8 + 4) * content.size  # float64, then float32
            return PROCESS.make(
                size, lambda: random.normal(_NOISE_MEAN, _NOISE_DEVIATION, content.shape).astype(np.float32)
            )
        case Initial.GIVEN if given is not None:
            return stretch(given, height, width, limits, "stylization.initial")
        case _:
            return content

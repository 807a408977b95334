"""What people hand to `stylize`, `adjust` and `sweep`, checked and turned into dataclasses."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from gramlet.errors import InvalidInput, NotFound, did_you_mean
from gramlet.feature.inputs import read_regions
from gramlet.feature.types import GramNormalization, PictureStyle, StageBalance, Style
from gramlet.inputs.pictures import PictureInput, is_one_picture, read_picture
from gramlet.inputs.values import any_number, check_keywords, checked, fill, several, text
from gramlet.stylize.types import Adjustment, Colors, Initial, LineSearch, Optimizer, Stylization, StylizeSettings
from gramlet.tensor.fitting import MESSAGE_MEGABYTES, picture_bytes, reduced
from gramlet.types import Picture, Resize, ResizeMode

StyleInput: TypeAlias = (
    "PictureInput | Style[PictureInput] | Sequence[PictureInput | Style[PictureInput] | tuple[PictureInput, float]]"
)
"""One style picture, or several; each alone, with its share of the style loss, or as a `Style` with its regions."""

_log = logging.getLogger("gramlet")


class StylizeOptions(TypedDict, total=False):
    """The settings of a stylization as keywords: those of `StylizeSettings`, enumerations also by their values.

    `style_stages` may also be a sequence of names, each of weight 1. What is left out follows the preset.
    """

    preset: str | None
    size: int | None
    iterations: int | None
    content_stage: str | None
    style_stages: Mapping[str, float] | Sequence[str] | None
    content_weight: float | None
    style_weight: float | None
    total_variation_weight: float | None
    gram_normalization: GramNormalization | str | None
    stage_balance: StageBalance | str | None
    seed: int | None
    optimizer: Optimizer | str | None
    learning_rate: float | None
    history_size: int | None
    line_search: LineSearch | str | None
    antialiased: bool | None
    scales: int | None
    style_size: int | None
    colors: Colors | str | None
    momentum: float | None


def make_stylization(
    content: PictureInput,
    style: StyleInput,
    initial: Initial | PictureInput | None,
    options: StylizeOptions,
    previous: PictureInput | None = None,
) -> Stylization:
    """The pictures and settings of a stylization.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture or a setting is wrong, there is no such setting, or the pictures do not fit a message.
    """
    template = make_template(style, initial, options)
    resize = content_resize(template.settings)
    stylization = dataclasses.replace(
        template,
        content=read_picture(content, "content", resize),
        previous_content=None if previous is None else read_picture(previous, "previous", resize),
    )
    return fit_message(stylization)


def make_template(style: StyleInput, initial: Initial | PictureInput | None, options: StylizeOptions) -> Stylization:
    """A stylization whose content is still to come; see `make_stylization`."""
    check_keywords(options, StylizeOptions.__annotations__)
    settings = _make_settings(options, None)
    start, given = _read_initial(initial, content_resize(settings))
    return Stylization(
        content=b"",
        styles=_read_styles(style, _style_resize(settings)),
        settings=dataclasses.replace(settings, initial=start),
        initial=given,
    )


def fit_message(stylization: Stylization) -> Stylization:
    """The stylization, with its pictures reduced if they do not fit a message together but will at the wanted size.

    Raises:
        InvalidInput: They do not fit.
    """
    if _megabytes(stylization) <= MESSAGE_MEGABYTES:
        return stylization
    settings = stylization.settings
    content, style = content_resize(settings), _style_resize(settings)
    smaller = dataclasses.replace(
        stylization,
        content=reduced(stylization.content, content),
        styles=tuple(dataclasses.replace(each, picture=reduced(each.picture, style)) for each in stylization.styles),
        initial=reduced(stylization.initial, content),
        previous_content=reduced(stylization.previous_content, content),
    )
    if _megabytes(smaller) > MESSAGE_MEGABYTES:
        advice = "give smaller ones" if settings.size else "give smaller ones, or a size to which they are reduced"
        raise InvalidInput(
            f"content and styles have {_megabytes(stylization):.1f} MB together and do not fit a message, which holds "
            f"{MESSAGE_MEGABYTES:.0f}: {advice}",
            field="content",
        )
    _log.info(
        "content and styles had %.1f MB together: reduced to %.1f MB", _megabytes(stylization), _megabytes(smaller)
    )
    return smaller


def _megabytes(stylization: Stylization) -> float:
    pictures = [stylization.content, stylization.initial, stylization.previous_content]
    for style in stylization.styles:
        pictures += [style.picture, style.content_region, style.style_region]
    return sum(picture_bytes(picture) for picture in pictures) / 1e6


def content_resize(settings: StylizeSettings) -> Resize | None:
    """How the service will resize a content; None where only its preset knows."""
    return None if settings.size is None else Resize(ResizeMode.LONGEST_SIDE, settings.size)


def _style_resize(settings: StylizeSettings) -> Resize | None:
    size = settings.style_size or settings.size
    return None if size is None else Resize(ResizeMode.LONGEST_SIDE, size)


def _read_initial(
    initial: Initial | PictureInput | None, resize: Resize | None
) -> tuple[Initial | None, Picture | None]:
    words = {member.value: member for member in Initial if member is not Initial.GIVEN}
    if initial is None or isinstance(initial, Initial):
        if initial is Initial.GIVEN:
            raise InvalidInput("give the picture itself to start from", field="initial")
        return initial, None
    if isinstance(initial, str) and initial in words:
        return words[initial], None
    try:
        return Initial.GIVEN, read_picture(initial, "initial", resize)
    except NotFound as error:
        hint = did_you_mean(initial, words)
        raise NotFound(f"{error.message}{hint}", field="initial") from None if hint else error


def _read_styles(style: StyleInput, resize: Resize | None) -> tuple[PictureStyle, ...]:
    if is_one_picture(style) or isinstance(style, Style):
        return (_read_style(style, "style", resize),)
    styles = tuple(_read_style(one, f"style[{i}]", resize) for i, one in enumerate(several(style, "style")))
    if not styles:
        raise InvalidInput("give at least one style", field="style")
    return styles


def _read_style(one: Any, field: str, resize: Resize | None) -> PictureStyle:
    if isinstance(one, tuple) and len(one) == 2:
        return Style(read_picture(one[0], field, resize), any_number(one[1], f"{field}.weight"))
    if not isinstance(one, Style):
        return Style(read_picture(one, field, resize))
    given: Style[Any] = checked(Style, one, field)
    return Style(read_picture(given.picture, field, resize), given.weight, *read_regions(given, field))


def make_adjustment(
    content_weight: float | None,
    style_weight: float | None,
    total_variation_weight: float | None,
    style_stages: Mapping[str, float] | Sequence[str] | None,
) -> Adjustment:
    """New weights for a run; stages may be given as their names, each of weight 1."""
    values = {
        "content_weight": content_weight,
        "style_weight": style_weight,
        "total_variation_weight": total_variation_weight,
        "style_stages": _stage_weights(style_stages),
    }
    return fill(Adjustment, values)


def _stage_weights(stages: Mapping[str, float] | Sequence[str] | None) -> Mapping[str, float] | None:
    if stages is None or isinstance(stages, Mapping):
        return stages
    names = [stages] if isinstance(stages, str) else several(stages, "style_stages")
    return dict.fromkeys([text(name, "style_stages") for name in names], 1.0)


def _make_settings(options: StylizeOptions, initial: Initial | None) -> StylizeSettings:
    values: dict[str, Any] = {
        **options,
        "style_stages": _stage_weights(options.get("style_stages")),
        "initial": initial,
    }
    return fill(StylizeSettings, values, positive=("size", "iterations", "history_size", "scales", "style_size"))

"""What people hand to `stylize`, `adjust` and `sweep`, checked and turned into dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from gramlet.errors import InvalidInput
from gramlet.feature.inputs import read_regions
from gramlet.feature.types import GramNormalization, PictureStyle, StageBalance, Style
from gramlet.inputs import PictureInput, any_number, fill, is_one_picture, read_picture
from gramlet.stylize.types import Adjustment, Colors, Initial, LineSearch, Optimizer, Stylization, StylizeSettings
from gramlet.types import Picture

StyleInput: TypeAlias = (
    "PictureInput | Style[PictureInput] | Sequence[PictureInput | Style[PictureInput] | tuple[PictureInput, float]]"
)
"""One style picture, or several; each alone, with its share of the style loss, or as a `Style` with its regions."""


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
        InvalidInput: A picture or a setting is wrong.
        TypeError: There is no such setting.
    """
    return dataclasses.replace(
        make_template(style, initial, options),
        content=read_picture(content, "content"),
        previous_content=None if previous is None else read_picture(previous, "previous"),
    )


def make_template(style: StyleInput, initial: Initial | PictureInput | None, options: StylizeOptions) -> Stylization:
    """A stylization whose content is still to come; see `make_stylization`."""
    start, given = _read_initial(initial)
    return Stylization(
        content=b"",
        styles=_read_styles(style),
        settings=_make_settings(options, start),
        initial=given,
    )


def _read_initial(initial: Initial | PictureInput | None) -> tuple[Initial | None, Picture | None]:
    words = {member.value: member for member in Initial if member is not Initial.GIVEN}
    if initial is None or isinstance(initial, Initial):
        if initial is Initial.GIVEN:
            raise InvalidInput("give the picture itself to start from", field="initial")
        return initial, None
    if isinstance(initial, str) and initial in words:
        return words[initial], None
    return Initial.GIVEN, read_picture(initial, "initial")


def _read_styles(style: StyleInput) -> tuple[PictureStyle, ...]:
    if is_one_picture(style) or isinstance(style, Style):
        return (_read_style(style, "style"),)
    if not isinstance(style, Iterable):
        raise InvalidInput(f"a style is a picture or several, not {type(style).__name__}", field="style")
    styles = tuple(_read_style(one, f"style[{i}]") for i, one in enumerate(style))
    if not styles:
        raise InvalidInput("give at least one style", field="style")
    return styles


def _read_style(one: Any, field: str) -> PictureStyle:
    if isinstance(one, tuple) and len(one) == 2:
        return Style(read_picture(one[0], field), any_number(one[1], f"{field}.weight"))
    if not isinstance(one, Style):
        return Style(read_picture(one, field))
    return Style(read_picture(one.picture, field), any_number(one.weight, f"{field}.weight"), *read_regions(one, field))


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
    return dict.fromkeys([stages] if isinstance(stages, str) else stages, 1.0)


def _make_settings(options: StylizeOptions, initial: Initial | None) -> StylizeSettings:
    values: dict[str, Any] = {
        **options,
        "style_stages": _stage_weights(options.get("style_stages")),
        "initial": initial,
    }
    return fill(StylizeSettings, values, positive=("size", "iterations", "history_size", "scales", "style_size"))

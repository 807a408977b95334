"""What people hand to `features` and `differentiate`, checked and turned into dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Required, TypedDict, Unpack

from gramlet.errors import InvalidInput, shown
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.types import Extraction, Form, GramNormalization, Objective, Style
from gramlet.inputs.pictures import read_mask, read_picture
from gramlet.inputs.values import as_resize, check_keywords, checked, fill, flag
from gramlet.tensor.pixels import as_array, as_float32, is_array
from gramlet.types import Array, ElementType, Picture, Resize, ResizeMode


class ExtractionOptions(TypedDict, total=False):
    """What to extract, as keywords.

    Attributes:
        stages: Names from `Client.model()`; one or several. Required.
        activations: Return activations (C, H, W). Default: only if nothing else is asked for.
        gram: Return Gram matrices (C, C).
        pooled: Return means over positions (C,); of stage `avgpool`, the network's embedding.
        gram_normalization: What Gram matrices are divided by: `none` (default), `positions` or `elements`.
        element_type: How numbers travel: `float32` (default), or in half the bytes `float16` or `bfloat16`. Results
            are float32 in any case.
        resize: How pictures are resized; a number is the longest side in pixels. Default: not at all.
    """

    stages: Required[str | Sequence[str]]
    activations: bool | None
    gram: bool
    pooled: bool
    gram_normalization: GramNormalization | str
    element_type: ElementType | str
    resize: Resize | int | None


def make_extraction(**options: Unpack[ExtractionOptions]) -> Extraction:
    """What to extract, from keywords.

    Raises:
        InvalidInput: No stage, no form, an unknown name, or a keyword that does not exist.
    """
    check_keywords(options, ExtractionOptions.__annotations__)
    values: dict[str, Any] = dict(options)
    asked = {form: values.pop(form.value, None) for form in Form}
    wanted = {form: flag(choice, form.value) for form, choice in asked.items() if choice is not None}
    wanted.setdefault(Form.ACTIVATIONS, not any(wanted.values()))
    resize = values.get("resize")
    extraction = fill(
        Extraction,
        {
            "stages": (),
            **values,
            "forms": [form for form in Form if wanted.get(form)],
            "triangle": wanted.get(Form.GRAM, False),  # half the bytes; decoding makes the matrix whole again
            "resize": Resize() if resize is None else as_resize(resize, ResizeMode.LONGEST_SIDE),
        },
    )
    if not extraction.stages:
        raise InvalidInput("name at least one stage", field="stages")
    if not extraction.forms:
        raise InvalidInput("ask for activations, gram or pooled", field="forms")
    return extraction


def read_objective(objective: Objective) -> Objective:
    """The objective with its pictures as they travel: they may be given as any input.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture or a number is wrong.
    """
    given = checked(Objective, objective, "objective")
    return dataclasses.replace(
        given,
        content=None if given.content is None else _read_point(given.content, "objective.content"),
        styles=tuple(_read_style(style, f"objective.styles[{number}]") for number, style in enumerate(given.styles)),
    )


def read_point(picture: Any) -> Array:
    """The picture at which an objective is evaluated: (3, H, W), also outside of 0..1.

    Raises:
        InvalidInput: Not such an array.
    """
    point = as_array(picture, "picture")
    if point.ndim != 3 or point.dtype.kind not in "fiu" or len(point) != 3 or not point.size:
        raise InvalidInput(f"must be an array (3, H, W), not {shown(point.dtype)} {point.shape}", field="picture")
    return as_float32(point)


def _read_point(value: Any, field: str) -> Any:
    """A picture of an objective. One made by arithmetic may leave 0..1: such arrays pass as they are."""
    if is_array(value) and (array := as_array(value, field)).dtype.kind == "f" and array.ndim == 3 and len(array) == 3:
        return as_float32(array)
    return read_picture(value, field)


def _read_style(style: Any, field: str) -> Style[Any]:
    given: Style[Any] = checked(Style, style, field)
    return Style(_read_point(given.picture, field), given.weight, *read_regions(given, field))


def read_descent_start(start: DescentStart) -> DescentStart:
    """The start of a descent with its pictures as they travel: they may be given as any input.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture or a number is wrong.
    """
    given = checked(DescentStart, start, "start")
    initial = None if given.initial is None else _read_point(given.initial, "initial")
    return dataclasses.replace(given, objective=read_objective(given.objective), initial=initial)


def read_regions(style: Style[Any], field: str) -> tuple[Picture | None, Picture | None]:
    """The masks of a style's regions, read: that of the result, and that of the style picture."""

    def mask(name: str) -> Picture | None:
        value = getattr(style, name)
        return None if value is None else read_mask(value, f"{field}.{name}")

    return mask("content_region"), mask("style_region")

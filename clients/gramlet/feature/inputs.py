"""What people hand to `features` and `differentiate`, checked and turned into dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Required, TypedDict

import numpy as np

from gramlet.errors import InvalidInput
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.types import Extraction, Form, GramNormalization, Objective, Style
from gramlet.inputs import as_resize, fill, read_mask, read_picture
from gramlet.types import ElementType, Picture, Resize, ResizeMode


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


def make_extraction(
    *,
    stages: str | Sequence[str],
    activations: bool | None = None,
    gram: bool = False,
    pooled: bool = False,
    gram_normalization: GramNormalization | str = GramNormalization.NONE,
    element_type: ElementType | str = ElementType.FLOAT32,
    resize: Resize | int | None = None,
) -> Extraction:
    """What to extract, from `ExtractionOptions`.

    Raises:
        InvalidInput: No stage, no form, or an unknown name.
    """
    if activations is None:
        activations = not (gram or pooled)
    asked = {Form.ACTIVATIONS: activations, Form.GRAM: gram, Form.POOLED: pooled}
    extraction = fill(
        Extraction,
        {
            "stages": stages,
            "forms": [form for form, wanted in asked.items() if wanted],
            "gram_normalization": gram_normalization,
            "triangle": bool(gram),  # half the bytes; decoding makes the matrix whole again
            "element_type": element_type,
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
        InvalidInput: A picture is wrong.
    """

    return dataclasses.replace(
        objective,
        content=_read_target(objective.content, "objective.content"),
        styles=tuple(
            Style(_read_target(style.picture, field), style.weight, *read_regions(style, field))  # type: ignore[arg-type]
            for field, style in ((f"objective.styles[{i}]", style) for i, style in enumerate(objective.styles))
        ),
    )


def read_descent_start(start: DescentStart) -> DescentStart:
    """The start of a descent with its pictures as they travel: they may be given as any input.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture is wrong.
    """
    initial = _read_target(start.initial, "initial")
    return dataclasses.replace(start, objective=read_objective(start.objective), initial=initial)


def _read_target(value: Any, field: str) -> Any:
    # A starting picture or target made by arithmetic may leave 0..1: arrays of the right shape pass as they are.
    is_array = isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 3
    return value if value is None or is_array else read_picture(value, field)


def read_regions(style: Style[Any], field: str) -> tuple[Picture | None, Picture | None]:
    """The masks of a style's regions, read: that of the result, and that of the style picture."""

    def mask(name: str) -> Picture | None:
        value = getattr(style, name)
        return None if value is None else read_mask(value, f"{field}.{name}")

    return mask("content_region"), mask("style_region")

"""What people hand to `features` and `differentiate`, checked and turned into dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Required, TypedDict

import numpy as np

from gramlet.errors import InvalidInput
from gramlet.feature.types import Extraction, Form, GramNormalization, Objective, Style
from gramlet.types import ElementType, Resize, ResizeMode

if TYPE_CHECKING:
    pass
from gramlet.inputs import choose, read_picture, read_regions


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
    names = (stages,) if isinstance(stages, str) else tuple(stages)
    if activations is None:
        activations = not (gram or pooled)
    asked = {Form.ACTIVATIONS: activations, Form.GRAM: gram, Form.POOLED: pooled}
    forms = tuple(form for form, wanted in asked.items() if wanted)
    if not names:
        raise InvalidInput("name at least one stage", field="stages")
    if not forms:
        raise InvalidInput("ask for activations, gram or pooled", field="forms")
    if isinstance(resize, int):
        resize = Resize(ResizeMode.LONGEST_SIDE, resize)
    return Extraction(
        stages=names,
        forms=forms,
        gram_normalization=choose(GramNormalization, gram_normalization, "gram_normalization"),
        triangle=gram,  # half the bytes; decoding makes the matrix whole again
        element_type=choose(ElementType, element_type, "element_type"),
        resize=resize or Resize(),
    )


def read_objective(objective: Objective) -> Objective:
    """The objective with its pictures as they travel: they may be given as any input.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture is wrong.
    """

    def picture(value: Any, field: str) -> Any:
        # A starting picture or target made by arithmetic may leave 0..1: arrays of the right shape pass as they are.
        is_array = isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 3
        return value if value is None or is_array else read_picture(value, field)

    return dataclasses.replace(
        objective,
        content=picture(objective.content, "objective.content"),
        styles=tuple(
            Style(picture(style.picture, field), style.weight, *read_regions(style, field))  # type: ignore[arg-type]
            for field, style in ((f"objective.styles[{i}]", style) for i, style in enumerate(objective.styles))
        ),
    )

"""What users give as a picture, brought to what travels: a path, bytes, a PIL picture, or an array.

Everything that can be wrong with an input is found here, before any network.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypeAlias, TypedDict, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from gramlet.channel import MESSAGE_BYTES
from gramlet.errors import InvalidInput, NotFound
from gramlet.types import (
    Adjustment,
    Colors,
    ElementType,
    Extraction,
    Form,
    GramNormalization,
    Initial,
    LineSearch,
    Objective,
    Optimizer,
    Picture,
    PictureStyle,
    Resize,
    ResizeMode,
    StageBalance,
    Style,
    Stylization,
    StylizeSettings,
)

if TYPE_CHECKING:
    from PIL import Image

PictureInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | Image.Image"
"""A path, an encoded file, pixels (uint8 (H, W, 3), (H, W, 4) or (H, W); float (3, H, W) in 0..1), or a PIL picture."""

StyleInput: TypeAlias = (
    "PictureInput | Style[PictureInput] | Sequence[PictureInput | Style[PictureInput] | tuple[PictureInput, float]]"
)
"""One style picture, or several; each alone, with its share of the style loss, or as a `Style` with its regions."""

E = TypeVar("E", bound=Enum)


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


# PNG keeps these as they are, so that the server sees what it would have seen in the file.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


def read_picture(value: PictureInput, field: str = "picture") -> Picture:
    """The picture as it travels: an encoded file, or pixels.

    Args:
        value: A path, bytes, a PIL picture, or an array (anything with `__array__`).
        field: What the caller calls it, for errors.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, or an array of another shape or type.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _checked_file(bytes(value), field, "the bytes")
    if isinstance(value, str | os.PathLike):
        return _checked_file(_read_file(value, field), field, os.fspath(value))
    if _is_pil(value):
        return _encode_pil(value, field)
    if hasattr(value, "__array__"):
        return _checked_array(np.asarray(value), field)
    kind = type(value).__name__
    raise InvalidInput(f"a picture is a path, bytes, a PIL picture or an array, not {kind}", field=field)


def read_mask(value: PictureInput, field: str = "mask") -> Picture:
    """A mask as it travels: like `read_picture`, but arrays may also be (H, W) of booleans or of floats in 0..1.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, or an array of another shape or type.
    """
    if hasattr(value, "__array__") and not _is_pil(value) and (values := np.asarray(value)).ndim == 2:
        if values.dtype == np.bool_:
            return values.astype(np.uint8) * np.uint8(255)
        if values.size and np.issubdtype(values.dtype, np.floating):
            return _unit_floats(values, field)
    return read_picture(value, field)


def is_one_picture(value: object) -> bool:
    """Whether the value is one picture rather than several."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(value):
        return True
    return hasattr(value, "__array__") and np.ndim(value) in (2, 3)


def _read_file(path: str | os.PathLike[str], field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {os.fspath(path)}", field=field) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {os.fspath(path)}: {error.strerror}", field=field) from None


def _checked_file(data: bytes, field: str, name: str) -> bytes:
    if not data:
        raise InvalidInput(f"{name}: empty, no picture", field=field)
    if len(data) >= MESSAGE_BYTES:
        raise InvalidInput(f"{name}: {len(data)} bytes do not fit a message of {MESSAGE_BYTES}", field=field)
    return data


def _is_pil(value: object) -> TypeGuard[Image.Image]:
    # Without importing PIL: a PIL picture can only come from a caller who has.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def _encode_pil(image: Image.Image, field: str) -> bytes:
    from PIL import ImageOps

    if not image.width or not image.height:
        raise InvalidInput("an empty picture", field=field)
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in _PNG_MODES:
        # "I" is how older releases of PIL open 16-bit files.
        upright = upright.convert("I;16" if upright.mode == "I" else "RGB")
    file = BytesIO()
    upright.save(file, format="PNG", compress_level=1)
    return _checked_file(file.getvalue(), field, "the picture")


def _checked_array(values: NDArray[Any], field: str) -> Picture:
    if values.size == 0:
        raise InvalidInput(f"an empty array {values.shape}", field=field)
    if values.dtype == np.uint8 and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        return np.ascontiguousarray(values) if values.shape[2:] == (3,) else _encode_array(values, field)
    if np.issubdtype(values.dtype, np.floating) and values.ndim == 3 and values.shape[0] == 3:
        return _unit_floats(values, field)
    kind = f"{values.dtype} {values.shape}"
    raise InvalidInput(
        f"an array is uint8 (H, W, 3), (H, W, 4) or (H, W), or floating point (3, H, W), not {kind}", field=field
    )


def _unit_floats(values: NDArray[Any], field: str) -> NDArray[np.float32]:
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails as well
        raise InvalidInput("floating point pixels are in 0..1; for 0..255 give uint8", field=field)
    return np.ascontiguousarray(values, dtype=np.float32)


def _encode_array(values: NDArray[np.uint8], field: str) -> bytes:
    from PIL import Image

    return _encode_pil(Image.fromarray(values), field)


def choose(kind: type[E], value: E | str, field: str) -> E:
    """The member of an enumeration, given itself or its value such as `"lbfgs"`.

    Raises:
        InvalidInput: There is none of that value; the message lists them.
    """
    if isinstance(value, kind):
        return value
    for member in kind:
        if member.value == value:
            return member
    raise InvalidInput(f"{value!r} is none of {', '.join(str(member.value) for member in kind)}", field=field)


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
        return Style(read_picture(one[0], field), float(one[1]))
    if not isinstance(one, Style):
        return Style(read_picture(one, field))
    return Style(read_picture(one.picture, field), one.weight, *_read_regions(one, field))


def _read_regions(style: Style[Any], field: str) -> tuple[Picture | None, Picture | None]:
    def mask(name: str) -> Picture | None:
        value = getattr(style, name)
        return None if value is None else read_mask(value, f"{field}.{name}")

    return mask("content_region"), mask("style_region")


def make_adjustment(
    content_weight: float | None,
    style_weight: float | None,
    total_variation_weight: float | None,
    style_stages: Mapping[str, float] | Sequence[str] | None,
) -> Adjustment:
    """New weights for a run; stages may be given as their names, each of weight 1."""
    return Adjustment(content_weight, style_weight, total_variation_weight, _stage_weights(style_stages))


def _stage_weights(stages: Mapping[str, float] | Sequence[str] | None) -> Mapping[str, float] | None:
    return stages if stages is None or isinstance(stages, Mapping) else dict.fromkeys(stages, 1.0)


def _make_settings(options: StylizeOptions, initial: Initial | None) -> StylizeSettings:
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, kind in {
        "gram_normalization": GramNormalization,
        "stage_balance": StageBalance,
        "optimizer": Optimizer,
        "line_search": LineSearch,
        "colors": Colors,
    }.items():
        if name in values:
            values[name] = choose(kind, values[name], name)
    values["style_stages"] = _stage_weights(values.get("style_stages"))
    for name in ("size", "iterations", "history_size", "scales", "style_size"):
        if name in values and not 0 < values[name] < 2**32:
            raise InvalidInput(f"must be a positive whole number, not {values[name]}", field=name)
    if not 0 <= values.get("seed", 0) < 2**64:
        raise InvalidInput("must be between 0 and 2^64 - 1", field="seed")
    return StylizeSettings(initial=initial, **values)


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
            Style(picture(style.picture, field), style.weight, *_read_regions(style, field))  # type: ignore[arg-type]
            for field, style in ((f"objective.styles[{i}]", style) for i, style in enumerate(objective.styles))
        ),
    )

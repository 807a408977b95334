"""Codecs of gramlet.tensor.v1: pictures, resizing, timing, the error of one picture. Tensors: `arrays`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gramlet.errors import GramletError, InvalidInput, error_class
from gramlet.tensor.arrays import decode_tensor, put_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec
from gramlet.tensor.v1 import picture_pb2, timing_pb2
from gramlet.types import ElementType, Picture, Resize, ResizeMode, Timing

_RESIZE_MODE = EnumCodec(
    {
        ResizeMode.LONGEST_SIDE: picture_pb2.Resize.MODE_LONGEST_SIDE,
        ResizeMode.SHORTEST_SIDE: picture_pb2.Resize.MODE_SHORTEST_SIDE,
        ResizeMode.CENTER_CROP: picture_pb2.Resize.MODE_CENTER_CROP,
        ResizeMode.STRETCH: picture_pb2.Resize.MODE_STRETCH,
        ResizeMode.KEEP: picture_pb2.Resize.MODE_UNSPECIFIED,
    }
)
_RESIZE = MessageCodec(Resize, picture_pb2.Resize, mode=_RESIZE_MODE)
TIMING = MessageCodec(Timing, timing_pb2.Timing)


def encode_picture(picture: Picture) -> picture_pb2.Picture:
    """An encoded file (bytes), or pixels: (H, W, 3) uint8, or (3, H, W) floating point in 0..1."""
    message = picture_pb2.Picture()
    put_picture(message, picture)
    return message


def put_picture(message: picture_pb2.Picture, picture: Picture) -> None:
    """Puts a picture into an empty message. One that is a part of another message is not copied into it then."""
    if isinstance(picture, bytes):
        message.encoded = picture
    else:
        is_bytes = picture.dtype == np.uint8
        put_tensor(message.pixels, picture, ElementType.UINT8 if is_bytes else ElementType.FLOAT32)


def decode_picture(message: picture_pb2.Picture, field: str = "picture") -> Picture:
    """The encoded file as bytes, or the pixels as (H, W, 3) uint8 or (3, H, W) float32. The array may be read-only.

    Raises:
        InvalidInput: No picture, or pixels of another shape, or values that are not numbers.
    """
    match message.WhichOneof("source"):
        case "encoded":
            return message.encoded
        case "pixels":
            return _checked_pixels(decode_tensor(message.pixels, f"{field}.pixels"), f"{field}.pixels")
        case _:
            raise InvalidInput("no picture: set `encoded` or `pixels`", field=field)


def decode_float_picture(message: Any, field: str) -> NDArray[np.float32]:
    """A tensor message that must be a picture (3, H, W) of floating point, as float32. Its values are not looked at."""
    values = decode_tensor(message, field)
    if values.dtype != np.float32 or values.ndim != 3 or values.shape[0] != 3:
        raise InvalidInput(
            f"pixels must be floating point of shape (3, H, W), not {values.dtype} {values.shape}", field=field
        )
    return values


def _checked_pixels(values: NDArray[Any], field: str) -> NDArray[Any]:
    axis = 2 if values.dtype == np.uint8 else 0
    if values.ndim != 3 or values.shape[axis] != 3:
        raise InvalidInput(
            f"pixels must be uint8 (H, W, 3) or floating point (3, H, W), not {values.dtype} {values.shape}",
            field=field,
        )
    return _finite(values, field)


def _finite(values: NDArray[Any], field: str) -> NDArray[Any]:
    if values.dtype != np.uint8 and not np.isfinite(values).all():
        raise InvalidInput("pixels must be finite numbers", field=field)
    return values


def decode_mask(message: picture_pb2.Picture, field: str = "mask") -> Picture:
    """Like `decode_picture`, for a mask, whose pixels may also be (H, W) of either type.

    Raises:
        InvalidInput: As `decode_picture`.
    """
    if message.WhichOneof("source") == "pixels" and len(message.pixels.shape) == 2:
        return _finite(decode_tensor(message.pixels, f"{field}.pixels"), f"{field}.pixels")
    return decode_picture(message, field)


def decode_picture_or_error(message: picture_pb2.Picture, field: str) -> Picture | GramletError:
    """Like `decode_picture`; a picture that cannot be decoded becomes an error, and the other pictures go on."""
    try:
        return decode_picture(message, field)
    except InvalidInput as error:
        return error


def _decode_resize(message: picture_pb2.Resize, field: str) -> Resize:
    resize = _RESIZE.decode(message, field)
    if resize.mode is ResizeMode.KEEP and resize.size:
        raise InvalidInput("a size needs a mode", field=f"{field}.mode")
    if resize.mode is not ResizeMode.KEEP and not resize.size:
        raise InvalidInput("must be positive", field=f"{field}.size")
    return resize


PICTURE = Functions(encode_picture, decode_picture)
MASK = Functions(encode_picture, decode_mask)
RESIZE = Functions(_RESIZE.encode, _decode_resize)


def encode_picture_error(error: GramletError) -> picture_pb2.PictureError:
    """Why one picture failed."""
    return picture_pb2.PictureError(code=error.code, message=error.message, field=error.field)


def decode_picture_error(message: picture_pb2.PictureError) -> GramletError:
    """Why one picture failed: the error that a call with this picture alone would have raised."""
    return error_class(message.code)(message.message, field=message.field)

"""Arrays to tensor messages and back, without torch: float32, float16, bfloat16, uint8, packed symmetric matrices."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gramlet.errors import InvalidInput
from gramlet.tensor.codec import EnumCodec, Functions
from gramlet.tensor.v1 import tensor_pb2
from gramlet.types import ElementType

ELEMENT_TYPE = EnumCodec(
    {
        ElementType.FLOAT32: tensor_pb2.ELEMENT_TYPE_FLOAT32,
        ElementType.FLOAT16: tensor_pb2.ELEMENT_TYPE_FLOAT16,
        ElementType.BFLOAT16: tensor_pb2.ELEMENT_TYPE_BFLOAT16,
        ElementType.UINT8: tensor_pb2.ELEMENT_TYPE_UINT8,
    },
    default=ElementType.FLOAT32,
    closed=True,
)
_STORED_AS: dict[ElementType, np.dtype[Any]] = {
    ElementType.FLOAT32: np.dtype("<f4"),
    ElementType.FLOAT16: np.dtype("<f2"),
    ElementType.BFLOAT16: np.dtype("<u2"),
    ElementType.UINT8: np.dtype("u1"),
}
_MOST_AXES = 8
_MOST_CHANNELS = 2048
"""The most channels of any network. The indices of triangles are kept for matrices up to this size only, because they
take memory with the square of it."""


def decode_float_type(value: int, field: str) -> ElementType:
    """The element type of a result, float32 if unset.

    Raises:
        InvalidInput: Not a floating point type, or one that this release does not know.
    """
    element_type = ELEMENT_TYPE.decode(value, field)
    if element_type is ElementType.UINT8:
        raise InvalidInput("results are floating point: use float32, float16 or bfloat16", field=field)
    return element_type


FLOAT_TYPE = Functions(ELEMENT_TYPE.encode, decode_float_type)


def encode_tensor(array: ArrayLike, element_type: ElementType = ElementType.FLOAT32) -> tensor_pb2.Tensor:
    """Packs an array of any shape.

    Raises:
        InvalidInput: A finite value is too large for float16.
    """
    message = tensor_pb2.Tensor()
    put_tensor(message, array, element_type)
    return message


def put_tensor(message: tensor_pb2.Tensor, array: ArrayLike, element_type: ElementType = ElementType.FLOAT32) -> None:
    """Packs an array into an empty message. One that is a part of another message is not copied into it then.

    Raises:
        InvalidInput: A finite value is too large for float16.
    """
    values = np.asarray(array)
    message.element_type = ELEMENT_TYPE.encode(element_type)
    message.shape.extend(values.shape)
    message.data = _to_stored(values, element_type).tobytes()


def encode_symmetric(matrix: ArrayLike, element_type: ElementType = ElementType.FLOAT32) -> tensor_pb2.Tensor:
    """Packs the upper triangle of a symmetric (n, n) matrix: about half the bytes.

    Raises:
        InvalidInput: A finite value is too large for float16.
    """
    values = np.asarray(matrix)
    triangle = _to_stored(values[_upper_triangle(len(values))], element_type)
    return tensor_pb2.Tensor(
        element_type=ELEMENT_TYPE.encode(element_type),
        shape=values.shape,
        data=triangle.tobytes(),
        packing=tensor_pb2.PACKING_UPPER_TRIANGLE,
    )


def decode_tensor(message: tensor_pb2.Tensor, field: str = "tensor") -> NDArray[Any]:
    """Unpacks an array: uint8 as it is, every floating type as float32. The array may be read-only.

    Args:
        message: The tensor.
        field: Its place in the request, for errors.

    Raises:
        InvalidInput: The data is not what shape, element type and packing promise.
    """
    element_type = ELEMENT_TYPE.decode(message.element_type, f"{field}.element_type")
    shape = _checked_shape(message, field)
    packed = message.packing == tensor_pb2.PACKING_UPPER_TRIANGLE
    count = shape[0] * (shape[0] + 1) // 2 if packed else math.prod(shape)
    data = message.data
    expected = count * _STORED_AS[element_type].itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"{len(data)} bytes, but shape {shape} of {element_type.value} takes {expected}", field=f"{field}.data"
        )
    values = _from_stored(np.frombuffer(data, dtype=_STORED_AS[element_type]), element_type)
    return _unpack_triangle(values, shape[0]) if packed else values.reshape(shape)


TENSOR = Functions(encode_tensor, decode_tensor)


def _checked_shape(message: tensor_pb2.Tensor, field: str) -> tuple[int, ...]:
    shape = tuple(message.shape)
    if len(shape) > _MOST_AXES or any(length < 1 for length in shape):
        raise InvalidInput(f"a tensor has at most {_MOST_AXES} axes, none of them empty", field=f"{field}.shape")
    if message.packing == tensor_pb2.PACKING_UPPER_TRIANGLE:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise InvalidInput(f"only a square matrix has an upper triangle, not {shape}", field=f"{field}.shape")
    elif message.packing != tensor_pb2.PACKING_UNSPECIFIED:
        raise InvalidInput(f"unknown packing {message.packing}", field=f"{field}.packing")
    return shape


def _to_stored(values: NDArray[Any], element_type: ElementType) -> NDArray[Any]:
    if element_type is ElementType.BFLOAT16:
        return _to_bfloat16(np.ascontiguousarray(values, dtype=np.float32))
    if element_type is ElementType.FLOAT16:
        return _to_float16(values)
    return values.astype(_STORED_AS[element_type], copy=False)


def _from_stored(values: NDArray[Any], element_type: ElementType) -> NDArray[Any]:
    if element_type is ElementType.BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    if element_type is ElementType.FLOAT16:
        return values.astype(np.float32)
    return values


def _to_float16(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    # Raw Gram matrices easily exceed 65504: an infinity that nobody asked for would poison everything after it.
    if np.any(np.isinf(half) & np.isfinite(values)):
        raise InvalidInput(f"{np.abs(values).max():.4g} does not fit float16: use bfloat16 or float32")
    return half


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    # Rounding could carry a NaN's payload into infinity: keep its upper half and make it quiet.
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype("<u2")


def _upper_triangle(n: int) -> NDArray[np.bool_]:
    return _kept_triangle(n) if n <= _MOST_CHANNELS else _new_triangle(n)


def _new_triangle(n: int) -> NDArray[np.bool_]:
    return ~np.tri(n, k=-1, dtype=np.bool_)


_kept_triangle = lru_cache(maxsize=16)(_new_triangle)  # a network has a handful of channel counts


def _unpack_triangle(values: NDArray[Any], n: int) -> NDArray[Any]:
    matrix = np.empty((n, n), dtype=values.dtype)
    upper = _upper_triangle(n)
    matrix[upper] = values
    matrix.T[upper] = values
    return matrix

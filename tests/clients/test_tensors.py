from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import InvalidInput
from gramlet.tensor.arrays import decode_tensor, encode_symmetric, encode_tensor
from gramlet.tensor.v1 import tensor_pb2
from gramlet.types import ElementType
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, max_side=5)


@given(arrays.arrays(np.float32, SHAPES, elements=FLOATS))
def test_float32_arrives_bit_for_bit(values: Any) -> None:
    assert decode_tensor(encode_tensor(values)).tobytes() == values.tobytes()


@given(arrays.arrays(np.uint8, SHAPES))
def test_bytes_arrive_as_bytes(values: Any) -> None:
    decoded = decode_tensor(encode_tensor(values, ElementType.UINT8))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, values)


@given(arrays.arrays(np.float32, 64, elements=FLOATS))
def test_bfloat16_rounds_as_torch_does(values: Any) -> None:
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(decode_tensor(encode_tensor(values, ElementType.BFLOAT16)), expected, equal_nan=True)


def test_every_bfloat16_survives() -> None:
    values = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    assert np.array_equal(decode_tensor(encode_tensor(values, ElementType.BFLOAT16)), values, equal_nan=True)


@given(arrays.arrays(np.float32, 64, elements=st.floats(-60000, 60000, width=32)))
def test_float16_rounds_as_numpy_does(values: Any) -> None:
    expected = values.astype(np.float16).astype(np.float32)
    assert np.array_equal(decode_tensor(encode_tensor(values, ElementType.FLOAT16)), expected)


def test_what_float16_cannot_hold_is_refused_rather_than_made_infinite() -> None:
    with pytest.raises(InvalidInput, match=r"7e\+04 does not fit float16: use bfloat16 or float32"):
        encode_tensor(np.array([1.0, 70000.0], np.float32), ElementType.FLOAT16)


def test_an_infinity_that_was_there_passes_as_float16() -> None:
    assert decode_tensor(encode_tensor([math.inf], ElementType.FLOAT16))[0] == math.inf


@given(arrays.arrays(np.float32, st.integers(1, 12).map(lambda n: (n, n)), elements=st.floats(-9, 9, width=32)))
def test_a_symmetric_matrix_travels_in_half_and_arrives_whole(values: Any) -> None:
    matrix = values + values.T
    message = encode_symmetric(matrix)
    n = len(matrix)
    assert len(message.data) == 4 * n * (n + 1) // 2
    assert np.array_equal(decode_tensor(message), matrix)


def test_the_triangle_is_stored_row_by_row() -> None:
    message = encode_symmetric([[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert np.array_equal(np.frombuffer(message.data, np.float32), [1, 2, 3, 4, 5, 6])


def test_arrays_in_any_memory_order_arrive_in_theirs() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    for element_type in (ElementType.FLOAT32, ElementType.FLOAT16, ElementType.BFLOAT16):
        assert np.array_equal(decode_tensor(encode_tensor(values, element_type)), values)


def test_float32_is_read_where_it_lies() -> None:
    assert not decode_tensor(encode_tensor(np.zeros(3, np.float32))).flags.owndata


BROKEN = {
    "data": tensor_pb2.Tensor(shape=[2, 2], data=b"\0" * 12),
    "element_type": tensor_pb2.Tensor(element_type=99, shape=[1], data=b"\0" * 4),  # type: ignore[arg-type]
    "packing": tensor_pb2.Tensor(shape=[1], data=b"\0" * 4, packing=9),  # type: ignore[arg-type]
}
BAD_SHAPES = [[-1, 4], [0], [2**62, 2**62], [1] * 9]


@pytest.mark.parametrize("part", BROKEN)
def test_a_broken_tensor_names_its_part(part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_tensor(BROKEN[part], "picture.pixels")
    assert caught.value.field == f"picture.pixels.{part}"


@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_an_impossible_shape_is_refused_before_memory_is_asked_for(shape: list[int]) -> None:
    with pytest.raises(InvalidInput):
        decode_tensor(tensor_pb2.Tensor(shape=shape, data=b"\0" * 4))


def test_only_square_matrices_come_as_triangles() -> None:
    with pytest.raises(InvalidInput, match="square"):
        decode_tensor(tensor_pb2.Tensor(shape=[2, 3], data=b"\0" * 12, packing=tensor_pb2.PACKING_UPPER_TRIANGLE))

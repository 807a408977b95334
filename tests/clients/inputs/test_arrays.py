"""Arrays of any layout and type are the pictures that they mean, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import InvalidInput
from gramlet.inputs.pictures import read_mask, read_picture
from gramlet.types import Limits, Resize, ResizeMode
from gramlet_server.pictures.prepare import shape
from PIL import Image

from tests.clients.inputs.seen import as_seen


def test_a_tensor_of_torch_is_an_array() -> None:
    read = read_picture(torch.full((3, 4, 5), 0.5))  # type: ignore[arg-type]
    assert isinstance(read, np.ndarray)
    assert read.dtype == np.float32


def shares_of(pixels: Any) -> Any:
    """The picture as floating point numbers, (H, W, 3) in 0..1."""
    return pixels / np.float64(255)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda p: p.transpose(2, 0, 1),
        lambda p: np.asfortranarray(p),
        lambda p: p[::-1, ::-1].copy()[::-1, ::-1],
        lambda p: p.astype(np.int64),
        lambda p: p.astype(np.uint16) * 257,
        lambda p: p.astype(">u2") * 257,
        lambda p: shares_of(p),
        lambda p: shares_of(p).astype(np.float32).transpose(2, 0, 1),
        lambda p: shares_of(p).astype(">f8"),
        lambda p: torch.from_numpy(p.copy()),
        lambda p: torch.from_numpy(p.copy()).permute(2, 0, 1),
        lambda p: torch.from_numpy(shares_of(p)).requires_grad_(),
        lambda p: torch.from_numpy(shares_of(p)).permute(2, 0, 1).requires_grad_(),
        lambda p: np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]),
        lambda p: np.dstack([shares_of(p), np.ones(p.shape[:2])]),
    ],
)
def test_pixels_of_any_layout_and_type_are_the_same_picture(pixels: Any, as_given: Any) -> None:
    expected = (pixels.transpose(2, 0, 1) / 255).astype(np.float32)
    np.testing.assert_allclose(as_seen(read_picture(as_given(pixels))), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken(pixels: Any, dtype: torch.dtype) -> None:
    given = torch.from_numpy(shares_of(pixels)).to(dtype)
    np.testing.assert_allclose(as_seen(read_picture(given)), shares_of(pixels).transpose(2, 0, 1), atol=4e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (6, 8, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.bool_])
def test_one_channel_is_gray(shape: tuple[int, ...], kind: type[Any]) -> None:
    given = np.ones(shape, kind) * (255 if kind is np.uint8 else 1)
    np.testing.assert_array_equal(as_seen(read_picture(given.astype(kind))), np.ones((3, 6, 8)))


def test_where_channels_may_be_first_or_last_the_type_decides() -> None:
    random = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_allclose(as_seen(read_picture(random)), random.transpose(2, 0, 1) / 255, atol=1e-6)
    np.testing.assert_allclose(as_seen(read_picture(random / 255.0)), random / 255, atol=1e-6)


def test_what_a_filter_overshoots_is_cut_and_what_is_not_scaled_is_refused(pixels: Any) -> None:
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    larger = torch.nn.functional.interpolate(planes / 255, size=(90, 130), mode="bicubic")[0]
    assert larger.min() < 0
    assert larger.max() > 1
    seen = as_seen(read_picture(larger))  # type: ignore[arg-type]
    np.testing.assert_allclose(seen, larger.clamp(0, 1), atol=1e-6)
    for wrong in (planes[0], planes[0] / 127.5 - 1):
        with pytest.raises(InvalidInput, match=r"floating point pixels are in 0\.\.1, these are in"):
            read_picture(wrong)


def test_transparent_floats_are_laid_on_white_as_the_service_lays_files() -> None:
    pixels = np.zeros((4, 6, 4))
    pixels[:, :3, 3] = 0.25
    seen = as_seen(read_picture(pixels))
    np.testing.assert_allclose(seen[:, :, :3], 0.75)
    np.testing.assert_array_equal(seen[:, :, 3:], 1)


def test_an_array_of_no_memory_is_refused_before_it_is_copied() -> None:
    for axes in ((10**6, 10**6), (3, 10**5, 10**5)):
        for kind in (np.uint8, np.float64):
            with pytest.raises(InvalidInput, match="send it smaller"):
                read_picture(np.broadcast_to(np.zeros((), kind), axes))


@pytest.mark.parametrize(
    ("given", "resize", "size"),
    [
        (np.zeros((4800, 4800, 3), np.uint8), None, (4800, 4800)),  # small as a file
        (np.zeros((3, 2400, 2500), np.float32), Resize(ResizeMode.LONGEST_SIDE, 64), (127, 132)),
    ],
)
def test_an_array_too_large_for_a_message_is_sent_smaller(given: Any, resize: Resize | None, size: Any) -> None:
    sent = read_picture(given, "picture", resize)
    assert (len(sent) if isinstance(sent, bytes) else sent.nbytes) < 2**20
    assert shape(sent, Limits()) == size


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 4), (6, 8, 3)])
def test_grey_and_transparent_arrays_are_pictures(shape: tuple[int, ...]) -> None:
    assert as_seen(read_picture(np.full(shape, 255, np.uint8))).shape == (3, 6, 8)


@pytest.mark.parametrize("given", [np.uint16, "I;16", "I", ">u2"])
def test_eight_bit_levels_in_sixteen_bits_are_refused_instead_of_being_black(pixels: Any, given: Any) -> None:
    levels = pixels[:, :, 0].astype(np.uint16)
    value = Image.fromarray(levels).convert(given) if given in ("I;16", "I") else levels.astype(given)
    for read in (read_picture, read_mask)[: 1 if given == "I" else 2]:  # masks of 32 bits may have 8-bit levels
        with pytest.raises(InvalidInput, match=r"these end at 255, which is black: give 8-bit levels as uint8"):
            read(value)
    assert as_seen(read_picture(np.zeros((4, 4), np.uint16))).max() == 0  # black is black


def test_levels_that_hardly_use_their_scale_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="style: uint16 levels .* these end at 4000: a dark picture"):
        read_picture(np.full((4, 4), 4000, np.uint16), "style")
    for kind in (np.uint8, np.int64):
        with pytest.warns(UserWarning, match="levels go from 0 to 255, and these are 0 and 1: black. Give bool"):
            read_picture(np.eye(4, dtype=kind))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((4, 4), 300, np.int32), r"are in 300\.\.300: give 16 bits as uint16"),
        (np.full((4, 4), 70_000, np.int64), r"are in 70000\.\.70000: scale them"),
        (np.ma.masked_greater(np.arange(16, dtype=np.uint8).reshape(4, 4), 7), "a masked array: say what is in its"),
    ],
)
def test_arrays_whose_meaning_is_not_clear_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_picture(given)

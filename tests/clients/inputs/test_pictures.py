"""A picture may be a path, bytes, an open file, a PIL picture or an array; anything else is refused by its name."""

from __future__ import annotations

import array
import base64
import os
import urllib.parse
from collections.abc import Iterable
from contextlib import nullcontext
from io import BytesIO, StringIO, TextIOBase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.inputs.pictures import is_one_picture, read_picture, several_pictures, validate
from gramlet.inputs.values import several
from gramlet.train.inputs import read_labelled
from gramlet.types import Resize, ResizeMode
from PIL import Image

from tests.clients.inputs.seen import as_seen


def test_a_path_bytes_a_pil_picture_and_an_array_are_the_same_picture(picture: Path, png: bytes, pixels: Any) -> None:
    floats = np.ascontiguousarray(pixels.transpose(2, 0, 1)) / np.float64(255)
    expected = floats.astype(np.float32)
    opened = Image.open(BytesIO(png))
    for value in (picture, str(picture), png, bytearray(png), memoryview(png), opened, pixels, floats):
        np.testing.assert_allclose(as_seen(read_picture(value)), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "LAB"])
def test_every_mode_of_pil_is_seen_as_a_picture(mode: str) -> None:
    assert as_seen(read_picture(Image.new(mode, (7, 5)))).shape == (3, 5, 7)


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str) -> None:
    gray = Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).convert(mode)
    np.testing.assert_allclose(as_seen(read_picture(gray)), 0.5, atol=0.01)


def test_a_pil_picture_is_turned_as_its_file_would_be(pixels: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", exif=exif)
    of_pil, of_file = read_picture(Image.open(BytesIO(file.getvalue()))), read_picture(file.getvalue())
    assert as_seen(of_pil).shape == (3, 48, 64)
    np.testing.assert_array_equal(as_seen(of_pil), as_seen(of_file))


@pytest.mark.parametrize(
    "as_given",
    [
        lambda data: BytesIO(data),
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint8)[:, None],  # as cv2.imencode returns it
        lambda data: array.array("B", data),
        lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
        lambda data: "DATA:," + urllib.parse.quote_from_bytes(data),
    ],
)
def test_a_file_may_be_given_in_many_ways(png: bytes, as_given: Any) -> None:
    given = as_given(png)
    assert read_picture(given) == png
    assert is_one_picture(given) or isinstance(given, array.array)


def test_an_open_file_is_read_from_where_it_is_and_stays_there(picture: Path, png: bytes) -> None:
    with picture.open("rb") as file:
        assert read_picture(file) == read_picture(file) == png
        assert file.tell() == 0
    written = BytesIO()
    written.write(png)  # now at its end, as after Image.save
    assert read_picture(written) == png
    inside = BytesIO(b"header" + png)
    inside.seek(6)
    assert read_picture(inside) == png


class Asynchronous:
    """As aiofiles and Starlette have them."""

    async def read(self, size: int = -1) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda path: path.open(), "opened as text: open it with mode 'rb'"),
        (lambda path: StringIO("text"), "opened as text"),
        (lambda path: Asynchronous(), "asynchronous"),
        (lambda path: BytesIO(), "empty, not a picture"),
        (lambda path: "a\0.jpg", "null byte"),
        (lambda path: "data:image/png;base64", "not a data: URI"),
        (lambda path: "https://example.org/a.jpg", "is an address"),
        (lambda path: "x" * 5000, r"^content: x+\.\.\. is no path: File name too long"),
        (lambda path: np.frombuffer(b"junk", np.uint8)[None, None, None], "an array of pixels is"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(picture: Path, given: Any, reason: str) -> None:
    value = given(picture)
    with value if isinstance(value, TextIOBase) else nullcontext(), pytest.raises(InvalidInput, match=reason):
        read_picture(value, "content")


def test_a_closed_file_and_a_pil_picture_of_one_are_refused(picture: Path, png: bytes) -> None:
    with picture.open("rb") as file:
        opened = Image.open(file)
    cut = Image.open(BytesIO(png[: len(png) // 2]))
    reasons = {"closed": file, "its file is closed: call load": opened, "cut short|truncated|broken": cut}
    for reason, value in reasons.items():
        with pytest.raises(InvalidInput, match=reason):
            read_picture(value)  # type: ignore[arg-type]


def test_a_file_too_large_is_reduced_where_the_service_would_reduce_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scan.bmp"
    noise = np.random.default_rng(0).integers(0, 256, (75, 75, 3), np.uint8)
    Image.fromarray(noise).resize((3600, 3600), Image.Resampling.NEAREST).save(path)
    with caplog.at_level("INFO", "gramlet"):
        sent = read_picture(path, "picture", Resize(ResizeMode.CENTER_CROP, 225))
    seen = as_seen(sent)
    assert seen.shape == (3, 450, 450)  # twice what the service needs
    np.testing.assert_allclose(seen[:, 2::6, 2::6], noise.transpose(2, 0, 1) / 255, atol=0.01)
    assert "scan.bmp has 38.9 MB: sent reduced, to" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        b"",
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.full((4, 5, 3), 256),
        np.full((4, 5, 3), -1),
        np.zeros((4, 5, 3), np.complex64),
        np.zeros((4, 5, 3), object),
        np.full((3, 4, 5), 1.5),
        np.full((3, 4, 5), -0.1),
        np.full((3, 4, 5), np.nan),
        np.zeros((2, 3, 4, 5)),
    ],
    ids=lambda value: f"{type(value).__name__}{getattr(value, 'shape', '')}",
)
def test_what_is_no_picture_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_picture(value, "content")
    assert caught.value.field == "content"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"content: there is no file .*nowhere\.jpg"):
        read_picture(tmp_path / "nowhere.jpg", "content")


def test_a_directory_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        read_picture(tmp_path)


def test_a_file_too_large_for_a_message_is_refused_here(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(InvalidInput, match=r"large\.png has 68\.2 MB and does not fit a message"):
        read_picture(large)


@pytest.mark.parametrize(
    ("value", "one"),
    [
        ("a.jpg", True),
        (Path("a.jpg"), True),
        (b"x", True),
        (np.zeros((4, 5, 3)), True),
        (Image.new("RGB", (1, 1)), True),
        (["a.jpg"], False),
        (iter([]), False),
        (np.zeros((2, 4, 5, 3)), False),
    ],
)
def test_one_picture_is_told_from_many(value: Any, one: bool) -> None:
    assert is_one_picture(value) is one


def test_bytes_that_are_no_picture_are_refused_before_any_call(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("notes")
    with pytest.raises(InvalidInput, match=r"^content: not a picture of a known format"):
        read_picture(b"<html>", "content")
    with pytest.raises(InvalidInput, match=r"notes\.png: not a picture of a known format"):
        read_picture(path)


def test_a_picture_is_validated_without_a_call(png: bytes, pixels: Any) -> None:
    assert validate(png) == (48, 64)
    assert validate(pixels) == (48, 64)
    assert validate(pixels / 255.0) == (48, 64)
    for broken, reason in ((png[:-60], "the file cannot be decoded"), (b"GIF89a", "cannot be decoded"), (b"", "empty")):
        with pytest.raises(InvalidInput, match=reason) as caught:
            validate(broken, "upload")
        assert caught.value.field == "upload"


def test_a_path_that_is_no_path_is_answered_with_the_reason(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    for given, reason in (
        (base64.b64encode(png * 5).decode(), r"is no path: .* base64\.b64decode"),
        (str(path).encode(), "bytes are the content of a file"),
        ("~/nowhere.png", "expanduser"),
        ("*.png", "patterns are filled in by a shell"),
        ("-", "/dev/stdin"),
        (f"{path} ", r"no file '.*a\.png '"),
    ):
        with pytest.raises(GramletError, match=reason):
            read_picture(given)


def test_text_of_numpy_and_file_uris_are_paths(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(png)
    assert read_picture(np.str_(path)) == read_picture(path.as_uri()) == png


def test_mappings_are_refused_where_their_values_would_be_lost() -> None:
    with pytest.raises(InvalidInput, match=r"list\(pictures\.values\(\)\)"):
        several_pictures({"a": b""}, Iterable)
    with pytest.raises(InvalidInput, match="mapping"):
        several({"style.png": 2.0}, "style")


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a named pipe"), ("/dev/zero", "a device")):
        with pytest.raises(InvalidInput, match=f"{kind}, not a file"):
            read_picture(path)
    with open("/dev/zero", "rb") as endless, pytest.raises(InvalidInput, match="not a picture"):
        read_picture(endless)


def test_a_pipe_that_the_process_was_given_is_read(png: bytes) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(png)
    assert read_picture(f"/dev/fd/{reader}") == png
    os.close(reader)


def test_a_picture_that_is_given_twice_is_named(picture: Path) -> None:
    given = {"a": [picture], "b": [picture]}
    with pytest.raises(InvalidInput, match=r"is given twice as 'a' and 'b': leave it or pictures\[0\] out") as found:
        read_labelled(given)
    assert found.value.field == "pictures[1]"

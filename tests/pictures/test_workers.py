"""Worker processes decode as this process does, and what happens to one of them happens to its file alone."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import Cancelled, GramletError, InvalidInput
from gramlet.types import Limits, Resize, ResizeMode
from gramlet_server.pictures import offload
from gramlet_server.pictures.decode import decode, opacity
from gramlet_server.pictures.headers import is_cheap, opened
from gramlet_server.pictures.prepare import Decoded, prepare
from gramlet_server.pictures.workers import DecodeWorkers, LocalDecoder, decoder_for
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"
NEVER = threading.Event()
SMALL = Resize(ResizeMode.CENTER_CROP, 24)


def file(width: int = 40, height: int = 30, kind: str = "JPEG", **how: bool) -> bytes:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **how)
    return data.getvalue()


@pytest.fixture(scope="module")
def huge() -> bytes:
    """A file that takes more than a tenth of a second to decode, on any processor."""
    data = io.BytesIO()
    Image.new("RGB", (9000, 7000)).save(data, "PNG", compress_level=1)
    return data.getvalue()


@pytest.fixture
def workers() -> Iterator[DecodeWorkers]:
    made = DecodeWorkers(1, Limits(), seconds=60)
    yield made
    made.close()


def check_same(found: Decoded | GramletError, expected: Decoded | GramletError) -> None:
    assert type(found) is type(expected)
    if isinstance(found, Decoded) and isinstance(expected, Decoded):
        assert np.array_equal(found.pixels, expected.pixels)
        assert (found.height, found.width, found.box) == (expected.height, expected.width, expected.box)
    if isinstance(found, GramletError) and isinstance(expected, GramletError):
        assert (found.message, found.field) == (expected.message, expected.field)


@pytest.mark.parametrize("resize", [Resize(), SMALL])
def test_every_file_has_the_answer_that_it_has_in_this_process(workers: DecodeWorkers, resize: Resize) -> None:
    pictures = [path.read_bytes() for path in sorted(SHARED.glob("malformed/*")) if path.is_file()]
    pictures += [file(), file(kind="PNG"), b"", bytes(Limits.picture_bytes + 1)]
    pictures += [np.zeros((30, 40, 3), np.uint8), np.zeros((3, 30, 40), np.float32)]  # type: ignore[list-item]
    found = workers.decode(pictures, resize, NEVER)
    expected = LocalDecoder(Limits()).decode(pictures, resize, NEVER)
    for pair in zip(found, expected, strict=True):
        check_same(*pair)


def test_more_pixels_than_the_shared_memory_holds_come_one_after_another(workers: DecodeWorkers) -> None:
    pictures = [file(1000, 800, "PNG")] * 30
    limits = Limits(decoded_pixels=1_000_000, network_pixels=1_000_000)
    narrow = DecodeWorkers(1, limits, seconds=60)
    try:
        found = narrow.decode(pictures, Resize(), NEVER)
    finally:
        narrow.close()
    (expected,) = LocalDecoder(limits).decode(pictures[:1], Resize(), NEVER)
    for each in found:
        check_same(each, expected)


def test_a_killed_worker_costs_a_retry_only(workers: DecodeWorkers) -> None:
    workers.decode([file()], SMALL, NEVER)
    (first,) = workers.processes
    os.kill(first, signal.SIGKILL)
    found = workers.decode([file(), file()], SMALL, NEVER)
    assert all(isinstance(each, Decoded) for each in found)
    assert workers.processes != [first]


def test_a_file_that_takes_too_long_is_refused_and_no_other(huge: bytes) -> None:
    workers = DecodeWorkers(1, Limits(), seconds=0.1)
    try:
        before, refused, after = workers.decode([file(), huge, file()], Resize(ResizeMode.STRETCH, 24), NEVER)
    finally:
        workers.close()
    assert isinstance(before, Decoded)
    assert isinstance(after, Decoded)
    assert isinstance(refused, InvalidInput)
    assert "processor time" in refused.message


def test_cancelling_ends_the_decoding(workers: DecodeWorkers, huge: bytes) -> None:
    cancelled = threading.Event()
    workers.decode([file()], SMALL, NEVER)
    (first,) = workers.processes
    os.kill(first, signal.SIGSTOP)  # whatever it decodes, it takes forever
    threading.Timer(0.01, cancelled.set).start()
    with pytest.raises(Cancelled):
        workers.decode([huge], SMALL, cancelled)
    assert workers.processes == []
    assert isinstance(workers.decode([file()], SMALL, NEVER)[0], Decoded)


def test_what_is_cancelled_before_costs_no_worker(workers: DecodeWorkers) -> None:
    workers.decode([file()], SMALL, NEVER)
    running, cancelled = workers.processes, threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        workers.decode([file()], SMALL, cancelled)
    assert workers.processes == running


def test_with_few_cores_only_costly_files_leave_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    decoder = decoder_for(None, Limits(), 60)
    assert isinstance(decoder, DecodeWorkers)
    try:
        decoder.decode([file(), file(kind="PNG"), b"no picture"], SMALL, NEVER)
        assert decoder.processes == []
        decoder.decode([file(progressive=True)], SMALL, NEVER)
        assert len(decoder.processes) == 1
    finally:
        decoder.close()


@pytest.fixture
def used(workers: DecodeWorkers) -> Iterator[DecodeWorkers]:
    """Decodes what is costly in this process, as gramlet-server has it."""
    offload.set_pool(workers)
    yield workers
    offload.set_pool(None)


ROW = Resize(ResizeMode.LONGEST_SIDE, 20)
CALLS: list[Callable[[bytes], Any]] = [
    lambda data: prepare(data, ROW, Limits(), "content"),
    lambda data: decode(data, Limits(), "content", background="black"),
    lambda data: opacity(data, Limits(), "content"),
    lambda data: prepare(data, ROW, Limits(decoded_pixels=100), "content"),
]


@pytest.mark.parametrize("call", CALLS)
def test_what_other_services_decode_is_the_same_where_it_is_decoded_elsewhere(
    used: DecodeWorkers, call: Callable[[bytes], Any]
) -> None:
    def answer(data: bytes) -> Any:
        try:
            return call(data)
        except InvalidInput as error:
            return error.message, error.field

    files = [
        path.read_bytes() for path in sorted(SHARED.glob("malformed/*")) if path.is_file() and "bomb" not in path.name
    ]
    files += [file(progressive=True), file(kind="GIF")]
    found = [answer(data) for data in files]
    offload.set_pool(None)
    for one, data in zip(found, files, strict=True):
        np.testing.assert_array_equal(one, answer(data))


def test_a_file_of_another_service_that_takes_too_long_is_refused(huge: bytes) -> None:
    workers = DecodeWorkers(1, Limits(), seconds=0.1)
    offload.set_pool(workers)
    try:
        with pytest.raises(InvalidInput, match=r"content: .*processor time"):
            decode(huge, Limits(), "content")
    finally:
        offload.set_pool(None)
        workers.close()


@pytest.mark.parametrize(
    ("data", "cheap"),
    [
        (file(), True),
        (file(kind="PNG"), True),
        (b"no picture", True),
        (file(progressive=True), False),
        (file(5000, 4000), False),
        (file(kind="GIF"), False),
    ],
)
def test_files_are_cheap_by_their_header(data: bytes, cheap: bool) -> None:
    image = opened(data, Limits())
    assert (image is None or is_cheap(image)) == cheap

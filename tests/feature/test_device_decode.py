"""Files that the device decodes; libjpeg-turbo stands in for nvJPEG. tests/gpu runs the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from gramlet.errors import FailedPrecondition, GramletError, InvalidInput, OtherWeights
from gramlet.feature.types import Extraction, Features, Form
from gramlet.types import Limits, Resize, ResizeMode
from gramlet_server.backbone import load_network
from gramlet_server.feature import device_decode
from gramlet_server.feature.device import Device
from gramlet_server.feature.device_decode import NVJPEG, DeviceDecoder, JpegCodec
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.pixels import OnDevice
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.pictures.workers import LocalDecoder
from torch import Tensor

from tests.e2e.cluster import wait_until
from tests.gpu.fake_cuda import FakeNvJpeg
from tests.pictures.test_workers import file

NEVER = threading.Event()
SMALL = Resize(ResizeMode.CENTER_CROP, 24)
POOLED = Extraction(("conv1",), (Form.POOLED,))


class Counting(FakeNvJpeg):
    """Counts the files of each batch, waits for its gate, and refuses files of a width."""

    def __init__(self, refused_width: int = 0) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.busy = threading.Event()
        self.gate.set()
        self._refused = refused_width

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        self.busy.set()
        assert self.gate.wait(30)
        self.batches.append(len(files))
        found = super().decode(files)
        if any(each.shape[2] == self._refused for each in found):
            raise RuntimeError("nvJPEG cannot")
        return found


@contextmanager
def decoding(codec: JpegCodec) -> Iterator[DeviceDecoder]:
    decoder = DeviceDecoder(codec, LocalDecoder(Limits()), Limits())
    try:
        yield decoder
    finally:
        decoder.close()


@pytest.mark.parametrize("resize", [Resize(), SMALL])
def test_every_malformed_file_has_the_answer_of_the_default_decoder(malformed: Path, resize: Resize) -> None:
    pictures = [path.read_bytes() for path in sorted(malformed.glob("*")) if path.is_file()]
    pictures += [b"", bytes(Limits.picture_bytes + 1), np.zeros((30, 40, 3), np.uint8)]  # type: ignore[list-item]
    with decoding(FakeNvJpeg()) as decoder:
        found = decoder.decode(pictures, resize, NEVER)
    expected = LocalDecoder(Limits()).decode(pictures, resize, NEVER)
    on_device = 0
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, OnDevice):
            assert isinstance(other, Decoded)
            assert (one.height, one.width) == (other.height, other.width)
            assert one.pixels.shape == (3, one.height, one.width)
            if resize == Resize():
                assert np.array_equal(one.pixels.permute(1, 2, 0).numpy(), other.pixels)
            on_device += 1
        else:
            assert type(one) is type(other)
            assert str(one) == str(other) or isinstance(one, Decoded)
    assert on_device > 5


def test_only_plain_jpegs_go_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_decode, "MOST_PIXELS", 2 * 40 * 30)
    codec = Counting()
    others = [file(progressive=True), file(kind="PNG"), file()[:-40], file(80, 60)]
    with decoding(codec) as decoder:
        found = decoder.decode([file(), *others], SMALL, NEVER)
    assert [type(each) for each in found] == [OnDevice, Decoded, Decoded, InvalidInput, Decoded]
    assert codec.batches == [1]


def test_a_file_that_the_device_refuses_is_decoded_by_the_other_and_costs_the_rest_nothing() -> None:
    with decoding(Counting(refused_width=50)) as decoder:
        files = [file(), file(), file(50, 30), file(), file(40, 60)]
        found = decoder.decode(files, SMALL, NEVER)
    assert [type(each) for each in found] == [OnDevice, OnDevice, Decoded, OnDevice, OnDevice]


def test_files_of_all_callers_are_decoded_together_up_to_a_number_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_decode, "MOST_PIXELS", 3 * 40 * 30)
    codec = Counting()
    with decoding(codec) as decoder, ThreadPoolExecutor(6) as pool:
        codec.gate.clear()
        first = pool.submit(decoder.decode, [file()], SMALL, NEVER)
        assert codec.busy.wait(30)
        rest = [pool.submit(decoder.decode, [file()], SMALL, NEVER) for _ in range(5)]
        wait_until(lambda: len(decoder._waiting) == 5)
        codec.gate.set()
        for future in [first, *rest]:
            assert isinstance(future.result()[0], OnDevice)
    assert codec.batches == [1, 3, 2]


def test_after_its_end_the_other_decoder_decodes() -> None:
    with decoding(FakeNvJpeg()) as decoder:
        pass
    assert isinstance(decoder.decode([file()], SMALL, NEVER)[0], Decoded)


class WithCodec(Device):
    """The CPU, as if it could decode JPEGs."""

    def jpeg_codec(self) -> JpegCodec:
        return FakeNvJpeg()


Engines = Callable[[str], Engine]


@pytest.fixture
def engines() -> Iterator[Engines]:
    made = []

    def make(pixels: str) -> Engine:
        network = load_network("resnet50", "random:0", "cpu", pixels=pixels)
        made.append(Engine(network, device=WithCodec()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_the_digest_says_how_pictures_are_decoded_and_keeps_the_two_apart(engines: Engines) -> None:
    default, device = engines(""), engines(NVJPEG)
    assert device.network.digest == f"{default.network.digest}+nvjpeg"
    pictures = [file(), file(kind="PNG"), b"no picture"]
    for found, expected in zip(device.extract(pictures, POOLED), default.extract(pictures, POOLED), strict=True):
        if isinstance(expected, GramletError):
            assert str(found) == str(expected)
            continue
        assert isinstance(found, Features)
        assert found.weights_digest == device.network.digest
        assert np.array_equal(found.pooled["conv1"], expected.pooled["conv1"])  # libjpeg-turbo stands in
    with pytest.raises(OtherWeights, match=r"\+nvjpeg, and \w{12} are wanted: the same weights, but pictures are dec"):
        device.pinned(default.network.digest)


def test_where_there_is_no_cuda_device_the_server_does_not_start() -> None:
    network = load_network("resnet50", "random:0", "cpu", pixels=NVJPEG)
    with pytest.raises(FailedPrecondition, match="needs a CUDA device: leave out --decoder"):
        Engine(network)


def test_pixels_are_converted_as_those_of_other_pictures_are() -> None:
    levels = torch.arange(3 * 8 * 9, dtype=torch.uint8).reshape(3, 8, 9)
    decoded = Decoded(levels.permute(1, 2, 0).contiguous().numpy(), 8, 9, (0, 0, 9, 8))
    batch = Device().upload([OnDevice(levels, 8, 9), decoded])
    assert torch.equal(batch[0], batch[1])

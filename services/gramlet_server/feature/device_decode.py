"""JPEGs decoded and resized by the device, those of all callers together (`--decoder device`).

nvJPEG decodes baseline JPEGs. Its pixels are not those of libjpeg-turbo, mainly where color is stored at half the
resolution; and it decodes at full size what libjpeg-turbo reduces on the way. So features differ, and a network whose
pictures are decoded so has a digest of its own (`Network.digest`). Every other file, and one that nvJPEG refuses, is
decoded by the default decoder; which of the two decodes a file depends on nothing but the file and the size wanted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import torch
from gramlet.errors import Cancelled, FailedPrecondition, GramletError, InvalidInput, Overloaded
from gramlet.types import Limits, Picture, Resize
from torch import Tensor

from gramlet_server.backbone.torchvision_cpu import import_torchvision
from gramlet_server.feature.pixels import OnDevice, resized_by_products
from gramlet_server.pictures.encode import encode_jpeg
from gramlet_server.pictures.headers import is_shown_as_stored, opened, plain_jpeg_size
from gramlet_server.pictures.prepare import MOST_TO_DEVICE, Decoded
from gramlet_server.pictures.resize import Box, kept_box, network_size
from gramlet_server.pictures.workers import Decoder

NVJPEG = "nvjpeg"
"""The name of this way of decoding, in digests."""
MOST_PIXELS = 24 * 10**6
"""Pixels that are decoded together, and the most that a file may have: they take 27 bytes each of the device."""
MOST_PICTURES = 64

_log = logging.getLogger(__name__)

Outcome = Decoded | OnDevice | GramletError


class AnyDecoder(Protocol):
    """As `workers.Decoder`, but pictures may be on the device already."""

    def decode(self, pictures: Sequence[Picture], resize: Resize, cancelled: threading.Event) -> Sequence[Outcome]:
        """See `Decoder.decode`."""


class JpegCodec(Protocol):
    """Decodes JPEGs into the memory of a device."""

    def working(self) -> AbstractContextManager[None]:
        """Surrounds the decoding of a batch and what is done with it. At the end of it all of this has ended."""

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """The pixels of each file, (3, H, W) uint8 RGB.

        Raises:
            RuntimeError: One of the files cannot be decoded.
        """


class NvJpeg:
    """nvJPEG, as torchvision has it.

    Args:
        device: A CUDA device.

    Raises:
        FailedPrecondition: torchvision is missing, or cannot decode JPEGs there.
    """

    def __init__(self, device: torch.device) -> None:
        import_torchvision()
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        try:
            self._torchvision: Any = import_module("torchvision.io")
            with self.working():
                self.decode([encode_jpeg(torch.zeros(3, 16, 16).numpy())])
        except (ImportError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise FailedPrecondition(
                f"this torchvision cannot decode JPEGs on {device} ({reason}): install one that was built for CUDA, or "
                "leave out --decoder",
                field="--decoder",
            ) from error

    @contextmanager
    def working(self) -> Iterator[None]:
        """See `JpegCodec.working`."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """See `JpegCodec.decode`."""
        sent = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        mode = self._torchvision.ImageReadMode.RGB
        found: list[Tensor] = self._torchvision.decode_jpeg(sent, mode=mode, device=self._device)
        return found


@dataclass(frozen=True, eq=False)
class _Job:
    """A file that waits for the device.

    Attributes:
        stored: Height and width of its pixels.
        height, width, box: As of `Decoded`.
        found: The picture, or None where the device cannot decode it.
    """

    file: bytes
    stored: tuple[int, int]
    height: int
    width: int
    box: Box
    found: Future[OnDevice | None] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return self.stored[0] * self.stored[1]

    @property
    def is_final(self) -> bool:
        return self.stored == (self.height, self.width) and self.box == (0, 0, self.width, self.height)


class DeviceDecoder:
    """Decodes plain JPEGs on the device, in a thread of its own, and all others by another decoder.

    Args:
        codec: Of the device.
        others: Decodes what the codec does not.
        limits: `picture_bytes`, `decoded_pixels` and `network_pixels` are checked.
    """

    def __init__(self, codec: JpegCodec, others: Decoder, limits: Limits) -> None:
        self._codec = codec
        self._others = others
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="nvjpeg", daemon=True)
        self._thread.start()

    def decode(self, pictures: Sequence[Picture], resize: Resize, cancelled: threading.Event) -> list[Outcome]:
        """See `Decoder.decode`."""
        if cancelled.is_set():
            raise Cancelled("the call was cancelled")
        jobs = {number: job for number, picture in enumerate(pictures) if (job := self._job(picture, resize))}
        self._submit(list(jobs.values()))
        rest = [number for number in range(len(pictures)) if number not in jobs]
        outcomes: dict[int, Outcome] = {}
        self._decode_others(rest, pictures, resize, cancelled, outcomes)
        refused = []
        for number, job in jobs.items():
            found = job.found.result()
            if found is None:
                refused.append(number)
            else:
                outcomes[number] = found
        self._decode_others(refused, pictures, resize, cancelled, outcomes)
        return [outcomes[number] for number in range(len(pictures))]

    def close(self) -> None:
        """Ends the thread. Files that still wait go to the other decoder, which its owner closes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _decode_others(
        self,
        numbers: Sequence[int],
        pictures: Sequence[Picture],
        resize: Resize,
        cancelled: threading.Event,
        outcomes: dict[int, Outcome],
    ) -> None:
        if numbers:
            found = self._others.decode([pictures[number] for number in numbers], resize, cancelled)
            outcomes.update(zip(numbers, found, strict=True))

    def _job(self, picture: Picture, resize: Resize) -> _Job | None:
        """The work on a file that the device is to decode. A file that is refused is refused by the other decoder."""
        if not isinstance(picture, bytes):
            return None
        stored = plain_jpeg_size(picture, self._limits) or self._size_of(picture)
        if stored is None or stored[0] * stored[1] > MOST_PIXELS:
            return None
        try:
            height, width = network_size(*stored, resize, self._limits, "picture")
        except InvalidInput:
            return None
        if height * width > MOST_TO_DEVICE:
            return None
        return _Job(picture, stored, height, width, kept_box(stored[1], stored[0], resize))

    def _size_of(self, file: bytes) -> tuple[int, int] | None:
        """Height and width of a file that has more in its header, but nothing that matters."""
        image = opened(file, self._limits)
        return (image.height, image.width) if image and is_shown_as_stored(image, file) else None

    def _submit(self, jobs: Sequence[_Job]) -> None:
        with self._changed:
            if not self._closed:
                self._waiting.extend(jobs)
                self._changed.notify_all()
                return
        for job in jobs:
            job.found.set_result(None)

    # --- in its own thread ---

    def _work(self) -> None:
        while jobs := self._next():
            self._decode(jobs)
            del jobs  # before it waits: they hold the pixels
        for job in self._waiting:
            job.found.set_result(None)

    def _next(self) -> list[_Job]:
        """Waits for files, and takes as many as are decoded together; none once it is closed."""
        with self._changed:
            while not (self._waiting or self._closed):
                self._changed.wait()
            if self._closed:
                return []
            jobs, pixels = [self._waiting.popleft()], 0
            pixels = jobs[0].pixels
            while self._waiting and len(jobs) < MOST_PICTURES:
                pixels += self._waiting[0].pixels
                if pixels > MOST_PIXELS:
                    break
                jobs.append(self._waiting.popleft())
            return jobs

    def _decode(self, jobs: Sequence[_Job]) -> None:
        """Decodes files together; where that fails, in halves, so that a bad one costs the others little."""
        try:
            with self._codec.working():
                found = self._decoded(jobs)
        except Exception as error:
            if len(jobs) == 1:
                self._failed(jobs[0], error)
                return
            self._decode(jobs[: len(jobs) // 2])
            self._decode(jobs[len(jobs) // 2 :])
            return
        for job, picture in zip(jobs, found, strict=True):
            job.found.set_result(picture)

    def _failed(self, job: _Job, error: Exception) -> None:
        """Leaves a file to the other decoder, unless the file is not at fault: its pixels would differ."""
        if isinstance(error, torch.OutOfMemoryError):
            job.found.set_exception(Overloaded("the device has no memory left to decode", retry_after=1.0))
            return
        _log.info("the device's decoder refused a file: %s", error)
        job.found.set_result(None)

    def _decoded(self, jobs: Sequence[_Job]) -> list[OnDevice | None]:
        found: list[OnDevice | None] = [None] * len(jobs)
        alike: dict[Any, list[int]] = {}
        levels = self._codec.decode([job.file for job in jobs])
        for number, (job, of_job) in enumerate(zip(jobs, levels, strict=True)):
            if of_job.shape == (3, *job.stored):
                alike.setdefault((job.stored, job.height, job.width, job.box), []).append(number)
        for numbers in alike.values():
            job = jobs[numbers[0]]
            batch = torch.stack([levels[number] for number in numbers])
            if not job.is_final:
                batch = resized_by_products(batch, job.box, job.height, job.width).to(torch.uint8)
            for number, pixels in zip(numbers, batch, strict=True):
                found[number] = OnDevice(pixels, job.height, job.width)
        return found

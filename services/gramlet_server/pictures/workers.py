"""Decoders: files become pixels in this process, or in processes of their own that a hostile file cannot take with it.

A worker process that a file keeps busy for too long, or that crashes, is replaced, and the file is refused. One that
something else has killed costs the file another attempt. No worker is forked from this process, whose gRPC has threads.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gramlet.errors import Cancelled, GramletError, InvalidInput, Overloaded
from gramlet.types import Limits, Picture, Pixels, Resize
from PIL import Image

from gramlet_server.pictures.headers import decoding_bytes, is_cheap, opened, plain_bytes, plain_jpeg_size
from gramlet_server.pictures.offload import Kind, Task
from gramlet_server.pictures.prepare import Decoded, decode_for
from gramlet_server.pictures.worker import outcome_of
from gramlet_server.pictures.worker_process import CANCEL_SECONDS, FILES_BYTES, KEPT_BYTES, WorkerProcess
from gramlet_server.process.memory_budget import PROCESS

FEW_CORES = 4
"""Machines with fewer cores decode cheap files in the server's process."""
ATTEMPTS = 2
"""How often a file is given to a worker that then dies for no reason that is known."""

_log = logging.getLogger(__name__)

Outcome = Decoded | GramletError


class Decoder(Protocol):
    """Decodes pictures."""

    def decode(self, pictures: Sequence[Picture], resize: Resize, cancelled: threading.Event) -> list[Outcome]:
        """The decoded pictures, or the error of each that is broken or refused.

        Raises:
            Cancelled: `cancelled` was set.
            Overloaded: The server's memory has no room for them now.
        """

    def close(self) -> None:
        """Ends the processes."""


class LocalDecoder:
    """Decodes in this process, on the calling thread.

    Args:
        limits: `picture_bytes`, `decoded_pixels` and `network_pixels` are checked.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def decode(self, pictures: Sequence[Picture], resize: Resize, cancelled: threading.Event) -> list[Outcome]:
        """See `Decoder.decode`."""
        return [self.decode_one(picture, resize, cancelled) for picture in pictures]

    def close(self) -> None:
        """Does nothing."""

    def decode_one(
        self, picture: Picture, resize: Resize, cancelled: threading.Event, image: Image.Image | None = None
    ) -> Outcome:
        """One of them; `image` is the file if it was opened before."""
        if cancelled.is_set():
            raise Cancelled("the call was cancelled")
        try:
            return decode_for(picture, resize, self._limits, "picture", image=image)
        except InvalidInput as error:  # a full server is not the file's fault
            return error


@dataclass(frozen=True)
class _File:
    """A file for a worker, and the memory that decoding it takes."""

    data: bytes
    needed: int


class DecodeWorkers:
    """Decodes files in worker processes, which start when they are first needed.

    Args:
        count: How many processes.
        limits: As for `LocalDecoder`.
        seconds: Processor time that a file may take.
        all_files: Whether cheap files go there too; otherwise they are decoded on the calling thread.
    """

    def __init__(self, count: int, limits: Limits, seconds: float, all_files: bool = True) -> None:
        self._all_files = all_files
        self._limits = limits
        self._seconds = seconds
        self._local = LocalDecoder(limits)
        self._lock = threading.Lock()
        self._closed = False
        self._running: set[WorkerProcess] = set()
        # Places for workers: None, where none was started yet.
        self._idle: queue.LifoQueue[WorkerProcess | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that run now."""
        with self._lock:
            return [worker.process.pid for worker in self._running]

    def decode(self, pictures: Sequence[Picture], resize: Resize, cancelled: threading.Event) -> list[Outcome]:
        """See `Decoder.decode`. Arrays, and files that are refused by their size, need no process."""
        outcomes: list[Outcome | None] = [None] * len(pictures)
        files: dict[int, _File] = {}
        for number, picture in enumerate(pictures):
            size = plain_jpeg_size(picture, self._limits) if isinstance(picture, bytes) else None
            image = self._opened(picture, self._limits) if isinstance(picture, bytes) and not size else None
            if isinstance(picture, bytes) and size and self._all_files:
                files[number] = _File(picture, plain_bytes(*size))
            elif isinstance(picture, bytes) and image and (self._all_files or not is_cheap(image)):
                files[number] = _File(picture, decoding_bytes(image))
            else:
                outcomes[number] = self._local.decode_one(picture, resize, cancelled, image)
        for number, found in self._in_processes(files, Task(Kind.RESIZED, self._limits, resize), cancelled):
            outcomes[number] = found
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Ends the processes. Files under way fail."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            self._running.clear()
        for worker in running:
            worker.end()

    def needed_for(self, file: bytes, limits: Limits) -> int | None:
        """See `Pool.needed_for`."""
        image = self._opened(file, limits)
        return None if image is None or is_cheap(image) else decoding_bytes(image)

    def carry_out(self, file: bytes, needed: int, task: Task) -> Any:
        """See `Pool.carry_out`."""
        ((_, found),) = self._in_processes({0: _File(file, needed)}, task, threading.Event())
        return found

    def _opened(self, file: bytes, limits: Limits) -> Image.Image | None:
        return opened(file, limits) if len(file) <= FILES_BYTES else None

    def _in_processes(
        self, files: dict[int, _File], task: Task, cancelled: threading.Event
    ) -> Iterator[tuple[int, Any]]:
        """What came of each file, by its number. A worker that is lost costs its file another attempt."""
        for number in list(files):
            try:
                PROCESS.check(files[number].needed, "picture")
            except InvalidInput as error:
                del files[number]
                yield number, error
        deaths = 0
        while files:
            outcome, lost = self._pass(_fitting(files), task, cancelled)
            for number, found in outcome.items():
                del files[number]
                yield number, found
            deaths = deaths + 1 if lost and not outcome else int(lost)
            if deaths >= ATTEMPTS:
                first = next(iter(files))
                del files[first]
                yield first, InvalidInput("the file breaks its decoder: save it again", field="picture")
                deaths = 0

    def _pass(self, files: dict[int, _File], task: Task, cancelled: threading.Event) -> tuple[dict[int, Any], bool]:
        """Gives files to a worker; returns the outcomes, and whether the worker has died before the last of them."""
        idle = self._next_idle(cancelled)
        kept: WorkerProcess | None = idle
        outcomes: dict[int, Any] = {}
        # A worker decodes one file after the other.
        most = max(file.needed for file in files.values())
        room = PROCESS.reserve(0)
        try:
            room.resize(most)
            if cancelled.is_set():
                raise Cancelled("the call was cancelled")
            worker = idle or self._start()
            kept = None  # until an orderly end
            try:
                full = self._collect(self._ask(worker, files, task, cancelled), outcomes)
            except (EOFError, OSError, ValueError, TypeError, KeyError) as error:
                return outcomes, self._may_try_again(worker, error, files, outcomes)
            except BaseException:  # such as Cancelled: it is still at work
                self._lose(worker, seconds=0)
                raise
            kept = worker
            if full is not None:
                raise full
            return outcomes, False
        finally:
            room.close()
            self._idle.put(kept)

    def _next_idle(self, cancelled: threading.Event) -> WorkerProcess | None:
        """Waits for a worker that has nothing to do; None stands for one that has to be started.

        Raises:
            Cancelled: `cancelled` was set first.
        """
        while True:
            try:
                return self._idle.get(timeout=CANCEL_SECONDS)
            except queue.Empty:
                if cancelled.is_set():
                    raise Cancelled("the call was cancelled") from None

    def _collect(self, answers: Iterator[tuple[int, Any]], outcomes: dict[int, Any]) -> Overloaded | None:
        """Collects all answers of a worker; returns the error if the memory had no room for the pixels of one."""
        full: Overloaded | None = None
        for number, outcome in answers:
            pixels = _pixels_of(outcome)
            if full is None and pixels is not None:
                try:
                    PROCESS.hold(pixels)
                except Overloaded as error:
                    full = error
            if full is None:
                outcomes[number] = outcome
        return full

    def _may_try_again(
        self, worker: WorkerProcess, error: Exception, files: dict[int, _File], outcomes: dict[int, Any]
    ) -> bool:
        """Ends a worker that was lost; whether its file may be tried again. One that took too long is refused."""
        status = self._lose(worker, seconds=1)
        if status != -signal.SIGPROF:
            _log.warning("a decoder was lost (exit status %s, %r): its file is tried again", status, error)
            return True
        slow = next(number for number in files if number not in outcomes)
        message = f"decoding takes more than {self._seconds:g} s of processor time: save it again, or smaller"
        outcomes[slow] = InvalidInput(message, field="picture")
        return False

    def _ask(
        self, worker: WorkerProcess, files: dict[int, _File], task: Task, cancelled: threading.Event
    ) -> Iterator[tuple[int, Any]]:
        """What came of each file, by its number, as the worker answers."""
        places, offset = [], 0
        for file in files.values():
            worker.memory[offset : offset + len(file.data)] = file.data
            places.append((offset, len(file.data)))
            offset += len(file.data)
        start = -(-offset // 4096) * 4096
        worker.send({"files": places, "task": task.as_json(), "pixels": start})
        most = 0
        for number in files:
            answer = worker.receive(cancelled)
            if "full" in answer:
                worker.send({})
                answer = worker.receive(cancelled)
            outcome = outcome_of(answer, worker.memory)
            pixels = _pixels_of(outcome)
            if pixels is not None:
                most = max(most, int(answer["at"]) + pixels.nbytes)
            yield number, outcome
        if most > KEPT_BYTES:
            worker.release_memory()

    def _start(self) -> WorkerProcess:
        with self._lock:
            if self._closed:
                raise Cancelled("the server is shutting down")
            worker = WorkerProcess(self._limits, self._seconds)
            self._running.add(worker)
        return worker

    def _lose(self, worker: WorkerProcess, seconds: float) -> int | None:
        """Ends a worker; returns its exit status if it ends by itself in that time."""
        with self._lock:
            self._running.discard(worker)
        try:
            status = worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        worker.end()
        return status


def _pixels_of(outcome: Any) -> Pixels | None:
    pixels = outcome.pixels if isinstance(outcome, Decoded) else outcome
    return pixels if isinstance(pixels, np.ndarray) else None


def _fitting(files: dict[int, _File]) -> dict[int, _File]:
    """The first files, as many as fit a worker's memory."""
    fitting: dict[int, _File] = {}
    size = 0
    for number, file in files.items():
        size += len(file.data)
        if fitting and size > FILES_BYTES:
            break
        fitting[number] = file
    return fitting


def decoder_for(workers: int | None, limits: Limits, seconds: float) -> Decoder:
    """A decoder with so many worker processes; 0: in this process; None: chosen by the cores of the machine.

    With few cores a hand-over to another process costs more than the lock of the interpreter. There, worker processes
    decode only the files that can be costly.
    """
    if workers == 0:
        return LocalDecoder(limits)
    cores = os.cpu_count() or 1
    return DecodeWorkers(workers or cores, limits, seconds, all_files=workers is not None or cores >= FEW_CORES)

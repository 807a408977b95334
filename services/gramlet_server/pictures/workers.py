"""Decoders: files become pixels in this process, or in processes of their own that a hostile file cannot take with it.

A worker process that a file keeps busy for too long, or that crashes, is replaced, and the file is refused. One that
something else has killed costs the file another attempt. No worker is forked from this process, whose gRPC has threads.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from gramlet.errors import Cancelled, GramletError, InvalidInput
from gramlet.types import Limits, Picture, Resize

from gramlet_server.memory_budget import PROCESS
from gramlet_server.pictures.decode import decoding_bytes_of, is_cheap
from gramlet_server.pictures.prepare import Decoded, decode_for
from gramlet_server.pictures.worker import outcome_of, settings_of

FILES_BYTES = 64 * 2**20
"""Room for the files of a request, in a worker's memory."""
KEPT_BYTES = 32 * 2**20
"""Of a worker's memory, what is not returned to the kernel after a request."""
CANCEL_SECONDS = 0.25
"""How often a thread that waits for a worker looks whether the call was cancelled."""
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
        return [self._decode(picture, resize, cancelled) for picture in pictures]

    def close(self) -> None:
        """Does nothing."""

    def _decode(self, picture: Picture, resize: Resize, cancelled: threading.Event) -> Outcome:
        if cancelled.is_set():
            raise Cancelled("the call was cancelled")
        try:
            return decode_for(picture, resize, self._limits, "picture")
        except GramletError as error:
            return error


class _Worker:
    """One process, its socket and the memory that both share."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        # Sparse: it takes the memory that was written to.
        size = FILES_BYTES + max(KEPT_BYTES, 3 * limits.decoded_pixels, 3 * limits.network_pixels)
        handle = os.memfd_create("gramlet-decode")
        os.ftruncate(handle, size)
        self.memory = mmap.mmap(handle, size)
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "gramlet_server.pictures.worker", str(theirs.fileno()), str(handle)]
            self.process = subprocess.Popen(
                [*command, settings_of(limits, seconds)], pass_fds=(theirs.fileno(), handle), stdin=subprocess.DEVNULL
            )
        os.close(handle)
        self._socket = ours
        self._received = b""

    def send(self, message: dict[str, Any]) -> None:
        """Sends a line."""
        self._socket.settimeout(None)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, cancelled: threading.Event) -> dict[str, Any]:
        """The next line.

        Raises:
            Cancelled: Nothing came before `cancelled` was set.
            EOFError: The process has ended.
        """
        self._socket.settimeout(CANCEL_SECONDS)
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                if cancelled.is_set():
                    raise Cancelled("the call was cancelled") from None
                continue
            if not data:
                raise EOFError
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def release_memory(self) -> None:
        """Returns most of the memory of a large request to the kernel."""
        self.memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES, len(self.memory) - KEPT_BYTES)

    def end(self) -> int:
        """Kills the process; returns its exit status."""
        self._socket.close()
        self.process.kill()
        return self.process.wait()


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
        self._running: set[_Worker] = set()
        # Places for workers: None, where none was started yet.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
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
        files: dict[int, bytes] = {}
        for number, picture in enumerate(pictures):
            if isinstance(picture, bytes) and self._needs_process(picture):
                if error := self._too_large(picture):
                    outcomes[number] = error
                else:
                    files[number] = picture
            else:
                (outcomes[number],) = self._local.decode([picture], resize, cancelled)
        deaths = 0
        while files:
            outcome, lost = self._pass(_fitting(files), resize, cancelled)
            for number, found in outcome.items():
                outcomes[number] = found
                del files[number]
            deaths = deaths + 1 if lost and not outcome else int(lost)
            if deaths >= ATTEMPTS:
                first = next(iter(files))
                outcomes[first] = InvalidInput("the file breaks its decoder: save it anew", field="picture")
                del files[first]
                deaths = 0
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Ends the processes. Files under way fail."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            self._running.clear()
        for worker in running:
            worker.end()

    def _needs_process(self, file: bytes) -> bool:
        if not 0 < len(file) <= min(self._limits.picture_bytes, FILES_BYTES):
            return False
        return self._all_files or not is_cheap(file, self._limits)

    def _too_large(self, file: bytes) -> InvalidInput | None:
        """Why a file can never be decoded in this server's memory, if it cannot."""
        try:
            PROCESS.check(decoding_bytes_of(file, self._limits), "picture")
        except InvalidInput as error:
            return error
        return None

    def _pass(
        self, files: dict[int, bytes], resize: Resize, cancelled: threading.Event
    ) -> tuple[dict[int, Outcome], bool]:
        """Gives files to a worker; returns the outcomes, and whether the worker has died before the last of them."""
        idle = self._idle.get()
        kept: _Worker | None = idle
        outcomes: dict[int, Outcome] = {}
        # A worker decodes one file after the other.
        most = max(decoding_bytes_of(file, self._limits) for file in files.values())
        room = PROCESS.reserve(0)
        try:
            room.resize(most)
            if cancelled.is_set():
                raise Cancelled("the call was cancelled")
            worker = idle or self._start()
            kept = None  # until an orderly end
            try:
                for number, outcome in self._ask(worker, files, resize, cancelled):
                    outcomes[number] = _held(outcome)
            except Cancelled:
                self._lose(worker, seconds=0)
                raise
            except (EOFError, OSError, ValueError, TypeError, KeyError) as error:
                return outcomes, self._is_fault_of_none(worker, error, files, outcomes)
            kept = worker
            return outcomes, False
        finally:
            room.close()
            self._idle.put(kept)

    def _is_fault_of_none(
        self, worker: _Worker, error: Exception, files: dict[int, bytes], outcomes: dict[int, Outcome]
    ) -> bool:
        """Buries a worker. Unless its file took too long, which is then refused, the file may be tried again."""
        status = self._lose(worker, seconds=1)
        if status != -signal.SIGPROF:
            _log.warning("a decoder was lost (exit status %s, %r): its file is tried again", status, error)
            return True
        slow = next(number for number in files if number not in outcomes)
        message = f"decoding takes more than {self._seconds:g} s of processor time: save it anew, or smaller"
        outcomes[slow] = InvalidInput(message, field="picture")
        return False

    def _ask(
        self,
        worker: _Worker,
        files: dict[int, bytes],
        resize: Resize,
        cancelled: threading.Event,
    ) -> Iterator[tuple[int, Outcome]]:
        places, offset = [], 0
        for file in files.values():
            worker.memory[offset : offset + len(file)] = file
            places.append((offset, len(file)))
            offset += len(file)
        start = -(-offset // 4096) * 4096
        worker.send({"files": places, "resize": (resize.mode.value, resize.size), "pixels": start})
        most = 0
        for number in files:
            answer = worker.receive(cancelled)
            if "full" in answer:
                worker.send({})
                answer = worker.receive(cancelled)
            outcome = outcome_of(answer, worker.memory)
            if isinstance(outcome, Decoded):
                most = max(most, int(answer["at"]) + outcome.pixels.nbytes)
            yield number, outcome
        if most > KEPT_BYTES:
            worker.release_memory()

    def _start(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise Cancelled("the server is shutting down")
            worker = _Worker(self._limits, self._seconds)
            self._running.add(worker)
        return worker

    def _lose(self, worker: _Worker, seconds: float) -> int | None:
        """Ends a worker; returns its exit status if it ends by itself in that time."""
        with self._lock:
            self._running.discard(worker)
        try:
            status = worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        worker.end()
        return status


def _held(outcome: Outcome) -> Outcome:
    """The outcome, whose pixels count in the server's memory as long as they live; or the error if there is no room."""
    if isinstance(outcome, Decoded):
        try:
            PROCESS.hold(outcome.pixels)
        except GramletError as error:
            return error
    return outcome


def _fitting(files: dict[int, bytes]) -> dict[int, bytes]:
    """The first files, as many as fit a worker's memory."""
    fitting: dict[int, bytes] = {}
    size = 0
    for number, file in files.items():
        size += len(file)
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

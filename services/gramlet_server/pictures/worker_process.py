"""The server's side of a process that decodes: its socket, and the memory that both share."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from gramlet.errors import Cancelled
from gramlet.types import Limits

FILES_BYTES = 64 * 2**20
"""Room for the files of a request, in a worker's memory."""
KEPT_BYTES = 32 * 2**20
"""So much of a worker's memory is not returned to the kernel after a request."""
CANCEL_SECONDS = 0.25
"""How often a thread that waits for a worker looks whether the call was cancelled."""
LEAST_ROOM = 2**30
"""Room for pixels in a worker's memory, at least: other services than FeatureService have limits of their own."""


class WorkerProcess:
    """One process.

    Args:
        limits: Of the pictures: the memory has room for their pixels.
        seconds: Of processor time for a file.
    """

    def __init__(self, limits: Limits, seconds: float) -> None:
        # Sparse: it takes the memory that was written to.
        size = FILES_BYTES + max(LEAST_ROOM, 3 * limits.decoded_pixels, 3 * limits.network_pixels)
        handle = os.memfd_create("gramlet-decode")
        os.ftruncate(handle, size)
        self.memory = mmap.mmap(handle, size)
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "gramlet_server.pictures.worker", str(theirs.fileno()), str(handle)]
            self.process = subprocess.Popen(
                [*command, str(seconds)], pass_fds=(theirs.fileno(), handle), stdin=subprocess.DEVNULL
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

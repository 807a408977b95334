"""The memory of the process: how much it may use, and how long it keeps what was freed.

Freed memory is kept for the next pass of the network, because the kernel would have to clear it again. What no pass has
used for some seconds is returned, so that one large request does not leave the process large.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from gramlet_server.process.allocator import ALLOCATOR, Allocator
from gramlet_server.process.memory_budget import PROCESS

_log = logging.getLogger(__name__)

# Control groups, version 2 and version 1.
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE = 0.85
_SHORT = 0.9
_LEAST = 64 * 2**20
_SCANTY = 512 * 2**20
_TICK_SECONDS = 1.0
_IDLE_TICKS = 10
_KEPT_BYTES = 256 * 2**20
"""Freed memory that is not worth returning: the temporaries of usual passes."""


def available_bytes() -> int:
    """The memory that this process may use: the limit of its control group, or that of the machine."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # or "max"
            limits.append(int(text))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits)


def resident_bytes() -> int:
    """The memory that this process uses."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not on Linux
        return 0


def limit_requests(memory_bytes: int) -> None:
    """Sets the budget of the process once its services are built: what is left beside them.

    Args:
        memory_bytes: The memory that the process may use; 0: what its control group or the machine allows.
    """
    total = memory_bytes or available_bytes()
    # Interpreters, allocators and libraries need some beside what is reserved.
    used = resident_bytes()
    left = int(_SHARE * total) - used
    PROCESS.set_limit(max(left, _LEAST))
    _log.info("requests may use %.1f GiB of memory (--memory-bytes)", max(left, _LEAST) / 2**30)
    if left < _SCANTY:
        _log.warning(
            "%.1f GiB of memory (--memory-bytes) are little for this server, which takes %.1f GiB before any request: "
            "many will be refused",
            total / 2**30,
            used / 2**30,
        )


class FreedMemory:
    """Returns freed memory to the kernel, once more of it than usual was unused for some seconds.

    Args:
        allocator: Has the freed memory.
        resident: The memory of the process.
    """

    def __init__(self, allocator: Allocator = ALLOCATOR, resident: Callable[[], int] = resident_bytes) -> None:
        self._allocator = allocator
        self._resident = resident
        self._beside = self._outside()
        """Memory that is not the allocator's: programs and libraries."""
        self._unused: deque[int] = deque(maxlen=_IDLE_TICKS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def start(self) -> None:
        """Starts to look once a second."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join()

    def look(self) -> None:
        """Looks how much is unused, and returns it if that was much each time that it has looked lately."""
        self._unused.append(self._outside() - self._beside)
        if len(self._unused) == _IDLE_TICKS and min(self._unused) > _KEPT_BYTES:
            self.release()

    def release(self) -> None:
        """Returns all of it, unless that is little."""
        if self._allocator.is_known and self._outside() - self._beside > _KEPT_BYTES:
            self._allocator.trim()
            self._unused.clear()
            self._beside = self._outside()

    def _outside(self) -> int:
        """Memory that is not handed out by the allocator."""
        return self._resident() - self._allocator.used_bytes()

    def _watch(self) -> None:
        while not self._closed.wait(_TICK_SECONDS):
            self.look()


def is_short(memory_bytes: int, freed: FreedMemory | None = None) -> bool:
    """Whether the process has used nearly all of the memory that it may use, beside what was freed.

    Args:
        memory_bytes: As for `limit_requests`.
        freed: Is returned to the kernel first.
    """
    most = _SHORT * (memory_bytes or available_bytes())
    if resident_bytes() > most and freed is not None:
        freed.release()
    return resident_bytes() > most

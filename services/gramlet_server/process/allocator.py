"""glibc's memory allocator: what it keeps, what it maps, and what it returns to the kernel.

By default the kernel maps and clears every temporary of a pass page by page, which takes a tenth to a half of the time
on a CPU. So freed blocks are kept for the next pass. Blocks of many sizes then lie scattered, and a large pass takes up
to twice the memory that it uses. Where that is too much, large blocks are mapped one by one again.
"""

from __future__ import annotations

import ctypes
import logging
import threading

_log = logging.getLogger(__name__)

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_MOST = 2**31 - 1
_MAPPED_BYTES = 32 * 2**20
"""Blocks of more bytes are mapped, if any are. glibc accepts no larger number."""
_MAPPED_BLOCKS = 65536
_INFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
"""The fields of `struct mallinfo2`."""


class _Info(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _INFO)


class Allocator:
    """The allocator of this process; with another C library than glibc, or an old one, nothing here has an effect."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._keeps = False
        self._mapping = 0
        self._lock = threading.Lock()
        try:
            library = ctypes.CDLL(None)
            library.mallinfo2.restype = _Info
            library.malloc_trim.argtypes = [ctypes.c_size_t]
            self._library = library if library.mallopt else None
        except (AttributeError, OSError):
            _log.info("malloc cannot be set to keep large blocks; passes may be slower")

    @property
    def is_known(self) -> bool:
        """Whether it is glibc's."""
        return self._library is not None

    def keep_large_blocks(self) -> bool:
        """Keeps freed blocks for the next pass. Call this before other threads start.

        Only the main arena can keep large blocks, because the arenas of threads end at 64 MiB; so all threads share it.

        Returns:
            Whether it worked.
        """
        if self._library is None:
            return False
        options = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _MAPPED_BYTES), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST))
        done = [self._library.mallopt(*option) for option in options]
        self._keeps = all(done)
        return self._keeps

    def map_large_blocks(self) -> None:
        """Maps large blocks from now on, until `stop_mapping` was called as often."""
        self._count(1)

    def stop_mapping(self) -> None:
        """Keeps large blocks again. Those that are mapped are returned when they are freed."""
        self._count(-1)

    def used_bytes(self) -> int:
        """What is handed out."""
        if self._library is None:
            return 0
        info = self._library.mallinfo2()
        return int(info.uordblks + info.hblkhd)

    def freed_bytes(self) -> int:
        """What was freed and is kept, or was returned and still has its addresses."""
        return 0 if self._library is None else int(self._library.mallinfo2().fordblks)

    def trim(self) -> None:
        """Returns what was freed to the kernel. Other threads that allocate wait meanwhile, about 0.1 s a gigabyte."""
        if self._library is not None:
            self._library.malloc_trim(0)

    def _count(self, change: int) -> None:
        with self._lock:
            self._mapping += change
            if self._keeps and self._library is not None:
                self._library.mallopt(_MMAP_MAX, _MAPPED_BLOCKS if self._mapping else 0)


ALLOCATOR = Allocator()
"""The allocator of this process."""

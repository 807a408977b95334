"""Keeps freed memory in the process, because every pass over a network allocates the same large blocks again."""

from __future__ import annotations

import ctypes
import logging

_log = logging.getLogger(__name__)

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep_large_blocks() -> bool:
    """Sets glibc to keep large blocks for the next pass instead of returning each to the kernel.

    By default the kernel maps and zeroes every temporary of a pass page by page, which takes a tenth to a quarter of
    the time on a CPU. Raising the mmap threshold is not enough, because glibc limits it to 32 MiB. Only the main arena
    can keep such blocks, because the arenas of threads end at 64 MiB; so all threads share it. Call this before other
    threads start.

    Returns:
        Whether it worked. It does not with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    done = [mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _MOST)]
    if not all(done):
        _log.info("malloc cannot be set to keep large blocks; passes may be slower")
    return all(done)

"""How this process keeps memory: a pass over a network frees and takes the same large blocks again and again."""

from __future__ import annotations

import ctypes
import logging

_log = logging.getLogger(__name__)

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep_large_blocks() -> bool:
    """Tells glibc to keep large blocks for the next pass, rather than give each back to the kernel.

    Otherwise every temporary of a pass is mapped anew and zeroed page by page, a tenth to a quarter of the time on a
    CPU. A threshold for mmap would not do, because glibc caps it at 32 MiB; and blocks can be kept in the main arena
    alone, because those of threads end at 64 MiB, so all threads share it. Must be called before other threads start.

    Returns:
        Whether it could be done: not where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    done = [mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _MOST)]
    if not all(done):
        _log.info("malloc could not be told to keep large blocks; passes may be slower")
    return all(done)

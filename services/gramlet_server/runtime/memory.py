"""The memory of the process: how much it may use, and that it keeps freed memory for the next pass of the network."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from pathlib import Path

from gramlet_server.memory_budget import PROCESS

_log = logging.getLogger(__name__)

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1
# Control groups, version 2 and version 1.
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE = 0.85
_SHORT = 0.9
_LEAST = 64 * 2**20


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
    left = int(_SHARE * total) - resident_bytes()
    PROCESS.set_limit(max(left, _LEAST))
    _log.info("requests may use %.1f GiB of memory (--memory-bytes)", max(left, _LEAST) / 2**30)


def is_short(memory_bytes: int) -> bool:
    """Whether the process has used nearly all of the memory that it may use; arguments as for `limit_requests`."""
    return resident_bytes() > _SHORT * (memory_bytes or available_bytes())

"""Temporary files: a disk that is full is an error of the run that fills it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gramlet.errors import Overloaded

_RETRY_SECONDS = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def refusing_full_disks() -> Iterator[None]:
    """Turns the error of a write to a full disk into that of a server without room.

    Raises:
        Overloaded: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        message = "the server's disk for temporary files is full: send less at once, or try again later"
        raise Overloaded(message, retry_after=_RETRY_SECONDS) from None


def allocate(path: Path, size: int) -> None:
    """Makes a file of so many bytes, all of which are on the disk.

    A file that is only mapped gets its blocks as they are written to; on a full disk the kernel then kills the process.

    Raises:
        Overloaded: The disk is full.
    """
    with refusing_full_disks(), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))

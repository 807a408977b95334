"""Opens files; devices, pipes and sockets are refused before they are opened, because reading them may never end."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading.

    Devices and named pipes are not files: they may never end, and opening a pipe may wait for ever. A pipe that this
    process was started with is one, such as /dev/stdin or the /dev/fd/63 of `<(command)`.

    Raises:
        OSError: There is no such file, it may not be read, or it is something else.
        ValueError: The path has a NUL.
    """
    if kind := _special(path):
        raise OSError(errno.EINVAL, f"{kind}, not a file", os.fspath(path))
    return open(path, "rb")


def _special(path: str | os.PathLike[str]) -> str:
    """The kind of a path that is no file, such as `a device`; empty for files and for folders."""
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    if stat.S_ISFIFO(mode):
        is_open = "/fd/" in os.path.realpath(path) or os.fspath(path) == "/dev/stdin"
        return "" if is_open else "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"

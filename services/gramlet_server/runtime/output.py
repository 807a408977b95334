"""What `gramlet-server` prints to standard output."""

from __future__ import annotations

import logging
import os
import sys

_BROKEN_PIPE = 128 + 13

_log = logging.getLogger(__name__)


def say(text: str) -> None:
    """Prints a line that a command was called for. Where it cannot be written, the process ends with an error.

    Raises:
        SystemExit: With 1; or with the shell's code for a broken pipe, silently, where the reader has left.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard()
        sys.exit(_BROKEN_PIPE)
    except OSError as error:
        _discard()
        print(f"gramlet-server: cannot write to standard output: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def note(text: str) -> None:
    """Prints a line beside the work of a server, which goes on where nobody can read it."""
    try:
        print(text, flush=True)
    except OSError as error:
        _discard()
        _log.warning("standard output cannot be written (%s): %s", error.strerror, text)


def _discard() -> None:
    """Lets nothing more be written, so that Python does not fail at its end with what waits to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

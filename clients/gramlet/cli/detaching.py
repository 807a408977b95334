"""`--detach`: orders a run, and leaves it to the server."""

from __future__ import annotations

import argparse
from typing import Any

from gramlet._sync.calls import Events
from gramlet.cli.arguments import command_line
from gramlet.cli.terminal import Terminal
from gramlet.errors import InvalidInput

_FILES = ("output", "preview", "cells", "grid", "html", "report")
"""Options of commands that detach: what they write."""


def add_detach(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument(
        "--detach", action="store_true", help="order the run, print its id, and leave: see `gramlet runs`"
    )


def detach(
    events: Events[Any, Any], arguments: argparse.Namespace, terminal: Terminal, until: tuple[type, ...] = (object,)
) -> int:
    """Orders a detached run, and leaves it after the first event of one of these types.

    Raises:
        InvalidInput: A file is asked for, which nobody would write.
    """
    for option in _FILES:
        if getattr(arguments, option, None):
            raise InvalidInput("does not go with --detach: this command leaves before the result", field=option)
    with events:
        for event in events:
            if isinstance(event, until):
                break
    terminal.event("detached", run_id=events.run_id)
    watch = command_line(arguments, "runs", "watch", events.run_id)
    terminal.say(f"run {events.run_id} goes on without this command; watch it: {watch}")
    return 0

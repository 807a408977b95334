"""`--detach`: orders a run, and leaves it to the server. Ctrl-C: what becomes of a run that is left."""

from __future__ import annotations

import argparse
from typing import Any

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.arguments import command_line, resume_line
from gramlet.cli.terminal import Terminal
from gramlet.errors import GramletError, InvalidInput
from gramlet.run.types import RunKind

_FILES = ("output", "preview", "cells", "grid", "html", "report")
"""Options of commands that detach: what they write."""

_ANSWER_SECONDS = 2.0


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
    terminal.say(_goes_on(arguments, events.run_id))
    return 0


def note_left(
    arguments: argparse.Namespace,
    client: Client,
    terminal: Terminal,
    kind: RunKind,
    run_id: str,
    *words: object,
    hint: str = "",
) -> None:
    """Notes how to go on with a run that Ctrl-C has left. A detached one goes on by itself.

    Args:
        arguments: Of the command.
        client: Knows the run.
        terminal: Where to note it.
        kind: Of the run.
        run_id: The run.
        words: Arguments without a flag that the command needs to go on.
        hint: What to know before.
    """
    if arguments.resume and _is_detached(client, run_id, kind):
        terminal.note(_goes_on(arguments, run_id))
    else:
        terminal.note(f"go on with{hint}: {resume_line(arguments, run_id, *words)}")


def _goes_on(arguments: argparse.Namespace, run_id: str) -> str:
    watch = command_line(arguments, "runs", "watch", run_id)
    return f"run {run_id} goes on without this command; watch it: {watch}"


def _is_detached(client: Client, run_id: str, kind: RunKind) -> bool:
    """Whether the run is known to be detached. A server that does not answer at once is not waited for."""
    try:
        info = client.with_options(patience=0, first_contact=0).run(run_id, kind).info(timeout=_ANSWER_SECONDS)
    except GramletError:
        return False
    return info.detached and not info.state.has_ended

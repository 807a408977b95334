"""The command `gramlet`. Its subcommands are modules of `gramlet.cli`.

Exit codes: 0 success, 1 failure, 2 a wrong command line or wrong input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import NoReturn, TextIO, cast

from gramlet._sync.client import Client
from gramlet.cli.arguments import Parser, add_server_arguments
from gramlet.cli.connection import make_client
from gramlet.cli.terminal import MayBeFull, Terminal, escape_what_cannot_be_written, fail, was_interrupted
from gramlet.errors import GramletError, InvalidInput, NotFound

COMMANDS = (
    "stylize",
    "adjust",
    "sweep",
    "presets",
    "features",
    "see",
    "train",
    "predict",
    "heads",
    "embed",
    "maps",
    "runs",
    "studio",
    "status",
    "completion",
)
_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code. An output that cannot be written is a failure."""
    escape_what_cannot_be_written()
    try:
        return _main(arguments)
    except BrokenPipeError:
        # The reader of the output has closed it. Nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        fail(f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else error.strerror or str(error))
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    try:
        parser = make_parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next: answers and exits
            import argcomplete

            argcomplete.autocomplete(parser, always_complete_options=False)
        chosen = parser.parse(arguments)
        terminal = Terminal(chosen.json)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: fail(f"warning: {message}")
            return _run(chosen, terminal)
    except BaseException as error:
        if was_interrupted(error):
            fail("interrupted")
            return _INTERRUPTED
        if not isinstance(error, GramletError):
            raise
        error.field = parser.flag_of(chosen, error.field)
        fail(str(error))
        terminal.event("error", code=error.code.name, message=error.message, field=error.field)
        return 2 if isinstance(error, InvalidInput | NotFound) else 1


def _run(chosen: argparse.Namespace, terminal: Terminal) -> int:
    with terminal.log(), make_client(Client, chosen) as client:
        code: int = import_module(f"gramlet.cli.{chosen.command}").run(chosen, client, terminal)
        return code


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="gramlet", description="What a pretrained network knows about pictures.")
    parser.add_argument("--version", action="version", version=f"gramlet {version('gramlet')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in COMMANDS:
        module = import_module(f"gramlet.cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        command.with_resume = getattr(module, "WITH_RESUME", ())
        command.fields = getattr(module, "FIELDS", {})
        command.of_actions = getattr(module, "OF_ACTIONS", {})
        module.add_arguments(command)
        add_server_arguments(command)
    return parser


def console() -> NoReturn:
    """The program `gramlet`: runs the command line, and ends the process at once.

    The usual end can hang for ever after Ctrl-C. gRPC's calls take a lock when Python clears its modules, and a thread
    that Python has stopped by then may hold it.

    The first Ctrl-C raises KeyboardInterrupt, which `main` answers. A second one ends the process where it is.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a background job of a shell ignores it
        signal.signal(signal.SIGINT, _interrupt_once)
    if sys.stderr is not None:  # the program may have been started with a closed one
        sys.stderr = cast(TextIO, MayBeFull(sys.stderr))
    code = main()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = code or _BROKEN_PIPE
    except OSError as error:
        fail(error.strerror or str(error))
        code = code or 1
    with suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.flush()
    os._exit(code)


def _interrupt_once(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stderr is not None and sys.stderr.isatty():  # where a second Ctrl-C ends a progress bar
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    raise KeyboardInterrupt


if __name__ == "__main__":
    console()

"""`gramlet studio`: a web page over the server, on this machine. It needs the distribution gramlet-studio."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from importlib import import_module
from importlib.util import find_spec

from gramlet._async.client import AsyncClient
from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path
from gramlet.cli.connection import make_client
from gramlet.cli.terminal import Terminal
from gramlet.errors import FailedPrecondition, GramletError

HELP = "open a web page over the server"
_ANSWER_SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the page listens, and where it keeps uploads."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine only)")
    parser.add_argument("--port", type=_port, default=8765, help="port to listen on (%(default)s); 0: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in your browser")
    parser.add_argument("--data", type=file_path, metavar="DIR", help="folder of uploads and orders (your data folder)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which browsers may reach the page",
    )
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input ends: for programs that start the studio"
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Serves the page until Ctrl-C."""
    if find_spec("gramlet_studio") is None:
        raise FailedPrecondition("the studio is not installed: pip install gramlet-studio (make install in a checkout)")
    studio = import_module("gramlet_studio")
    data = {} if arguments.data is None else {"data": arguments.data}
    options = studio.StudioOptions(
        host=arguments.host,
        port=arguments.port,
        allowed_hosts=tuple(arguments.allow_host),
        open=arguments.open,
        **data,
    )

    def started(url: str) -> None:
        terminal.event("studio", url=url, server=arguments.server)
        terminal.say(f"the studio is at {url} for the server at {arguments.server}; Ctrl-C ends it")
        _say_whether_it_answers(client, terminal)

    if arguments.end_with_stdin:
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    studio.serve(options, lambda: make_client(AsyncClient, arguments), started, terminal.note)
    return 0


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _say_whether_it_answers(client: Client, terminal: Terminal) -> None:
    """The page starts without its server, and finds it later: but nobody should wonder."""
    try:
        client.status(timeout=_ANSWER_SECONDS)
    except GramletError as error:
        terminal.note(f"warning: {error}; the page starts all the same")


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

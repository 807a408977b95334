"""The web page beside a server: `gramlet studio` in a process of its own, which ends with the server.

It is a process, and not a part of this one, because the studio is a client: it has the SDK's dependencies and those of
a web server, and whatever its browsers do costs the server's threads nothing.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from gramlet.errors import FailedPrecondition, InvalidInput

from gramlet_server.runtime.config import ServerSettings, Settings, StudioSettings, format_address, reachable
from gramlet_server.runtime.listen import check_free
from gramlet_server.runtime.tokens import is_token_of, read_token_file

_END_SECONDS = 10.0
_FLAG = "--studio"

_log = logging.getLogger(__name__)


def check_studio(settings: Settings) -> None:
    """Checks that the page can be served beside a server with these settings.

    Raises:
        FailedPrecondition: The studio is not installed, or its port is taken.
        InvalidInput: The studio could not call the server, or has a port of the server.
    """
    if find_spec("gramlet_studio") is None:
        raise FailedPrecondition(
            "the studio is not installed: pip install gramlet-studio (make install in a checkout)", field=_FLAG
        )
    if settings.server.tls_cert:
        raise InvalidInput(
            "the certificate is not issued for the name of this machine's loopback address: start the page with "
            "`gramlet studio --server NAME:PORT --tls` instead",
            field=_FLAG,
        )
    _check_token(settings.server)
    _check_port(settings.studio.studio_port, settings.server)


def _check_token(server: ServerSettings) -> None:
    lines = [*server.tokens, *(read_token_file(server.token_file) if server.token_file else ())]
    token = os.environ.get("GRAMLET_TOKEN")
    if lines and not token:
        raise InvalidInput("the page calls the server with the token in GRAMLET_TOKEN: set it", field=_FLAG)
    if lines and token and not is_token_of(token, lines):
        message = "the page calls the server with the token in GRAMLET_TOKEN, which is none of --token-file"
        raise InvalidInput(message, field=_FLAG)


def _check_port(port: int, server: ServerSettings) -> None:
    """Before anything is loaded: the page starts long after."""
    if not port:
        return
    for flag, other in (("--port", server.port), ("--metrics-port", server.metrics_port)):
        if port == other:
            raise InvalidInput(f"{port} is also {flag}: choose another", field="--studio-port")
    check_free("127.0.0.1", port, "--studio-port")


@contextmanager
def studio(settings: StudioSettings, host: str, port: int) -> Iterator[str]:
    """Serves the page as long as the block lasts; gives its URL, at which it answers already.

    Args:
        settings: Of the page.
        host: On which the server listens.
        port: Of the server.

    Raises:
        FailedPrecondition: The page could not start. The reason is on stderr.
    """
    # Its standard input ends when this process does, whatever ended it. A session of its own: Ctrl-C is for the server,
    # which then ends both.
    process = subprocess.Popen(
        _command(settings, host, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    ending = threading.Event()
    try:
        url = _url(process)
        threading.Thread(target=_watch, args=(process, ending), name="studio", daemon=True).start()
        yield url
    finally:
        ending.set()
        _end(process)


def _command(settings: StudioSettings, host: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "gramlet.cli", "studio", "--json", "--end-with-stdin"]
    command += [f"--server={format_address(reachable(host), port)}", f"--port={settings.studio_port}"]
    return [*command, "--open"] if settings.studio_open else command


def _url(process: subprocess.Popen[str]) -> str:
    """The URL of the page, once it answers."""
    assert process.stdout is not None
    # The first event: the address, or an error, which is on stderr as well.
    url = json.loads(process.stdout.readline() or "{}").get("url")
    if url is None:
        raise FailedPrecondition("the page could not start, for the reason in the line above", field=_FLAG)
    return str(url)


def _watch(process: subprocess.Popen[str], ending: threading.Event) -> None:
    """Logs that the page has ended, unless the server ends it."""
    code = process.wait()
    if not ending.is_set():
        _log.error("the studio has ended with exit code %d; the server goes on without it", code)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()

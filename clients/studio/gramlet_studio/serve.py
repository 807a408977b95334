"""Serves the page with uvicorn."""

from __future__ import annotations

import errno
import ipaddress
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from gramlet import AsyncClient
from gramlet.errors import InvalidInput
from gramlet_studio.app import make_app
from gramlet_studio.options import StudioOptions

_CLOSE_SECONDS = 2  # for requests under way


def serve(
    options: StudioOptions,
    make_client: Callable[[], AsyncClient],
    started: Callable[[str], None],
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Args:
        options: How to serve.
        make_client: Makes the client of the gramlet server. Called once, in the event loop that uses it.
        started: Called with the page's URL when it is served.
        note: Called with what else the user should know.

    Raises:
        InvalidInput: The address cannot be listened on, or the folder cannot be used.
    """
    app = make_app(options, make_client)
    listening = _listen(options)
    address, port, *_ = listening.getsockname()
    if not ipaddress.ip_address(address).is_loopback:
        note(f"warning: {options.host} is open to everybody who can reach it: the page asks for no password")
    url = f"http://{_shown(options.host)}:{port}/"
    configuration = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_CLOSE_SECONDS
    )

    def ready() -> None:
        started(url)
        if options.open and not webbrowser.open(url):
            note(f"no browser was found, nothing was opened: open {url} yourself")

    with suppress(KeyboardInterrupt):  # uvicorn raises the signal that ended it once more
        _Server(configuration, ready, lambda: app.state.studio.feeds.leave()).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that reports when it is ready, and lets its browsers go when it ends."""

    def __init__(self, configuration: uvicorn.Config, ready: Callable[[], None], leave: Callable[[], None]) -> None:
        super().__init__(configuration)
        self._ready, self._leave = ready, leave

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams of events, which browsers keep open, and then the rest."""
        self._leave()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def _listen(options: StudioOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        field = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        reason = f"cannot listen on {options.host}:{options.port}: {error.strerror}"
        raise InvalidInput(f"{reason}; choose another", field=field) from None
    return listening


def _shown(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host

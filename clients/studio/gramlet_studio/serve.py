"""Serves the page with uvicorn."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from gramlet import AsyncClient
from gramlet.errors import InvalidInput
from gramlet_studio.app import make_app
from gramlet_studio.options import StudioOptions

_CLOSE_SECONDS = 2  # for requests under way


def serve(options: StudioOptions, make_client: Callable[[], AsyncClient], started: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Args:
        options: How to serve.
        make_client: Makes the client of the gramlet server. Called once, in the event loop that uses it.
        started: Called with the page's URL when it is served.

    Raises:
        InvalidInput: The address cannot be listened on.
    """
    listening = _listen(options)
    port = listening.getsockname()[1]
    url = f"http://{_shown(options.host)}:{port}/"
    app = make_app(options, make_client)
    configuration = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_CLOSE_SECONDS
    )

    def ready() -> None:
        started(url)
        if options.open:
            webbrowser.open(url)

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
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"cannot listen on {options.host}:{options.port}: {reason}", field="--port") from None
    return listening


def _shown(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host

"""The life of a server process: it serves until a signal, drains, and ends with an exit code."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue

from gramlet.errors import GramletError

from gramlet_server.runtime.build import Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.server import Server

_ENDING = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)


def serve(
    services: Sequence[Service],
    settings: ServerSettings,
    metrics: Metrics,
    beside: Callable[[Server], AbstractContextManager[object]] = nullcontext,
) -> int:
    """Serves until SIGTERM or SIGINT, then drains without breaking a call. A second signal ends the process at once.

    Args:
        services: What to serve.
        settings: How.
        metrics: Where calls are counted.
        beside: What else happens while the server serves: entered when everything is ready, left at the first signal.

    Returns:
        The exit code: 0, or 1 where the server could not start or failed; the reason is on stderr, in one line.
    """
    server = Server(services, settings, metrics)
    events: SimpleQueue[GramletError | signal.Signals | None] = SimpleQueue()
    with signals(events.put, server.tokens.try_reload):
        try:
            server.start(when_built=events.put)
        except GramletError as error:
            return _failed(error)
        event = events.get()
        if event is None:
            try:
                with beside(server):
                    event = events.get()
            except GramletError as error:
                event = error
        if isinstance(event, GramletError):
            return _end(server.stop(drain_seconds=0), _failed(event))
        assert event is not None
        _log.info("%s: no new calls; running ones have %g s", event.name, settings.drain_seconds)
        return _end(server.stop(delay_seconds=settings.drain_delay_seconds), 0)


def _end(stopped: bool, code: int) -> int:
    if not stopped:
        # A normal exit of Python would wait for the threads that still work.
        logging.shutdown()
        os._exit(code)
    return code


def _failed(error: GramletError) -> int:
    print(f"gramlet-server: {error}", file=sys.stderr)
    return 1


@contextmanager
def signals(deliver: Callable[[signal.Signals], None], reload: Callable[[], None]) -> Iterator[None]:
    """Delivers the first signal; the second ends the process with the shell's code for it, such as 130 for Ctrl-C.

    SIGHUP reads the files again that may change.

    Signals arrive through a socket that a thread reads. Python runs signal handlers in the main thread only, and not
    while that waits for a lock that it has just begun to wait for; the thread receives them regardless.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reader, deliver, reload), name="signals", daemon=True)
    watcher.start()
    # Python writes every signal that has a handler to the socket as it arrives, even if the handler is empty.
    handlers = {number: signal.signal(number, lambda *_: None) for number in (*_ENDING, signal.SIGHUP)}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, deliver: Callable[[signal.Signals], None], reload: Callable[[], None]) -> None:
    """Reads signals, a byte each, until the other end of the socket is closed."""
    seen = False
    while number := reader.recv(1):
        if number[0] == signal.SIGHUP:
            reload()
        if number[0] not in _ENDING:
            continue
        if seen:
            os._exit(128 + number[0])
        seen = True
        deliver(signal.Signals(number[0]))

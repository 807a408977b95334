"""A process that serves one small service, for tests of how processes start and end.

    python echo_server.py FAILURE      FAILURE: none, weights (a GramletError), bug or endless

It prints `ready PORT`, then `called` for every call of /test.Slow/call, which lasts until its caller goes away.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from gramlet.errors import FailedPrecondition
from gramlet_server.runtime import logs
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.process import serve
from gramlet_server.runtime.server import Server


class Slow:
    def call(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answers at once; ends when released; `stubborn` calls do not even end when they are cancelled."""
        released = threading.Event()
        if request != b"stubborn":
            context.add_callback(released.set)
        self.release = released.set
        print("called", flush=True)
        yield b"begun"
        released.wait(60)
        yield b"done"


def add(servicer: Slow, server: grpc.Server) -> None:
    handlers = {"call": grpc.unary_stream_rpc_method_handler(servicer.call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Slow", handlers),))


def build() -> Built:
    if sys.argv[1] == "weights":
        raise FailedPrecondition("no weights: give some")
    if sys.argv[1] == "bug":
        raise ZeroDivisionError("a bug")
    if sys.argv[1] == "endless":
        print("loading", flush=True)
        threading.Event().wait()
    slow = Slow()

    def drain() -> None:
        print("draining", flush=True)
        if "finish" in sys.argv:
            slow.release()

    return Built(slow, drain=drain, close=lambda: print("closed", flush=True))


@contextmanager
def ready(server: Server) -> Iterator[None]:
    """Says on which port the server listens."""
    print("ready", server.port, flush=True)
    yield


if __name__ == "__main__":
    logs.configure("text", "INFO")
    settings = ServerSettings(port=0, drain_seconds=0.2 if "hasty" in sys.argv else 60)
    service = Service("test.Slow", add, build)
    sys.exit(serve([service], settings, Metrics(), ready))

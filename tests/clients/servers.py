"""Real servers on loopback, and servicers that follow a script."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from queue import SimpleQueue
from typing import Any

import gramlet
from gramlet.errors import GramletError
from gramlet.feature.v1 import feature_pb2_grpc
from gramlet.stylize.v1 import stylize_pb2_grpc
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server

FEATURE = "gramlet.feature.v1.FeatureService"
STYLIZE = "gramlet.stylize.v1.StylizeService"
_ADD = {
    FEATURE: feature_pb2_grpc.add_FeatureServiceServicer_to_server,
    STYLIZE: stylize_pb2_grpc.add_StylizeServiceServicer_to_server,
}


@contextmanager
def serving(servicers: dict[str, Any], port: int = 0, **settings: Any) -> Iterator[Server]:
    """A started server with these servicers, by service name."""
    services = [Service(name, _ADD[name], lambda it=servicer: Built(it)) for name, servicer in servicers.items()]
    server = Server(services, ServerSettings(port=port, **settings))
    built: SimpleQueue[GramletError | None] = SimpleQueue()
    server.start(built.put)
    assert built.get(timeout=30) is None
    try:
        yield server
    finally:
        server.stop(drain_seconds=0)


@contextmanager
def client_of(servicers: dict[str, Any], **options: Any) -> Iterator[gramlet.Client]:
    """A client of a server with these servicers."""
    with serving(servicers) as server, gramlet.Client(f"127.0.0.1:{server.port}", **options) as client:
        yield client


@asynccontextmanager
async def async_client_of(servicers: dict[str, Any], **options: Any) -> AsyncIterator[gramlet.AsyncClient]:
    """An asynchronous client of a server with these servicers."""
    with serving(servicers) as server:
        async with gramlet.AsyncClient(f"127.0.0.1:{server.port}", **options) as client:
            yield client


class Script:
    """A servicer whose every method is scripted: `script.GetModel = [first, second, ...]`, one step a call.

    A step is an error to raise, or a function of the request (or requests) and the context. The last step repeats.
    `calls` lists what was called with which request.
    """

    def __init__(self, **methods: list[Any]) -> None:
        self._methods = methods
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(request: Any, context: Any) -> Any:
            self.calls.append((name, request))
            steps = self._methods[name]
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, Exception):
                raise step
            return step(request, context)

        return call


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

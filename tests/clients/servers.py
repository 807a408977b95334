"""Real servers on loopback, servicers that follow a script, and twins for the tests of the two clients."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import gramlet
from gramlet.embed.v1 import embed_pb2_grpc
from gramlet.errors import GramletError
from gramlet.feature.v1 import feature_pb2_grpc
from gramlet.health import EMBED, FEATURE, STYLIZE, TRAIN
from gramlet.run.v1 import run_pb2_grpc
from gramlet.stylize.v1 import stylize_pb2_grpc
from gramlet.train.v1 import train_pb2_grpc
from gramlet_server.runtime.build import Built, Service, ignore
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server

RUN = "gramlet.run.v1.RunService"

_ADD = {
    FEATURE: feature_pb2_grpc.add_FeatureServiceServicer_to_server,
    STYLIZE: stylize_pb2_grpc.add_StylizeServiceServicer_to_server,
    TRAIN: train_pb2_grpc.add_TrainServiceServicer_to_server,
    EMBED: embed_pb2_grpc.add_EmbedServiceServicer_to_server,
    RUN: run_pb2_grpc.add_RunServiceServicer_to_server,
}


@contextmanager
def serving(
    servicers: dict[str, Any], port: int = 0, on_readiness: Callable[[Any], None] = ignore, **settings: Any
) -> Iterator[Server]:
    """A started server with these servicers, by service name."""
    services = [
        Service(name, _ADD[name], lambda it=servicer: Built(it, on_readiness=on_readiness))
        for name, servicer in servicers.items()
    ]
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
    `calls` lists what was called with which request. A method without a script takes the steps of `others`.
    """

    def __init__(self, others: Sequence[Any] = (), **methods: list[Any]) -> None:
        self._methods = defaultdict(lambda: list(others), methods)
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


async def acollect(values: AsyncIterable[Any]) -> list[Any]:
    """Everything that the asynchronous client gives."""
    return [value async for value in values]


def collect(values: Iterable[Any]) -> list[Any]:
    """Everything that the synchronous client gives."""
    return list(values)


class AsyncBeside:
    """A call of the asynchronous client that goes on beside the test, in a task."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        async def run() -> Any:
            return await call()

        self._task = asyncio.create_task(run())

    async def outcome(self) -> Any:
        """What the call returns, or raises."""
        return await asyncio.wait_for(self._task, 30)


class Beside:
    """A call of the synchronous client that goes on beside the test, in a thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()

        def run() -> None:
            try:
                self._future.set_result(call())
            except BaseException as error:
                self._future.set_exception(error)

        Thread(target=run, daemon=True).start()

    def outcome(self) -> Any:
        """What the call returns, or raises."""
        return self._future.result(30)


async def ahappened(event: Event) -> bool:
    """Whether the event happens, while the loop goes on."""
    return await asyncio.to_thread(event.wait, 30)


def happened(event: Event) -> bool:
    """Whether the event happens."""
    return event.wait(30)

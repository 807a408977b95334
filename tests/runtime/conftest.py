"""A real server on a free port with a small service whose behavior each test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from gramlet.errors import GramletError
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.server import Server

NAME = "test.Echo"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Echo:
    """Answers each request with `answer(request, context)`. Streams send `first` before that."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes, grpc.ServicerContext], bytes] = lambda request, context: request
        self.closed = threading.Event()
        self.drained = threading.Event()
        self.fail: Callable[[GramletError], None] = lambda error: None
        self.lack: Callable[[GramletError | None], None] = lambda error: None

    def unary_unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.answer(request, context)

    def stream_unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"".join([self.answer(request, context) for request in requests])

    def unary_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return self.stream_stream(iter([request]), context)

    def stream_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        for request in requests:
            yield self.answer(request, context)

    def endless(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            while True:
                yield request
        finally:
            self.closed.set()

    def typed(self, request: Duration, context: grpc.ServicerContext) -> bytes:
        return str(request.seconds).encode()


def add_echo(servicer: Echo, server: grpc.Server) -> None:
    handlers = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(servicer, kind)) for kind in KINDS}
    handlers["endless"] = grpc.unary_stream_rpc_method_handler(servicer.endless)
    handlers["typed"] = grpc.unary_unary_rpc_method_handler(servicer.typed, request_deserializer=Duration.FromString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


class Running:
    """A started server, its one servicer, and a channel to it."""

    def __init__(self, server: Server, echo: Echo, built: SimpleQueue[GramletError | None]) -> None:
        self.server = server
        self.echo = echo
        self.built = built
        self.address = f"127.0.0.1:{server.port}"
        self.channel = grpc.insecure_channel(self.address)

    def call(self, kind: str, request: bytes = b"hello", **options: Any) -> tuple[list[bytes], Any]:
        """Makes a call of a kind; returns its responses and the finished call."""
        requests = iter([request]) if kind.startswith("stream") else request
        method = getattr(self.channel, kind)(f"/{NAME}/{kind}")
        if kind.endswith("stream"):
            call = method(requests, timeout=30, **options)
            return list(call), call
        response, call = method.with_call(requests, timeout=30, **options)
        return [response], call


Serving = Callable[..., Any]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """`with serving(max_calls=1) as running`: a server with these settings, built unless `build` says otherwise."""

    @contextmanager
    def start(
        build: Callable[[], None] = lambda: None, metrics: Metrics | None = None, **settings: Any
    ) -> Iterator[Running]:
        echo = Echo()

        def built() -> Built:
            build()
            return Built(
                echo,
                drain=echo.drained.set,
                on_failure=lambda report: setattr(echo, "fail", report),
                on_readiness=lambda report: setattr(echo, "lack", report),
            )

        service = Service(NAME, add_echo, built)
        server = Server([service], ServerSettings(port=0, **settings), metrics)
        outcomes: SimpleQueue[GramletError | None] = SimpleQueue()
        server.start(outcomes.put)
        running = Running(server, echo, outcomes)
        try:
            if build.__name__ == "<lambda>":
                assert outcomes.get(timeout=30) is None
            yield running
        finally:
            running.channel.close()
            server.stop(drain_seconds=0)

    return start

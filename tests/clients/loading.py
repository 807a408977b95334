"""Servers that are there and not ready, for tests of clients that wait."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Event

import grpc
from gramlet.feature.v1.feature_pb2_grpc import add_FeatureServiceServicer_to_server
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from tests.clients.servers import Script


class Loading:
    """Two servers of one script that are not ready until `ready` is called.

    Attributes:
        address: Of both.
        watched: Happens when a channel asks for their health.
        checked: Happens when a client does.
    """

    def __init__(self, stack: ExitStack, script: Script) -> None:
        self._health = _Health()
        self.watched, self.checked = self._health.watched, self._health.checked
        self.address = ",".join(f"127.0.0.1:{self._serve(stack, script)}" for _ in range(2))

    def _serve(self, stack: ExitStack, script: Script) -> int:
        server = grpc.server(ThreadPoolExecutor(32))  # each watch takes a thread
        add_HealthServicer_to_server(self._health, server)
        add_FeatureServiceServicer_to_server(script, server)
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        return port

    def ready(self) -> None:
        """The servers are ready from now on."""
        self._health.serve()


class _Health(HealthServicer):
    """Not grpc_health's own servicer: that one sends while it holds its lock, and a watch that ends waits for it."""

    def __init__(self) -> None:
        self.watched = Event()
        self.checked = Event()
        self._status = HealthCheckResponse.NOT_SERVING
        self._watches: list[SimpleQueue[bool]] = []

    def serve(self) -> None:
        self._status = HealthCheckResponse.SERVING
        for changes in self._watches:
            changes.put(True)

    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        self.checked.set()
        return HealthCheckResponse(status=self._status)

    def Watch(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[HealthCheckResponse]:
        self.watched.set()
        changes: SimpleQueue[bool] = SimpleQueue()
        context.add_callback(lambda: changes.put(False))
        self._watches.append(changes)
        yield HealthCheckResponse(status=self._status)
        while changes.get():
            yield HealthCheckResponse(status=self._status)

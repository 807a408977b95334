"""grpc.health.v1: whether the server, and each service, is serving."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

NAME = health.SERVICE_NAME
SERVER = health.OVERALL_HEALTH
"""The name of the server as a whole, among the names of services."""


class Health(health.HealthServicer):
    """The state of each service, and of the server as a whole.

    Unlike its base class it can end open watches. A watch is a call that never ends by itself; it would delay the end
    of the server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[grpc.ServicerContext] = set()
        self._reported: dict[str, bool] = {}

    def add_to(self, server: grpc.Server, services: Iterable[str]) -> None:
        """Answers health checks of a server. The server and its services are not serving at first."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)
        for name in (SERVER, *services):
            self.set_serving(name, False)

    def set_serving(self, name: str, serving: bool) -> None:
        """Whether a service, or the SERVER, is serving from now on. Without effect once the server drains."""
        status = health_pb2.HealthCheckResponse
        if self._reported.get(name) is not serving:  # open watches report changes only
            self._reported[name] = serving
            self.set(name, status.SERVING if serving else status.NOT_SERVING)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        self._watches.add(context)
        context.add_callback(lambda: self._watches.discard(context))
        return super().Watch(request, context, send_response_callback)

    def cancel_watches(self) -> None:
        """Ends all open watches."""
        for context in list(self._watches):
            context.cancel()

"""Asks the server of this machine whether it is serving: the health check of a container without another client."""

from __future__ import annotations

import socket
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gramlet_server.runtime.config import ServerSettings, format_address, reachable

_TIMEOUT_SECONDS = 4.0


def probe(settings: ServerSettings) -> int:
    """Returns exit code 0 if the server with these settings is SERVING, otherwise 1, with the reason on stderr.

    With TLS it only opens a connection, because the server's certificate is not issued for the name of this machine.
    """
    host = reachable(settings.host)
    try:
        if settings.tls_cert:
            socket.create_connection((host, settings.port), _TIMEOUT_SECONDS).close()
            return 0
        with grpc.insecure_channel(format_address(host, settings.port), [("grpc.enable_http_proxy", 0)]) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS).status
    except (OSError, grpc.RpcError) as error:
        reason = error.details() if isinstance(error, grpc.Call) else error
        print(f"gramlet-server: no answer on {format_address(host, settings.port)}: {reason}", file=sys.stderr)
        return 1
    if status != health_pb2.HealthCheckResponse.SERVING:
        print("gramlet-server: not serving yet, or no longer", file=sys.stderr)
        return 1
    return 0

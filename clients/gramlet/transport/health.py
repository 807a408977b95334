"""The check of grpc.health.v1."""

from __future__ import annotations

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gramlet.health import Health
from gramlet.transport.channel import Metadata
from gramlet.transport.rpc import Rpc

CHECK = Rpc(health_pb2_grpc.HealthStub, "Check")


def encode_check(service: str) -> health_pb2.HealthCheckRequest:
    """Asks for the health of a service."""
    return health_pb2.HealthCheckRequest(service=service)


def check_metadata(service: str) -> Metadata:
    """Metadata of a check, by which a proxy before several services finds the right one."""
    return (("gramlet-service", service),)


def decode_health(message: health_pb2.HealthCheckResponse) -> Health:
    """The health in an answer."""
    return {
        health_pb2.HealthCheckResponse.SERVING: Health.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING: Health.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVICE_UNKNOWN: Health.NOT_OFFERED,
    }.get(message.status, Health.UNKNOWN)

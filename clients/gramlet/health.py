"""How a server is: the services it offers, their health, the network, and how busy they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from grpc_health.v1 import health_pb2

from gramlet.errors import GramletError, NotFound, Unavailable, Unimplemented
from gramlet.feature.types import Model
from gramlet.stylize.types import StylizeStatus

FEATURE = "gramlet.feature.v1.FeatureService"
STYLIZE = "gramlet.stylize.v1.StylizeService"
TRAIN = "gramlet.train.v1.TrainService"
EMBED = "gramlet.embed.v1.EmbedService"
SERVICES = (FEATURE, STYLIZE, TRAIN, EMBED)

ASKED_FOR = "gramlet-service"
"""Metadata of a health check: its service, so that a proxy before several services finds the right one."""


class Health(Enum):
    """How one service is, as grpc.health.v1 tells it."""

    SERVING = "serving"
    NOT_SERVING = "not serving"  # loading, or going away
    NOT_OFFERED = "not offered"  # the server runs without it
    UNREACHABLE = "unreachable"  # behind a proxy that answers
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ServerStatus:
    """How a server is.

    Attributes:
        address: Where it is.
        health: By full service name, such as `gramlet.feature.v1.FeatureService`.
        model: The network, where FeatureService serves.
        stylize: How busy StylizeService is, where it serves.
    """

    address: str
    health: Mapping[str, Health]
    model: Model | None = None
    stylize: StylizeStatus | None = None


def decode_health(value: int) -> Health:
    """The health that a check tells."""
    return {
        health_pb2.HealthCheckResponse.SERVING: Health.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING: Health.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVICE_UNKNOWN: Health.NOT_OFFERED,
    }.get(value, Health.UNKNOWN)


def health_by_service(answers: Mapping[str, Health | GramletError]) -> dict[str, Health]:
    """The health of each service, from the answers of its check or the way the check failed.

    Raises:
        GramletError: A failure that tells nothing about the service, or nobody answered at all.
    """
    errors = [answer for answer in answers.values() if isinstance(answer, GramletError)]
    if len(errors) == len(answers) and all(isinstance(error, Unavailable) for error in errors):
        raise errors[0]
    return {service: _health(answer) for service, answer in answers.items()}


def _health(answer: Health | GramletError) -> Health:
    match answer:
        case Health():
            return answer
        case NotFound():
            return Health.NOT_OFFERED
        case Unimplemented():
            return Health.UNKNOWN
        case Unavailable():
            return Health.UNREACHABLE
        case _:
            raise answer

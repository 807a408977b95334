"""The state of a server: the services it offers, their health, the network, and how busy they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gramlet.errors import GramletError, NotFound, Unavailable, Unimplemented
from gramlet.feature.types import Model
from gramlet.stylize.types import StylizeStatus

FEATURE = "gramlet.feature.v1.FeatureService"
STYLIZE = "gramlet.stylize.v1.StylizeService"
TRAIN = "gramlet.train.v1.TrainService"
EMBED = "gramlet.embed.v1.EmbedService"
SERVICES = (FEATURE, STYLIZE, TRAIN, EMBED)


class Health(Enum):
    """The state of one service, by grpc.health.v1."""

    SERVING = "serving"
    NOT_SERVING = "not serving"  # loading, or shutting down
    NOT_OFFERED = "not offered"  # the server runs without it
    UNREACHABLE = "unreachable"  # behind a proxy that answers
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ServerStatus:
    """The state of a server.

    Attributes:
        address: Where the server is.
        health: By full service name, such as `gramlet.feature.v1.FeatureService`.
        reasons: Why a service that is offered does not serve, by its name: it loads, its store fails, or the token is
            not for it.
        model: The network, where FeatureService serves and the token is for it.
        stylize: How busy StylizeService is, where it serves and the token is for it.
    """

    address: str
    health: Mapping[str, Health]
    model: Model | None = None
    stylize: StylizeStatus | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_serving(self) -> bool:
        """Whether every service that is offered serves."""
        offered = [health for health in self.health.values() if health is not Health.NOT_OFFERED]
        return bool(offered) and all(health is Health.SERVING for health in offered)


def health_by_service(answers: Mapping[str, Health | GramletError]) -> dict[str, Health]:
    """The health of each service, from the answer of its check or the error of the check.

    Raises:
        GramletError: A check failed for a reason other than the service's health, or no server answered at all.
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

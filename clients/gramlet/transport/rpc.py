"""RPCs as values: clients name the method of a service without knowing its generated code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

Message: TypeAlias = Any
"""A protobuf message. Only wire.py looks inside."""


class Kind(Enum):
    """How many messages each side sends."""

    UNARY = "one request, one reply"
    SERVER_STREAM = "one request, many replies"
    STREAM = "many requests, many replies"


@dataclass(frozen=True)
class Rpc:
    """A method of a service. Each service's wire.py declares its own: `EXTRACT = Rpc(FeatureServiceStub, "Extract")`.

    Attributes:
        stub: The generated stub of the service; makes the methods from a channel.
        method: The name of the method.
        kind: How many messages each side sends.
    """

    stub: Callable[[Any], Any]
    method: str
    kind: Kind = Kind.UNARY

    @property
    def name(self) -> str:
        """The method and its service, for messages: `Extract of FeatureService`."""
        return f"{self.method} of {getattr(self.stub, '__name__', '').removesuffix('Stub')}"

    def of(self, channel: Any) -> Callable[..., Any]:
        """The method, over a channel."""
        method: Callable[..., Any] = getattr(self.stub(channel), self.method)
        return method

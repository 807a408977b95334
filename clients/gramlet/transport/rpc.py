"""RPCs as values: clients name the method of a service without knowing its generated code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

Message: TypeAlias = Any
"""A protobuf message. Only wire.py looks inside."""


SILENCE_SECONDS = 600.0
"""How long a server may need for a reply: longer than the longest queue of a device that is not refused."""

FINISH_SECONDS = 30.0
"""How long it may need to end a call that has had its last reply."""

LAST_REPLIES = 100
"""Replies that may come after the last one that was expected. A server that sends more does not end."""

BEATING_SECONDS = 60.0
"""The same for the replies of long work, once there is one: its servers send an empty message every 10 s."""


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
        silence: Seconds after which a call without another reply is given up. The first reply has SILENCE_SECONDS.
    """

    stub: Callable[[Any], Any]
    method: str
    kind: Kind = Kind.UNARY
    silence: float = SILENCE_SECONDS

    @property
    def name(self) -> str:
        """The method and its service, for messages: `Extract of FeatureService`."""
        return f"{self.method} of {getattr(self.stub, '__name__', '').removesuffix('Stub')}"

    def of(self, channel: Any) -> Callable[..., Any]:
        """The method, over a channel."""
        method: Callable[..., Any] = getattr(self.stub(channel), self.method)
        return method

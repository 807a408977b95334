"""The messages of a call: read when the call has been admitted, each within a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from gramlet.errors import InvalidInput
from gramlet.tensor.parts import Joiner

from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runtime.bounds import check_bounds
from gramlet_server.runtime.silence import FIRST_PACE_SECONDS, Pace, Silences

FIRST_MESSAGES = "first messages"
SLOW_CALLS = "slow calls"
"""Calls that wait for their callers, and make room when the server is full."""
_RUN_FIELDS = ("run_id", "resume_run_id", "watch_run_id", "map_id", "resume_map_id", "watch_map_id")
_START_FIELDS = ("configuration", "start")
"""The messages in a first request that may have one of the fields above."""


@dataclass(frozen=True)
class Patience:
    """How long a call waits for its caller, in seconds; 0: without a limit.

    Attributes:
        first: For the first message.
        idle: For each further message, and for a reply to be taken.
        first_pace: For the first message, while others need the call's place.
    """

    first: float
    idle: float
    first_pace: float = FIRST_PACE_SECONDS


class Incoming(Iterator[Any]):
    """The messages of a call, in order.

    gRPC would read the message of a unary call before the token is checked and the call admitted. So every call is
    registered as a stream of bytes; nothing is read, and no memory is used for it, before `next`.

    Args:
        messages: The bytes of each message.
        context: gRPC's.
        deserialize: From bytes to a message; None: the bytes are the message.
        silences: Ends the call if the caller sends nothing for too long.
        patience: How long that is.
        group: The calls that make room for each other while they wait for their first messages.

    Attributes:
        run: The id of the run, or of the map, that the first message names; empty if it names none.
    """

    def __init__(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        deserialize: Callable[[bytes], Any] | None,
        silences: Silences,
        patience: Patience,
        group: str = FIRST_MESSAGES,
    ) -> None:
        self._messages = messages
        self._context = context
        self._deserialize = deserialize
        self._silences = silences
        self._patience = patience
        self._group = group
        self._held = PROCESS.reserve(0)
        self._joined = PROCESS.reserve(0)
        self._received = 0
        self._pace = Pace()
        self._may_be_idle = False
        self._at_end: Callable[[], None] = lambda: None
        self._turn_is_wanted: Callable[[], bool] = lambda: False
        self.run = ""

    def __next__(self) -> Any:
        """The next message.

        Raises:
            InvalidInput: It is not a message of the call's type, or something in it is out of its bounds.
            DeadlineExceeded: The caller was silent for too long.
            grpc.RpcError: The caller has gone.
        """
        first = self._received == 0
        data = self._next_bytes(first)
        self._received += 1
        return data if self._deserialize is None else self._decoded(self._deserialize, data, first)

    def _next_bytes(self, first: bool) -> bytes:
        """Waits for the next message, but not for ever."""
        seconds = self._patience.first if first else self._patience.idle
        which = "the first message" if first else "the next message"
        reason = f"{which} did not come within {seconds:g} s: send it sooner, or open the call when it is there"
        idles = self._may_be_idle and not first
        with self._silences.limited(
            self._context,
            0.0 if idles else seconds,
            reason,
            group=self._group if first else "" if idles else SLOW_CALLS,
            receives=True,
            others_wait=self._is_in_the_way,
            patience=self._patience.first_pace if first else math.inf if idles else self._pace.left,
        ) as wait:
            try:
                data = next(self._messages)
            except (grpc.RpcError, StopIteration):  # gRPC reports a call that was ended as either
                if wait.error is not None:
                    raise wait.error from None
                raise
        if not first:
            self._pace.moved(wait.seconds, len(data))
        return data

    def _decoded(self, deserialize: Callable[[bytes], Any], data: bytes, first: bool) -> Any:
        # As bytes and as a message, until the next one comes or the call ends.
        self._held.resize(2 * len(data))
        try:
            message = deserialize(data)
        except DecodeError:
            raise InvalidInput("the bytes are not a message of this call's type") from None
        if first:
            self.run = run_named_in(message)
        check_bounds(message)
        return message

    def only(self) -> Any:
        """The message of a call that has one.

        Raises:
            InvalidInput: There is none, or it is not of the call's type.
        """
        try:
            return next(self)
        except StopIteration:
            raise InvalidInput("the call ended without its message") from None

    def reserve(self, size: int) -> None:
        """Reserves the bytes of the messages that the service holds at the same time, in all.

        Raises:
            Overloaded: There is no room.
        """
        self._joined.resize(size)

    def close(self) -> None:
        """Gives back the memory of the messages."""
        self._at_end()
        self._held.close()
        self._joined.close()

    def at_end(self, call: Callable[[], None]) -> None:
        """Registers what to call when the call has ended."""
        self._at_end = call

    def hurry(self, others_wait: Callable[[], bool]) -> None:
        """Waits for the next messages at the least pace only, while this is true."""
        self._turn_is_wanted = others_wait

    def _is_in_the_way(self) -> bool:
        return PROCESS.is_wanted or self._turn_is_wanted()

    def let_idle(self) -> None:
        """Waits without a limit from now on, for a caller who need not send anything more."""
        self._may_be_idle = True


def joined_from_parts(messages: Iterator[Any]) -> Iterator[Any]:
    """The messages of a call, each whole: those that came in parts are joined, and then checked like any other.

    Raises:
        InvalidInput: Parts that make no message, or something in one is out of its bounds.
        Overloaded: There is no memory for the parts.
    """
    joiner: Joiner[Any] = Joiner(messages.reserve if isinstance(messages, Incoming) else lambda size: None)
    if isinstance(messages, Incoming):
        messages.at_end(joiner.clear)  # an error may keep this frame alive for long
    for part in messages:
        message = joiner.add(part)
        del part
        if message is not None:
            check_bounds(message)
            yield message
            del message


def hurry(messages: Iterator[Any], others_wait: Callable[[], bool]) -> None:
    """Says when others wait for what the call of these messages holds: its caller must keep the pace then."""
    if isinstance(messages, Incoming):
        messages.hurry(others_wait)


def let_idle(messages: Iterator[Any]) -> None:
    """Says that the caller of these messages need not send anything more, so that silence does not end the call."""
    if isinstance(messages, Incoming):
        messages.let_idle()


def run_named_in(request: Any) -> str:
    """The id of the run or map that the first request of a call names, for the log; empty if it names none."""
    descriptor = getattr(request, "DESCRIPTOR", None)
    fields = descriptor.fields_by_name if descriptor else {}
    named = [getattr(request, name) for name in _RUN_FIELDS if name in fields]
    inside = [getattr(request, name) for name in _START_FIELDS if name in fields]
    return next(filter(None, [*named, *map(run_named_in, inside)]), "")

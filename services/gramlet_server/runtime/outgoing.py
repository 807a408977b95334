"""The replies of a call: their bytes count against the budget of the process until gRPC has passed them on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import grpc
from gramlet.errors import Unavailable

from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runtime.incoming import SLOW_CALLS, Patience
from gramlet_server.runtime.silence import Pace, Silences, Wait

SMALL_BYTES = 64 * 1024
"""Replies of fewer bytes are not counted: a full server can still give them. gRPC buffers as much for every stream."""
_COPIES = 2
"""The bytes of a reply are in memory once for Python and once for gRPC."""
# Unavailable, not DeadlineExceeded: the SDK then goes on from where the caller has read to.
_NOT_TAKEN = "the replies were not taken for too long: read them as they come"

_log = logging.getLogger(__name__)


class Outgoing:
    """The replies of one call.

    gRPC holds a reply until the caller's window has room for it. A caller who takes replies too slowly is ended, as
    one who sends too slowly is; while others wait for memory, sooner.

    Args:
        context: gRPC's.
        serialize: From a message to its bytes; None: the message is bytes.
        silences: Ends the call if its replies are not taken for too long.
        patience: How long that is.
    """

    def __init__(
        self,
        context: grpc.ServicerContext,
        serialize: Callable[[Any], bytes] | None,
        silences: Silences,
        patience: Patience,
    ) -> None:
        self._context = context
        self._serialize = serialize
        self._limited = partial(
            silences.limited, context, patience.idle, _NOT_TAKEN, group=SLOW_CALLS, error=Unavailable
        )
        self._room = PROCESS.reserve(0)

    def stream(self, responses: Iterator[Any], ended_with: Callable[[Exception | None], None]) -> Iterator[bytes]:
        """The bytes of each reply, in order.

        Args:
            responses: The replies.
            ended_with: Is told the error if the call was ended because a reply was not taken.

        Raises:
            Overloaded: There is no memory for a reply.
        """
        pace = Pace()
        self._at_end(self._room.close)  # gRPC may hold the last reply longer than this generator lives
        for response in responses:
            data = self._bytes(response)
            del response  # gRPC may have to wait with the bytes
            with self._limit(len(data), pace) as wait:
                try:
                    yield data
                finally:
                    ended_with(wait.error)
            pace.moved(wait.seconds, len(data))
            del data
            self._room.resize(0)

    def only(self, response: Any) -> bytes:
        """The bytes of the one reply of a call, which gRPC sends when the call has returned.

        Raises:
            Overloaded: There is no memory for it.
        """
        data = self._bytes(response)
        if len(data) <= SMALL_BYTES:
            return data
        size, waiting = len(data), ExitStack()
        wait = waiting.enter_context(self._limit(size, Pace()))

        def over() -> None:
            self._room.close()
            waiting.close()
            if wait.error is not None:
                _log.warning("a reply of %d bytes was dropped: %s", size, wait.error)

        self._at_end(over)
        return data

    def _at_end(self, call: Callable[[], None]) -> None:
        """Calls it when the call has ended and gRPC holds none of its replies any more."""
        if not self._context.add_callback(call):
            call()

    def _bytes(self, response: Any) -> bytes:
        size = len(response) if self._serialize is None else response.ByteSize()
        if size > SMALL_BYTES:
            self._room.resize(_COPIES * size)
        return response if self._serialize is None else self._serialize(response)

    def _limit(self, size: int, pace: Pace) -> AbstractContextManager[Wait]:
        counts = size > SMALL_BYTES
        return self._limited(patience=pace.left, others_wait=lambda: counts and PROCESS.is_wanted)

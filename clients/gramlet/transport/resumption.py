"""Whether long work is ordered or resumed, after whatever happened to the connection. Pure: no gRPC, no clock."""

from __future__ import annotations

import logging

from gramlet.errors import AlreadyExists, GramletError, NotFound, Unavailable

_log = logging.getLogger("gramlet")


class Resumption:
    """One piece of long work in the server's store, across any number of connections.

    After a break it is resumed by its name. A server that has none of that name begins again: the same order takes the
    same course.

    Args:
        name: What the work is called, for people: `run 3fa2`.
        ordered: Whether the caller has an order to give. One who only resumes can do nothing else.

    Attributes:
        resuming: Whether to send the wish to resume rather than the order.
    """

    def __init__(self, name: str, ordered: bool) -> None:
        self._name = name
        self._ordered = ordered
        self._arrived = False
        self._broken = False
        self.resuming = not ordered

    def arrived(self) -> None:
        """The server has the order: after a break, resume."""
        self._arrived = True

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns what the retry policy should judge it by."""
        if isinstance(error, Unavailable):
            self._broken = True
            self.resuming = self.resuming or self._arrived
            _log.info("%s lost its server: %s", self._name, error)
            return error
        if self._ordered and self.resuming and isinstance(error, NotFound):
            self.resuming = False  # lost before it was stored
            return Unavailable(error.message)
        if self._ordered and self._broken and not self.resuming and isinstance(error, AlreadyExists):
            self.resuming = True  # the order arrived, its answer did not
            return Unavailable(error.message)
        return error

"""Long work across any number of connections: what to send, and what the caller has not seen yet. No gRPC, no clock."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, TypeVar

from gramlet.errors import AlreadyExists, GramletError, NotFound, OtherWeights, Unavailable
from gramlet.transport.rpc import Message

E = TypeVar("E")

_log = logging.getLogger("gramlet")


class Run(ABC, Generic[E]):
    """One piece of long work in the server's store. No event is reported twice, and none is missed.

    After a break the work is resumed by its id, or watched again. If the server does not know it, the order is sent
    again: the same order takes the same steps.

    Args:
        run_id: The id under which the server stores the work.
        ordered: There is an order to send. Without one the work can only be resumed or watched.
        watching: The work is only watched.

    Attributes:
        resuming: The next request resumes the work instead of ordering it.
        watching: All requests only watch the work.
        take_over: The next request resumes the work even if another replica seems to do it: the connection to the
            server that did it broke, so the server is lost, or has stopped the work, because its caller had left.
        done: The result has arrived.
        title: What the log calls the work.
    """

    remote: ClassVar[type]
    """The type of the event that reports the progress of work on another replica than the one that was called."""

    def __init__(self, run_id: str, *, ordered: bool, watching: bool = False) -> None:
        self.run_id = run_id
        self.resuming = not ordered
        self.watching = watching
        self.take_over = False
        self.done = False
        self.title = f"run {run_id}"
        self._told = ""
        self._ordered = ordered
        self._is_remote = not ordered
        self._arrived = False
        self._broken = False
        self._is_followed = False  # events come; they do not after a break, until the next one has come

    @abstractmethod
    def request(self) -> Message:
        """The first message of a connection: the order, or the request to resume."""

    def uploads(self) -> Iterable[Callable[[], Message]] | None:
        """The messages that follow, each to be made when it is sent; None as long as the server has not asked."""
        return None

    def accept(self, message: Message) -> E | None:
        """The event in a reply, or None for one that the caller has seen before."""
        event = self._decode(message)
        if event is None:
            return None
        self._is_remote = isinstance(event, self.remote)
        self._is_followed = True
        self._told = ""
        self._note(event)
        if not self._is_new(event):
            return None
        self._remember(event)
        return event

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns the error by which the retry policy decides."""
        if isinstance(error, Unavailable | OtherWeights):
            self._broken = True
            self.resuming = self.resuming or self._arrived
            # A server that answers with a request id is alive. It would not be right to take its work away.
            self.take_over = not (self._is_remote or error.request_id)
            lost = self._arrived or not self._ordered
            self._tell(f"{self.title} {'lost its' if lost else 'waits for a'} server: {error}")
            return error
        if self._ordered and self.resuming and isinstance(error, NotFound):
            self.resuming = False  # the server was lost before it stored the order
            return Unavailable(error.message)
        if self._ordered and self._broken and not self.resuming and isinstance(error, AlreadyExists):
            self.resuming = True  # the order arrived, but its answer was lost
            return Unavailable(error.message)
        return error

    def _tell(self, text: str) -> None:
        """Logs why there are no events, once for each reason until there are some again."""
        if text != self._told:
            self._told = text
            _log.info("%s", text)

    def lost(self, error: GramletError) -> E | None:
        """The event that the server was lost: once for each time that events came before. None for other failures."""
        if not (self._is_followed and isinstance(error, Unavailable | OtherWeights)):
            return None
        self._is_followed = False
        return self._reconnecting(error.message)

    @abstractmethod
    def _reconnecting(self, message: str) -> E:
        """The event that the client looks for a server that goes on."""

    def _note(self, event: E) -> None:
        """Looks at an event, new or not. Most orders have arrived when the first event comes: after a break, resume."""
        self._arrived = True

    @abstractmethod
    def _decode(self, message: Message) -> E | None:
        """The event in a reply; None for one that this release does not know."""

    @abstractmethod
    def _is_new(self, event: E) -> bool:
        """Whether the caller has not seen the event."""

    @abstractmethod
    def _remember(self, event: E) -> None:
        """Takes note of a new event."""

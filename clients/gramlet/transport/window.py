"""Items on their way to a server and back, a bounded number at a time. No gRPC, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

from gramlet.errors import GramletError, Overloaded, Unavailable
from gramlet.transport.rpc import Message
from gramlet.values import whole_number

I = TypeVar("I")  # noqa: E741  # the item as the caller gives it
T = TypeVar("T")  # the item as it travels
R = TypeVar("R")  # its result


class Window(ABC, Generic[I, T, R]):
    """The items of a stream that are under way. Their outcomes come in the order of the items.

    An item that cannot be read is its own outcome and never travels. After a break every item without an answer is sent
    again; answering one has no side effects.

    Args:
        in_flight: Most items whose outcome the caller has not taken.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = whole_number(in_flight, "in_flight", least=1)
        self._unanswered: dict[int, T] = {}
        self._unsent: list[int] = []
        self._outcomes: dict[int, R | GramletError] = {}
        self._added = 0
        self._taken = 0

    @property
    def has_room(self) -> bool:
        """Whether another item may be added."""
        return self._added - self._taken < self._in_flight

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._unanswered)

    @property
    def is_empty(self) -> bool:
        """Whether every outcome was taken."""
        return self._taken == self._added

    def add(self, item: I) -> None:
        """Reads the next item."""
        number = self._added
        self._added += 1
        try:
            self._unanswered[number] = self._read(item)
        except GramletError as error:
            self._outcomes[number] = _at(number, error)
        else:
            self._unsent.append(number)

    @abstractmethod
    def request(self) -> Message:
        """The first message of a connection."""

    def messages(self) -> Iterator[Message]:
        """The items to be sent now."""
        unsent, self._unsent = self._unsent, []
        for number in unsent:
            yield self._encode(number, self._unanswered[number])

    def accept(self, message: Message) -> None:
        """Takes an answer.

        Raises:
            Overloaded, Unavailable: The server could not take this item now; send everything unanswered again.
        """
        number, outcome = self._decode(message)
        if isinstance(outcome, Overloaded | Unavailable):
            raise outcome
        if number is None:  # such answers come in order
            number = next(iter(self._unanswered), -1)
        if self._unanswered.pop(number, None) is not None:
            self._outcomes[number] = _at(number, outcome) if isinstance(outcome, GramletError) else outcome

    def broken(self) -> None:
        """The stream is lost: every item without an answer is to be sent again."""
        self._unsent = list(self._unanswered)

    def outcomes(self) -> Iterator[R | GramletError]:
        """The outcomes that the caller can take now, in order."""
        while self._taken in self._outcomes:
            self._taken += 1
            yield self._outcomes.pop(self._taken - 1)

    @abstractmethod
    def _read(self, item: I) -> T:
        """The item as it travels."""

    @abstractmethod
    def _encode(self, number: int, item: T) -> Message:
        """The message with the item."""

    @abstractmethod
    def _decode(self, message: Message) -> tuple[int | None, R | GramletError]:
        """The number of the item, if the answer has it, and its outcome."""


def _at(number: int, error: GramletError) -> GramletError:
    error.field = f"pictures[{number}]"  # the position among the caller's pictures, not in a message
    return error

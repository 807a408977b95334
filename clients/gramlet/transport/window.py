"""Items on their way to a server and back, a bounded number at a time. No gRPC, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from gramlet.errors import GramletError, Overloaded, Unavailable
from gramlet.inputs.values import whole_number
from gramlet.transport.rpc import Message

I = TypeVar("I")  # noqa: E741  # the item as the caller gives it
T = TypeVar("T")  # the item as it travels
R = TypeVar("R")  # its result


SLOW_SECONDS = 0.02
"""A message does not wait longer than this for more of the caller's items."""

SLOW_ITEMS = 16
"""Items under way while the caller's items come slowly: their outcomes do not wait for many more items."""

MESSAGE_ITEMS = 64
MESSAGE_BYTES = 2**18
"""What a message holds. A larger one costs more for each item: its memory is taken from the system again each time."""

FLIGHT_BYTES = 32 * 2**20
FEWEST_ITEMS = 4
"""Items under way have at most so many bytes together, but there are a few in any case."""


class Window(ABC, Generic[I, T, R]):
    """The items of a stream that are under way. Their outcomes come in the order of the items.

    An item that cannot be read is its own outcome and never travels. After a break every item without an answer is sent
    again; answering one has no side effects.

    Args:
        in_flight: Most items whose outcome the caller has not taken.
    """

    _message_items = MESSAGE_ITEMS
    """The most items in one message."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = whole_number(in_flight, "in_flight", least=1)
        self._unanswered: dict[int, T] = {}
        self._sizes: dict[int, int] = {}  # of those
        self._bytes = 0  # of all of them
        self._unsent: list[int] = []
        self._outcomes: dict[int, R | GramletError] = {}
        self._added = 0
        self._taken = 0

    def room(self, slow: bool) -> int:
        """How many more items may be added now.

        Args:
            slow: Whether the caller's items come slowly.
        """
        under_way = self._added - self._taken
        if self._bytes >= FLIGHT_BYTES and under_way >= FEWEST_ITEMS:
            return 0
        if slow:
            return max(0, min(SLOW_ITEMS, self._in_flight) - under_way)
        # A message for each answer would often be a small one.
        room = self._in_flight - under_way
        return room if room >= min(MESSAGE_ITEMS, self._in_flight // 4) else 0

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._unanswered)

    @property
    def is_empty(self) -> bool:
        """Whether every outcome was taken."""
        return self._taken == self._added

    def add(self, items: Iterable[I]) -> None:
        """Reads the next items."""
        for item in items:
            number = self._added
            self._added += 1
            try:
                read = self._read(item)
            except GramletError as error:
                self._outcomes[number] = _at(number, error)
            else:
                self._unanswered[number] = read
                self._sizes[number] = size = self._size(read)
                self._bytes += size
                self._unsent.append(number)

    @abstractmethod
    def request(self) -> Message:
        """The first message of a connection."""

    def messages(self) -> Iterator[Message]:
        """The items to be sent now, in as few messages as their sizes allow."""
        unsent, self._unsent = self._unsent, []
        start, size = 0, 0
        for end, number in enumerate(unsent):
            more = self._sizes[number]
            if end > start and (end - start >= self._message_items or size + more > MESSAGE_BYTES):
                yield self._encode({number: self._unanswered[number] for number in unsent[start:end]})
                start, size = end, 0
            size += more
        if unsent:
            yield self._encode({number: self._unanswered[number] for number in unsent[start:]})

    def accept(self, message: Message) -> None:
        """Takes answers.

        Raises:
            Overloaded, Unavailable: The server could not take an item now; send everything unanswered again.
        """
        for number, outcome in self._decode(message):
            if isinstance(outcome, Overloaded | Unavailable):
                raise outcome
            if number is None:  # such answers come in order
                number = next(iter(self._unanswered), -1)
            if number in self._unanswered:
                del self._unanswered[number]
                self._bytes -= self._sizes.pop(number)
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

    def _size(self, item: T) -> int:
        """The bytes of an item, where they count."""
        return 0

    @abstractmethod
    def _encode(self, items: Mapping[int, T]) -> Message:
        """The message with these items, by their numbers."""

    @abstractmethod
    def _decode(self, message: Message) -> Iterable[tuple[int | None, R | GramletError]]:
        """The outcomes in an answer, each with the number of its item, if the answer has it."""


def _at(number: int, error: GramletError) -> GramletError:
    error.field = f"pictures[{number}]"  # the position among the caller's pictures, not in a message
    return error

"""What a call of EmbedService remembers so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from gramlet.embed.inputs import UnreadItem
from gramlet.embed.map_wire import decode_position
from gramlet.embed.types import (
    Described,
    Item,
    LayoutIteration,
    MapEvent,
    MapStart,
    MeasuredItems,
    Position,
    Queued,
    RefusedItem,
    Started,
    StyleMap,
)
from gramlet.embed.v1 import embed_pb2
from gramlet.embed.wire import decode_event, encode_item, encode_start, encode_transform_item
from gramlet.errors import GramletError
from gramlet.transport.resumption import Resumption
from gramlet.types import new_name


class MapRun:
    """The making of one map across any number of connections: no event is told twice.

    After a break the making is resumed by the map's id; the items are sent again only if they had not all arrived.
    """

    def __init__(self, start: MapStart, items: Sequence[UnreadItem]) -> None:
        if start.settings is not None and not start.map_id:
            start = dataclasses.replace(start, map_id=new_name())
        self._start = start
        self._items = items
        self.map_id = start.map_id or start.resume_map_id
        self.done = False
        self._resumption = Resumption(f"map {self.map_id}", ordered=start.settings is not None)
        self._accepted = False
        self._measured = False
        self._described = -1
        self._refused = -1
        self._iteration = (0, 0)
        self._unread: dict[int, GramletError] = {}

    def request(self) -> embed_pb2.EmbedRequest:
        """The first message to send now: the order, or the wish to resume."""
        if not self._resumption.resuming:
            return encode_start(self._start)
        count = 0 if self._measured else len(self._items)
        return encode_start(
            dataclasses.replace(
                self._start, settings=None, map_id="", from_map_id="", resume_map_id=self.map_id, count=count
            )
        )

    def items(self) -> Iterator[Callable[[], embed_pb2.EmbedRequest]]:
        """What makes each further message. Making one reads a file."""
        if not self._measured:
            for number in range(len(self._items)):
                yield lambda number=number: self._read(number)  # type: ignore[misc]

    def _read(self, number: int) -> embed_pb2.EmbedRequest:
        unread = self._items[number]
        try:
            return encode_item(unread.read())
        except GramletError as error:
            # The others go on. The server refuses the item that now has nothing in it, and we know why.
            self._unread[number] = error
            return encode_item(Item(unread.id, unread.label, picture=b""))

    def accept(self, message: embed_pb2.EmbedResponse) -> MapEvent | None:
        """The event, or None for one that was told before."""
        event = decode_event(message)
        if event is None or not self._is_news(event):
            return None
        self._remember(event)
        if isinstance(event, RefusedItem) and event.refused.index in self._unread:
            error = self._unread[event.refused.index]
            refused = dataclasses.replace(
                event.refused, code=error.code.value[0], message=error.message, field=error.field
            )
            return RefusedItem(event.map_id, refused)
        return event

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns what the retry policy should judge it by."""
        return self._resumption.broken(error)

    def _is_news(self, event: MapEvent) -> bool:
        match event:
            case Queued() | Started():
                return not self._accepted
            case Described():
                return event.described + event.refused > self._described
            case RefusedItem():
                return event.refused.index > self._refused
            case MeasuredItems():
                return not self._measured
            case LayoutIteration():
                return (event.layout, event.iteration) > self._iteration
            case _:
                return True

    def _remember(self, event: MapEvent) -> None:
        match event:
            case Started():
                self._accepted = True
                self._resumption.arrived()
            case Described():
                self._described = event.described + event.refused
            case RefusedItem():
                self._refused = event.refused.index
            case MeasuredItems():
                self._measured = True
            case LayoutIteration():
                self._iteration = (event.layout, event.iteration)
            case StyleMap():
                self.done = True


class Placing:
    """New items on their way to their positions, a bounded number at a time. No answer is asked for twice."""

    def __init__(self, items: Iterable[UnreadItem], in_flight: int) -> None:
        self._items = iter(items)
        self._in_flight = in_flight
        self._unanswered: list[UnreadItem | GramletError] = []
        self._sent = 0
        self._ended = False

    @property
    def is_empty(self) -> bool:
        """Nothing waits for an answer, and no item is left."""
        return self._ended and not self._unanswered

    def messages(self) -> Iterator[embed_pb2.TransformRequest]:
        """What to send now."""
        while not self._ended and len(self._unanswered) < self._in_flight:
            item = next(self._items, None)
            if item is None:
                self._ended = True
            else:
                self._unanswered.append(item)
        for number in range(self._sent, len(self._unanswered)):
            unread = self._unanswered[number]
            if isinstance(unread, UnreadItem):
                try:
                    message = encode_transform_item(unread.read())
                except GramletError as error:
                    self._unanswered[number] = error
                else:
                    yield message
        self._sent = len(self._unanswered)

    def outcomes(self) -> Iterator[GramletError]:
        """Those at the head of the line that could not even be read."""
        while self._unanswered and isinstance(self._unanswered[0], GramletError):
            self._sent -= 1
            yield cast(GramletError, self._unanswered.pop(0))

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is due."""
        return bool(self._unanswered)

    def accept(self, message: embed_pb2.TransformResponse) -> Position | GramletError:
        """Takes the answer to the head of the line."""
        self._unanswered.pop(0)
        self._sent -= 1
        return decode_position(message)

    def broken(self) -> None:
        """The stream is lost: everything unanswered is to be sent again."""
        self._sent = 0

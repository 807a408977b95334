"""What a call of EmbedService remembers, so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from gramlet.embed.inputs import UnreadItem
from gramlet.embed.map_wire import decode_position
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    LayoutIteration,
    MapEvent,
    MapStart,
    MeasuredItems,
    Position,
    Queued,
    Reconnecting,
    RefusedItem,
    RemoteProgress,
    Started,
    StyleMap,
)
from gramlet.embed.wire import (
    decode_event,
    encode_item,
    encode_start,
    encode_transform_item,
    encode_transform_start,
    encode_unread,
)
from gramlet.errors import GramletError
from gramlet.inputs.values import fill, text
from gramlet.transport.rpc import Message
from gramlet.transport.run import Run
from gramlet.transport.window import Window
from gramlet.types import new_name


class MapRun(Run[MapEvent]):
    """The making of one map. After a break the items are sent again only if they had not all arrived."""

    remote = RemoteProgress

    def __init__(self, start: MapStart, items: Sequence[UnreadItem]) -> None:
        start = fill(MapStart, vars(start), called={"resume_map_id": "map_id"})
        if start.settings is not None and not start.map_id:
            start = dataclasses.replace(start, map_id=new_name())
        map_id = start.map_id or start.resume_map_id or start.watch_map_id
        super().__init__(map_id, ordered=start.settings is not None, watching=bool(start.watch_map_id))
        self._start = start
        self._items = items
        self._resize = None if start.settings is None else start.settings.resize
        self._is_sent = False
        self._accepted = False
        self._measured = False
        self._described = -1
        self._refused = -1
        self._iteration = (0, 0)

    def request(self) -> Message:
        """The order, or the request to resume."""
        self._is_sent = False
        if self.watching or not self.resuming:
            return encode_start(self._start)
        count = 0 if self._measured else len(self._items)
        return encode_start(
            dataclasses.replace(
                self._start,
                settings=None,
                map_id="",
                from_map_id="",
                items_of_map_id="",
                resume_map_id=self.run_id,
                count=count,
                take_over=self.take_over,
            )
        )

    def uploads(self) -> Iterable[Callable[[], Message]] | None:
        """The items, at the begin of a connection. Each is read when it is sent."""
        if self._is_sent:
            return None
        self._is_sent = True
        return () if self._measured else [partial(self._read, number) for number in range(len(self._items))]

    def _read(self, number: int) -> Message:
        unread = self._items[number]
        try:
            return encode_item(unread.read(self._resize))
        except GramletError as error:
            return encode_unread(BadItem(unread.id, error))  # the other items go on

    def _note(self, event: MapEvent) -> None:
        if isinstance(event, Started):
            super()._note(event)

    def _reconnecting(self, message: str) -> MapEvent:
        return Reconnecting(self.run_id, message)

    def _decode(self, message: Message) -> MapEvent | None:
        return decode_event(message)

    def _is_new(self, event: MapEvent) -> bool:
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


class TransformWindow(Window[UnreadItem, Item, Position]):
    """New items on their way to their positions. The server answers them in order."""

    _message_items = 1

    def __init__(self, map_id: str, in_flight: int, weights_digest: str = "") -> None:
        super().__init__(in_flight)
        self._map_id = text(map_id, "map_id")
        self._weights_digest = weights_digest

    def request(self) -> Message:
        """The first message of a connection."""
        return encode_transform_start(self._map_id, self._weights_digest)

    def _read(self, item: UnreadItem) -> Item:
        return item.read()

    def _encode(self, items: Mapping[int, Item]) -> Message:
        (item,) = items.values()
        return encode_transform_item(item)

    def _decode(self, message: Message) -> list[tuple[None, Position | GramletError]]:
        return [(None, decode_position(message))]

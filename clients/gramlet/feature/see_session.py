"""What a See remembers, so that it can begin again after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from gramlet.errors import GramletError
from gramlet.feature.see_inputs import UnreadPicture
from gramlet.feature.see_types import (
    Patch,
    SeeEvent,
    SeeFinished,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeReconnecting,
    SeeRefused,
    SeeResult,
    SeeStart,
    SeeStarted,
)
from gramlet.feature.see_wire import decode_see_event, encode_see_items, encode_see_start
from gramlet.transport.rpc import Message
from gramlet.transport.run import Run


class SeeCall(Run[SeeEvent]):
    """A See across any number of connections, always with the same network. No event is reported twice or missed.

    The server stores nothing of it: after a break everything is sent again, and what the caller has seen is left out.
    """

    remote = SeeReconnecting  # no server sends it

    def __init__(self, start: SeeStart, pictures: Sequence[UnreadPicture]) -> None:
        super().__init__("see", ordered=True)
        self.title = "see"  # it is one call, not a run
        self._start = start
        self._pictures = pictures
        self._is_sent = False
        self._unread: dict[int, GramletError] = {}
        self._started = False
        self._progress = -1
        self._refused: dict[int, SeeRefused] = {}
        self._patches: dict[int, tuple[Patch, ...]] = {}
        self._previewed: dict[int, int] = {}
        self._optimized: dict[int, SeeOptimized] = {}

    def request(self) -> Message:
        """The first message of a connection."""
        self._is_sent = False
        return encode_see_start(self._start)

    def uploads(self) -> Iterable[Callable[[], Message]] | None:
        """The pictures, at the begin of a connection. Each is read when it is sent."""
        if self._is_sent:
            return None
        self._is_sent = True
        return [partial(self._read, number) for number in range(len(self._pictures))]

    def _read(self, number: int) -> Message:
        unread = self._pictures[number]
        try:
            picture = unread.read(self._start.resize)
        except GramletError as error:
            # The others go on. The server refuses this one, which is empty now; `_explained` gives the true reason.
            self._unread[number] = error
            picture = b""
        return encode_see_items([(unread.id, picture)])

    def _note(self, event: SeeEvent) -> None:
        if isinstance(event, SeeStarted) and not self._start.weights_digest:
            self._start = dataclasses.replace(self._start, weights_digest=event.weights_digest)

    def _reconnecting(self, message: str) -> SeeEvent:
        return SeeReconnecting(message=message)

    def _decode(self, message: Message) -> SeeEvent | None:
        event = decode_see_event(message)
        match event:
            case SeeProgress():
                return dataclasses.replace(event, total=len(self._pictures))
            case SeeRefused():
                return dataclasses.replace(event, error=self._unread.get(event.index, event.error))
            case SeeFinished():
                return SeeResult(
                    stage=self._start.stage,
                    patches=dict(self._patches),
                    optimized=dict(self._optimized),
                    pictures=event.pictures,
                    refused=tuple(self._refused.values()),
                    timing=event.timing,
                    weights_digest=event.weights_digest,
                )
            case _:
                return event

    def _is_new(self, event: SeeEvent) -> bool:
        match event:
            case SeeQueued() | SeeStarted():
                return not self._started
            case SeeProgress():
                return event.pictures > self._progress
            case SeeRefused():
                return event.index not in self._refused
            case SeePatches():
                return event.channel not in self._patches
            case SeePreview():
                seen = self._previewed.get(event.channel, 0)
                return event.channel not in self._optimized and event.step > seen
            case SeeOptimized():
                return event.channel not in self._optimized
            case _:
                return True

    def _remember(self, event: SeeEvent) -> None:
        match event:
            case SeeStarted():
                self._started = True
            case SeeProgress():
                self._progress = event.pictures
            case SeeRefused():
                self._refused[event.index] = event
            case SeePatches():
                self._patches[event.channel] = event.patches
            case SeePreview():
                self._previewed[event.channel] = event.step
            case SeeOptimized():
                self._optimized[event.channel] = event
            case SeeResult():
                self.done = True

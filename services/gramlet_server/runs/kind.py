"""What is special about the runs of a service: how they report, and where their results are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from gramlet.run.types import Progress, RunInfo, RunKind

from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

Event = TypeVar("Event")

RESULT = "result"
"""The value of a run that has its result. If that is a picture: a line of text, which may be empty, and a PNG file."""


@dataclass(frozen=True)
class Kind(Generic[Event]):
    """One kind of runs.

    Attributes:
        kind: Which one.
        result: The type of the event that has the result, the last one of a run.
        queued: The event of a run that waits, from its id and the number of runs before it.
        progress: The progress after an event, from the event and the progress before it.
        remote: The event that reports the progress of a run on another replica.
        finished: The events that a caller gets of a run, by its id, that has succeeded. The last one is the result.
        reported: Those that a caller who resumes such a run gets before them: events that may have been lost with the
            process that was to send them. Callers skip what they have seen.
        outcome: What the store has of the result in short: the head of a training; nothing for most kinds.
        for_others: The event for callers other than the one who ordered the run or takes it over: without requests for
            what only he has.
        replaceable: The types of events of which a slow reader gets only the newest.
        opening: The types of events that a late reader gets first: the latest of each.
    """

    kind: RunKind
    result: type[Event]
    queued: Callable[[str, int], Event]
    progress: Callable[[Event, Progress], Progress]
    remote: Callable[[RunInfo], Event]
    finished: Callable[[Store, str], Iterator[Event]]
    reported: Callable[[Run], Iterator[Event]] = lambda _: iter(())
    outcome: Callable[[Event], str] = lambda _: ""
    for_others: Callable[[Event], Event] = lambda event: event
    replaceable: tuple[type, ...] = ()
    opening: tuple[type, ...] = ()

    @property
    def name(self) -> str:
        """Its folder in the store."""
        return self.kind.value


def picture_of(result: bytes) -> bytes:
    """The PNG file in the result of a run."""
    return result.partition(b"\n")[2]

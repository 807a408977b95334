"""The result of a stylization, or of a cell of a sweep, in the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import Iteration, Result, StylizeEvent

from gramlet_server.stylize.plan import REPORTED


@dataclass(frozen=True)
class Finished:
    """A result with the last iterations before it.

    Attributes:
        result: The result.
        reported: The iterations, which are reported again to callers who resume the run, since nobody knows which of
            them reached a reader before the process was lost. Readers skip those that they have seen.
    """

    result: Result
    reported: tuple[Iteration, ...] = ()

    @property
    def events(self) -> Sequence[StylizeEvent]:
        """All of it as events."""
        return (*self.reported, self.result)

    def to_bytes(self) -> bytes:
        """For the store: a line of JSON, then the PNG file."""
        result = self.result
        values = _Values(
            result.iteration,
            result.loss,
            result.style_loss,
            result.content_loss,
            result.weights_digest,
            self.reported,
        )
        return to_json(values) + b"\n" + result.png

    @classmethod
    def from_bytes(cls, data: bytes) -> Finished:
        """What `to_bytes` wrote."""
        line, _, png = data.partition(b"\n")
        values = dict(vars(from_json(_Values, line)))
        reported = values.pop("reported")
        return cls(Result(png=png, **values), reported)


def saving(events: Iterable[StylizeEvent], save: Callable[[Finished], None]) -> Iterator[StylizeEvent]:
    """The events of a stylization, whose result is saved before it is reported."""
    reported: deque[Iteration] = deque(maxlen=REPORTED)
    for event in events:
        if isinstance(event, Iteration):
            reported.append(event)
        if isinstance(event, Result):
            save(Finished(event, tuple(reported)))
        yield event


@dataclass(frozen=True)
class _Values:
    iteration: int
    loss: float
    style_loss: float
    content_loss: float
    weights_digest: str = ""
    reported: tuple[Iteration, ...] = ()

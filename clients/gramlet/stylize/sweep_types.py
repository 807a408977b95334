"""What StylizeService's sweeps talk about: the order, and the events."""

from __future__ import annotations

from dataclasses import dataclass, field

from gramlet.images import PngFile
from gramlet.run.types import Progress
from gramlet.stylize.types import Stylization, StylizeEvent, StylizeSettings


@dataclass(frozen=True)
class SweepOrder:
    """What is asked of StylizeService: a new sweep, or the one to resume.

    Attributes:
        stylization: What every cell stylizes; None to resume.
        ratios: Content weight / style weight of each column; empty for the settings' own times 0.1, 1 and 10.
        deepest_stages: The deepest style stage of each row; empty for every style stage.
        resume_run_id: The sweep to resume; empty for a new one.
        run_id: The name of a new sweep; empty lets the server choose.
        watch_run_id, detached, keep_inputs, take_over, weights_digest: As of `StylizeOrder`.
    """

    stylization: Stylization | None = None
    ratios: tuple[float, ...] = ()
    deepest_stages: tuple[str, ...] = ()
    resume_run_id: str = ""
    run_id: str = ""
    watch_run_id: str = ""
    detached: bool = False
    keep_inputs: bool = False
    take_over: bool = False
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepEvent:
    """What every event of a sweep reports: the sweep's name, with which it can be resumed."""

    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepQueued(SweepEvent):
    """The sweep waits for its turn, with `position` runs before it."""

    position: int


@dataclass(frozen=True, kw_only=True)
class SweepStarted(SweepEvent):
    """The sweep begins, or goes on. `settings` are complete, before any cell's own."""

    ratios: tuple[float, ...]
    deepest_stages: tuple[str, ...]
    settings: StylizeSettings
    weights_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepCell(SweepEvent):
    """Something happened in a cell: Started, Iteration, Recovered, or the cell's Result.

    Attributes:
        row, column: Counted from 0.
        deepest_stage: The row's.
        ratio: The column's content weight / style weight.
        event: What happened.
    """

    row: int
    column: int
    deepest_stage: str
    ratio: float
    event: StylizeEvent


@dataclass(frozen=True, kw_only=True)
class SweepRemoteProgress(SweepEvent):
    """The progress of a sweep that another replica executes, in cells."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class SweepReconnecting(SweepEvent):
    """The server was lost: the client looks for it, or for another one, which goes on."""

    message: str


@dataclass(frozen=True, kw_only=True)
class SweepResult(PngFile, SweepEvent):
    """The sweep is done: `png` is the file of the labeled grid, `image` the picture."""

    png: bytes = field(repr=False)
    weights_digest: str = ""

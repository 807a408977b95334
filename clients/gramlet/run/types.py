"""What RunService reports about the runs of a store. Plain frozen dataclasses, shared by the SDK and the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class RunKind(Enum):
    """What a run does. The value is also the name of its folder in the store."""

    STYLIZE = "stylize"
    SWEEP = "sweep"
    TRAIN = "train"
    EMBED = "embed"


class RunState(Enum):
    """How far a run has come."""

    QUEUED = "queued"  # waits for its turn, or, if it is detached, for a replica
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"  # on request, because its caller left, or because its replica was lost; it can be resumed

    @property
    def has_ended(self) -> bool:
        """Whether nobody works on the run, or is about to."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True)
class Progress:
    """How much of a run is done.

    Attributes:
        done: Steps that are done: iterations, cells of a sweep, pictures or epochs of a training, items of a map.
        total: Steps in all; 0 if that is not known yet.
        loss: The newest loss, if the phase has one.
        phase: What these steps are, for example `iterations`.
    """

    done: int = 0
    total: int = 0
    loss: float | None = None
    phase: str = ""


@dataclass(frozen=True)
class RunError:
    """Why a run failed: the number of gRPC's status code, the message, and the field of the request at fault or ""."""

    code: int
    message: str
    field: str = ""


@dataclass(frozen=True)
class RunInfo:
    """A run as the store knows it. All times are in seconds since 1970-01-01T00:00:00Z.

    Attributes:
        run_id: Its id, unique among the runs of its kind.
        kind: What it does.
        created: When it was ordered.
        updated: When its state or its progress changed last.
        ended: When it ended; None before that.
        state: How far it has come.
        owner: The name of the token that ordered it; empty without tokens.
        detached: Whether it goes on when its caller leaves.
        progress: How much of it is done.
        error: Why it failed, if it has.
        settings: Its settings in short, for people.
        bytes: Its size in the store.
    """

    run_id: str
    kind: RunKind
    created: float
    updated: float = 0.0
    ended: float | None = None
    state: RunState = RunState.QUEUED
    owner: str = ""
    detached: bool = False
    progress: Progress = Progress()
    error: RunError | None = None
    settings: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class RunResult:
    """The result of a run that has succeeded; of these, what its kind has.

    Attributes:
        png: Of a stylization or a sweep: the picture as a PNG file.
        head: Of a training: the head, `name/version`.
        map_id: Of a map: its id.
    """

    png: bytes | None = field(default=None, repr=False)
    head: str | None = None
    map_id: str | None = None


@dataclass(frozen=True)
class RunDetails:
    """A run, and its result if that was asked for and the run has succeeded."""

    run: RunInfo
    result: RunResult | None = None


@dataclass(frozen=True)
class RunRef:
    """A run by its id, and its kind if several kinds may have runs of that id."""

    run_id: str
    kind: RunKind | None = None


@dataclass(frozen=True)
class RunFilter:
    """Which runs to list, and how many.

    Attributes:
        kind, state, owner: Only runs of these; None or empty: of any.
        page_size: The most runs in one page; 0: the server's choice.
        page_token: Of the page before; empty: the first page.
    """

    kind: RunKind | None = None
    state: RunState | None = None
    owner: str = ""
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True)
class RunPage:
    """A page of runs, the newest first. With an empty token it is the last one."""

    runs: tuple[RunInfo, ...]
    next_page_token: str = ""

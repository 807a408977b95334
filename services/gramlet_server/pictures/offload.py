"""Sends files that may take long to decode to worker processes, if this process has some.

Every service reads pictures that its callers have sent, and any of them may be made to keep a decoder busy for minutes.
`pictures.workers` bounds the processor time of a file, but only in a process of its own. A process of gramlet-server
calls `set_pool` at its start; in every other process, files are decoded where they are needed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Protocol

from gramlet.errors import GramletError
from gramlet.types import Limits, Resize, ResizeMode


class Kind(Enum):
    """What is wanted of a file: its picture as it travels to the network, or at its own size, or its opacity."""

    RESIZED = "resized"
    WHOLE = "whole"
    OPACITY = "opacity"


@dataclass(frozen=True)
class Task:
    """What is to be done with files, in a form that other processes understand.

    Attributes:
        kind: What is wanted of them.
        limits: `picture_bytes`, `decoded_pixels` and `network_pixels` are checked.
        resize: Of RESIZED.
        background: Of WHOLE.
    """

    kind: Kind
    limits: Limits
    resize: Resize = Resize()
    background: str = "white"

    def as_json(self) -> dict[str, Any]:
        """The task as JSON has it."""
        resize = self.resize.mode.value, self.resize.size
        return {
            "kind": self.kind.value,
            "limits": asdict(self.limits),
            "resize": resize,
            "background": self.background,
        }

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Task:
        """The task that `as_json` has written."""
        mode, size = found["resize"]
        resize = Resize(ResizeMode(mode), size)
        return cls(Kind(found["kind"]), Limits(**found["limits"]), resize, found["background"])


class Pool(Protocol):
    """Worker processes."""

    def needed_for(self, file: bytes, limits: Limits) -> int | None:
        """The memory for a file that may be costly to decode; None if it is not, or is refused for its header."""

    def carry_out(self, file: bytes, needed: int, task: Task) -> Any:
        """The outcome of a file: `Decoded` for RESIZED, for other kinds pixels or None; or the error."""


class _Here:
    pass


HERE = _Here()
"""Returned for a file that this process has to decode itself."""

_pool: Pool | None = None


def set_pool(pool: Pool | None) -> None:
    """Has costly files decoded by these processes from now on; None: in this process."""
    global _pool
    _pool = pool


def offloaded(data: object, task: Task, field: str) -> Any:
    """The outcome of a file, from a worker process; HERE if it is to be decoded in this process.

    Raises:
        InvalidInput: The file is broken or refused, or takes too long.
    """
    pool = _pool
    if pool is None or not isinstance(data, bytes) or (needed := pool.needed_for(data, task.limits)) is None:
        return HERE
    outcome = pool.carry_out(data, needed, task)
    if isinstance(outcome, GramletError):
        outcome.field = field if outcome.field == "picture" else outcome.field
        raise outcome
    return outcome

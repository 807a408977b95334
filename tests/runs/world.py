"""A store in memory under a scheduler, in which requests are lost, late or repeated; see simulation.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from gramlet_server.runs.store import Store
from greenlet import getcurrent
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import ObjectStore

from tests.runs.judge import Judge

REQUESTS = 110
"""Of all processes of a schedule."""
OLD = 20
"""Requests after which a run that nobody writes to is swept."""
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """Ends a process at its next request."""


@dataclass(frozen=True)
class Odds:
    """How likely things are at a request. Drawn for each schedule."""

    crash: float
    timeout: float
    twice: float
    wait: int  # the most requests for which a process waits, or a late write
    switch: float  # another process goes on
    stall: float  # and this one waits for long
    owners: tuple[str, ...]  # what an owner does
    others: tuple[str, ...]  # what a process does that owns no run

    @classmethod
    def drawn(cls, draw: random.Random) -> Odds:
        return cls(
            crash=draw.choice((0.0, 0.03, 0.08)),
            timeout=draw.choice((0.0, 0.0, 0.03)),
            twice=draw.choice((0.0, 0.05)),
            wait=draw.choice((10, 40)),
            switch=draw.choice((0.1, 0.3, 0.6)),
            stall=draw.choice((0.0, 0.03, 0.1)),
            # A schedule of few kinds of actions goes deeper into how they meet.
            owners=_some(draw, ("write", "write", "write", "append", "finish", "sweep", "delete")),
            others=_some(draw, ("create", "take_over", "take_over", "read", "read", "adjust", "sweep", "delete")),
        )


@dataclass(frozen=True)
class Value:
    """What the store returns for a key."""

    data: bytes

    @property
    def meta(self) -> Mapping[str, int]:
        """Its size."""
        return {"size": len(self.data)}

    def bytes(self) -> bytes:
        """The value."""
        return self.data


class World:
    """The store in memory, with the methods of an obstore store that `Store` calls.

    At each request it decides what becomes of it, and may hand over to the schedule, which is the main greenlet.
    """

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.draw = random.Random(seed)
        self.odds = Odds.drawn(self.draw)
        self.is_directory = self.draw.random() < 0.5
        self.trace = trace
        self.now = 0
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.late: list[tuple[int, str, Callable[[], None]]] = []
        self.judge = Judge(lambda: self.now, OLD)
        self.store = Store(cast(ObjectStore, self), "memory")
        self._main = getcurrent()
        self.is_stalled = False
        self.actions: dict[Any, str] = {}  # what each process does

    # --- the store ---

    def put(self, key: str, data: bytes, *, mode: str = "overwrite") -> None:
        action = self.actions.get(getcurrent(), "")

        def write() -> None:
            if mode == "create" and key in self.keys:
                raise AlreadyExistsError(key)
            self.keys[key] = (bytes(data), self.now)
            self.judge.arrived(key, bytes(data), action)

        verb = "create" if mode == "create" else "put"
        self._write(write, f"{verb} {key} {bytes(data[:60])!r}", repeated=not key.endswith("/current"))

    def delete(self, key: str) -> None:
        self._write(lambda: self.keys.pop(key, None), f"delete {key}", repeated=False)

    def get(self, key: str) -> Value:
        self._pause()
        found = self.keys.get(key)
        self.log("get {}: {}", key, found and found[0])
        if found is None:
            raise FileNotFoundError(key)
        return Value(found[0])

    def list(self, prefix: str) -> Iterator[list[dict[str, Any]]]:
        self._pause()
        begin = {key: value for key, value in self.keys.items() if key.startswith(f"{prefix}/")}
        self._pause(is_long=True)
        end = {key: value for key, value in self.keys.items() if key.startswith(f"{prefix}/")}
        found = (
            end if begin == end else self._by_folder(begin, end) if self.is_directory else self._in_order(begin, end)
        )
        self.log("list {}: {}", prefix, " ".join(sorted(key.removeprefix(prefix) for key in found)))
        yield [
            {"path": key, "size": len(data), "last_modified": EPOCH + timedelta(seconds=time)}
            for key, (data, time) in found.items()
        ]

    def _in_order(self, begin: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
        split = self.draw.choice(sorted(begin | end))
        return {key: value for key, value in (begin | end).items() if key in (begin if key <= split else end)}

    def _by_folder(self, begin: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
        folders = sorted({key.rpartition("/")[0] for key in begin | end})
        early = {folder for folder in folders if self.draw.random() < 0.5}
        return {key: value for key, value in end.items() if key in begin or key.rpartition("/")[0] not in early}

    def _write(self, write: Callable[[], Any], what: str, *, repeated: bool) -> None:
        self._pause()
        fate, odds = self.draw.random(), self.odds
        if fate < odds.crash + odds.timeout and getcurrent() is not self._main:
            arrival = self.draw.choice(("never", "now", "late", "late"))
            self.log("{}: {}, arrives {}", what, "crash" if fate < odds.crash else "no answer", arrival)
            if arrival == "now":
                _quietly(write)
            if arrival == "late":
                self._later(write, what)
            raise Crash if fate < odds.crash else GenericError("no answer")
        self.log("{}", what)
        write()
        if repeated and not self.is_directory and getcurrent() is not self._main and self.draw.random() < odds.twice:
            self._later(write, what)

    def _later(self, write: Callable[[], Any], what: str) -> None:
        self.late.append((self.now + self.draw.randrange(1, self.odds.wait), what, lambda: _quietly(write)))

    def arrive(self) -> None:
        """Lets the writes arrive whose time has come."""
        for late in [late for late in self.late if late[0] <= self.now]:
            self.late.remove(late)
            self.log("late: {}", late[1])
            late[2]()

    # --- time ---

    def _pause(self, is_long: bool = False) -> None:
        self.now += 1
        if self.late:
            self.arrive()
        if getcurrent() is self._main:
            return
        if self.draw.random() < self.odds.crash / 4:
            self.log("crash")
            raise Crash
        self.is_stalled = self.draw.random() < (3 * self.odds.stall if is_long else self.odds.stall)
        if self.is_stalled or self.draw.random() < self.odds.switch or self.now >= REQUESTS:
            self._main.switch()

    def log(self, text: str, *values: object) -> None:
        """Adds a line to the schedule that is printed."""
        if self.trace:
            self.trace(f"{self.now:4} {self.actions.get(getcurrent(), ''):12}  {text.format(*values)}")


def _some(draw: random.Random, actions: tuple[str, ...]) -> tuple[str, ...]:
    if draw.random() < 0.3:
        return actions
    return tuple(action for action in actions if draw.random() < 0.6) or actions


def _quietly(write: Callable[[], Any]) -> None:
    with suppress(AlreadyExistsError):
        write()

"""Runs the code of `Run`, `Store` and the sweep through seeded schedules of crashes and late writes.

    python -m tests.runs.simulation SEED          prints the schedule of a seed, and what it violates
    python -m tests.runs.simulation FIRST COUNT   looks for seeds that violate something

Three processes create a run, take it over, write progress, finish it, read, delete and sweep. Below the product's code
is a store in memory. At every request the scheduler decides which process goes on, and what becomes of the request:

- Its process may crash. A write that it had begun then arrives later, or at once, or never; so does one that times out.
- A write may arrive twice, because the client of the store repeats a request that gets no answer.
- A list takes time. As on S3, it shows the keys in order, those up to some key as they were at its begin and the others
  as they were at its end. Or, as on a directory, it reads each folder at its begin or at its end, and leaves out the
  files that are gone at its end.

Two things are taken for granted: an interrupted deletion is finished only after a time in which its process would have
gone on and its requests would have arrived; and the create or delete of `current` is not repeated.
What must hold is in judge.py.
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest import mock

from gramlet.errors import Aborted, AlreadyExists, NotFound, Unavailable
from gramlet_server.runs import layout
from gramlet_server.runs.retention import sweep_runs
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from greenlet import getcurrent, greenlet
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import ObjectStore

from tests.runs.judge import Judge, Life, Violation

PROCESSES = 3
REQUESTS = 110
"""Of all processes of a schedule."""
OLD = 20
"""Requests after which a run that nobody writes to is swept."""
KIND, RUN_ID = "stylize", "r"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


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
    """The store in memory, with the methods of an obstore store that `Store` calls, and the scheduler."""

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
        self._is_stalled = False
        self._slept, self._asleep = [0] * PROCESSES, [0] * PROCESSES  # since when each waits, and until when
        self.actions: dict[Any, str] = {}  # what each process does

    def run(self) -> None:
        """Runs the schedule.

        Raises:
            Violation: Something that must hold does not.
        """
        first = Process(self, 0)
        first.act(first.create)
        first.act(first.write)
        processes = [greenlet(first.live), *(self._process(number) for number in range(1, PROCESSES))]
        while self.now < REQUESTS:
            number = self._chosen()
            processes[number].switch()
            self._slept[number] = self.now
            self._asleep[number] = self.now + (self.draw.randrange(self.odds.wait) if self._is_stalled else 0)
            if processes[number].dead:
                processes[number] = self._process(number)
        for due, _, _ in list(self.late):
            self.now = max(self.now, due)
        self._arrive()
        self._check_the_end()

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
            {"path": key, "size": len(data), "last_modified": _EPOCH + timedelta(seconds=time)}
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

    def _arrive(self) -> None:
        for late in [late for late in self.late if late[0] <= self.now]:
            self.late.remove(late)
            self.log("late: {}", late[1])
            late[2]()

    # --- the scheduler ---

    def _chosen(self) -> int:
        """The process that goes on."""
        longest = min(range(PROCESSES), key=self._slept.__getitem__)
        if self.now - self._slept[longest] >= self.odds.wait:
            return longest
        awake = [number for number in range(PROCESSES) if self._asleep[number] <= self.now]
        return self.draw.choice(awake or range(PROCESSES))

    def _process(self, number: int) -> Any:
        return greenlet(Process(self, number).live)

    def _pause(self, is_long: bool = False) -> None:
        self.now += 1
        if self.late:
            self._arrive()
        if getcurrent() is self._main:
            return
        if self.draw.random() < self.odds.crash / 4:
            self.log("crash")
            raise Crash
        self._is_stalled = self.draw.random() < (3 * self.odds.stall if is_long else self.odds.stall)
        if self._is_stalled or self.draw.random() < self.odds.switch or self.now >= REQUESTS:
            self._main.switch()

    def log(self, text: str, *values: object) -> None:
        """Adds a line to the schedule that is printed."""
        if self.trace:
            self.trace(f"{self.now:4} {self.actions.get(getcurrent(), ''):12}  {text.format(*values)}")

    def _check_the_end(self) -> None:
        if self.judge.before().life:
            last = Process(self, PROCESSES)
            last.act(last.take_over)
        sweep_runs(self.store, KIND, timedelta(0), settled=timedelta(0), now=_EPOCH + timedelta(days=1))
        if self.keys:
            raise Violation(f"all runs were deleted, but {sorted(self.keys)} are left")


class Process:
    """Acts at random, until it crashes."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._judge, self._store = world, world.judge, world.store
        self._number = number
        self._run: Run | None = None
        self._life = Life(-1, "")
        self._progress = 0
        self._is_finished = False

    def live(self) -> None:
        """Acts until it crashes."""
        draw, odds = self._world.draw, self._world.odds
        try:
            while True:
                is_owner = self._run is not None and not self._is_finished
                self.act(getattr(self, draw.choice(odds.owners if is_owner else odds.others)))
        except Crash:
            pass

    def act(self, action: Callable[[], None]) -> None:
        """Does one thing. When it fails, the process no longer owns a run."""
        self._world.actions[getcurrent()] = f"{self._number} {action.__name__}"
        self._world.log("begins")
        try:
            action()
        except (Aborted, AlreadyExists, NotFound) as error:
            self._world.log("failed: {}", error)
            self._run = None
        except Unavailable as error:
            if "too fast" in str(error):
                raise Violation(str(error)) from None
            self._run = None

    def create(self) -> None:
        before = self._judge.before()
        self._run = run = Run.create(self._store, KIND, RUN_ID)
        self._life = self._judge.created(before, _folder(run))
        self._progress, self._is_finished = 0, False
        self._put("order", 1)

    def take_over(self) -> None:
        before = self._judge.before()
        try:
            self._run = run = Run.take_over(self._store, KIND, RUN_ID)
        except NotFound:
            self._judge.not_found(before)
            raise
        self._life = self._judge.life_in(_folder(run))
        self._judge.taken_over(self._life, run.epoch)
        if not self._read(run, "order"):
            raise NotFound("it ended before its order was stored")
        self._is_finished = bool(self._read(run, "result"))
        self._progress = self._read(run, "state")

    def write(self) -> None:
        self._progress += 1
        self._put("state", self._progress)

    def append(self) -> None:
        assert self._run
        before = self._judge.before()
        number = 1 + self._judge.read_log(before, self._life, self._run.log("log"))
        self._run.append("log", number, self._judge.value(self._life, number))
        self._judge.durable(self._life, "log", number)

    def adjust(self) -> None:
        self._run = Run.find(self._store, KIND, RUN_ID)
        self._life = self._judge.life_in(_folder(self._run))
        self.append()
        self._run = None  # it belongs to another process

    def finish(self) -> None:
        assert self._run
        self._put("result", 1)
        self._run.drop("state")
        self._is_finished = True

    def read(self) -> None:
        before = self._judge.before()
        try:
            run = Run.find(self._store, KIND, RUN_ID)
        except NotFound:
            self._judge.not_found(before)
            raise
        self._life = self._judge.life_in(_folder(run))
        for name in ("order", "state", "result", "state"):
            self._read(run, name)
        before = self._judge.before()
        self._judge.read_log(before, self._life, run.log("log"))

    def delete(self) -> None:
        Run(self._store, KIND, RUN_ID).delete()

    def sweep(self) -> None:
        now = _EPOCH + timedelta(seconds=self._world.now)
        sweep_runs(
            self._store, KIND, timedelta(seconds=OLD), settled=timedelta(seconds=4 * self._world.odds.wait), now=now
        )

    def _put(self, name: str, progress: int) -> None:
        assert self._run
        self._run.put(name, self._judge.value(self._life, progress))
        self._judge.durable(self._life, name, progress)

    def _read(self, run: Run, name: str) -> int:
        before = self._judge.before()
        return self._judge.read(before, self._life, name, run.value(name))


def simulate(seed: int, trace: Callable[[str], None] | None = None) -> Violation | None:
    """Runs the schedule of a seed; returns what it violates."""
    names = (f"name{number}" for number in itertools.count())
    logging.disable()  # the store logs every request that gets no answer
    try:
        with mock.patch.object(layout, "new_name", side_effect=names):
            World(seed, trace).run()
    except Violation as violation:
        return violation
    except Exception as error:
        return Violation(f"a process failed with {error!r}")
    finally:
        logging.disable(logging.NOTSET)
    return None


def search(first: int, count: int) -> tuple[int, Violation] | None:
    """The first of `count` seeds that violates something."""
    return next(((seed, found) for seed in range(first, first + count) if (found := simulate(seed))), None)


def _some(draw: random.Random, actions: tuple[str, ...]) -> tuple[str, ...]:
    if draw.random() < 0.3:
        return actions
    return tuple(action for action in actions if draw.random() < 0.6) or actions


def _folder(run: Run) -> str:
    assert run._folder
    return run._folder.name


def _quietly(write: Callable[[], Any]) -> None:
    with suppress(AlreadyExistsError):
        write()


def main(arguments: list[str]) -> int:
    """The command line."""
    first = int(arguments[0])
    if len(arguments) > 1:
        found = search(first, int(arguments[1]))
        print("no violation" if found is None else f"seed {found[0]}: {found[1]}")
        return int(found is not None)
    violation = simulate(first, print)
    print(violation or "no violation")
    return int(violation is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

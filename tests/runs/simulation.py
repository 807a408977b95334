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
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

from gramlet.errors import Aborted, AlreadyExists, NotFound, Unavailable
from gramlet_server.runs import layout
from gramlet_server.runs.retention import sweep_runs
from gramlet_server.runs.run import Run
from greenlet import getcurrent, greenlet

from tests.runs.judge import Life, Violation
from tests.runs.world import EPOCH, OLD, REQUESTS, Crash, World

PROCESSES = 3
KIND, RUN_ID = "stylize", "r"


class Schedule:
    """Lets the processes of a world act by turns, each until a request of its own hands over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slept, self._asleep = [0] * PROCESSES, [0] * PROCESSES  # since when each waits, and until when

    def run(self) -> None:
        """Runs it.

        Raises:
            Violation: Something that must hold does not.
        """
        world = self._world
        first = Process(world, 0)
        first.act(first.create)
        first.act(first.write)
        processes = [greenlet(first.live), *(self._process(number) for number in range(1, PROCESSES))]
        while world.now < REQUESTS:
            number = self._chosen()
            processes[number].switch()
            self._slept[number] = world.now
            self._asleep[number] = world.now + (world.draw.randrange(world.odds.wait) if world.is_stalled else 0)
            if processes[number].dead:
                processes[number] = self._process(number)
        for due, _, _ in list(world.late):
            world.now = max(world.now, due)
        world.arrive()
        self._check_the_end()

    def _chosen(self) -> int:
        """The process that goes on."""
        now, draw = self._world.now, self._world.draw
        longest = min(range(PROCESSES), key=self._slept.__getitem__)
        if now - self._slept[longest] >= self._world.odds.wait:
            return longest
        awake = [number for number in range(PROCESSES) if self._asleep[number] <= now]
        return draw.choice(awake or range(PROCESSES))

    def _process(self, number: int) -> Any:
        return greenlet(Process(self._world, number).live)

    def _check_the_end(self) -> None:
        world = self._world
        if world.judge.before().life:
            last = Process(world, PROCESSES)
            last.act(last.take_over)
        sweep_runs(world.store, KIND, timedelta(0), settled=timedelta(0), now=EPOCH + timedelta(days=1))
        if world.keys:
            raise Violation(f"all runs were deleted, but {sorted(world.keys)} are left")


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
        now = EPOCH + timedelta(seconds=self._world.now)
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
            Schedule(World(seed, trace)).run()
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


def _folder(run: Run) -> str:
    assert run._folder
    return run._folder.name


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

"""What a name has made, another name cannot see: it is NotFound, as if it did not exist."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gramlet.errors import NotFound, Overloaded
from gramlet.run.types import RunFilter, RunKind, RunRef
from gramlet_server.identity import Caller, caller
from gramlet_server.runs.control import RunControl
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.queue import RunQueue
from gramlet_server.runs.records import Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

from tests.runs.kinds import NUMBERS


@contextmanager
def calling(who: Caller) -> Iterator[None]:
    token = caller.set(who)
    try:
        yield
    finally:
        caller.reset(token)


ALICE, BOB = Caller("alice", sees_all=False), Caller("bob", sees_all=False)
OPERATOR = Caller("operator", sees_all=True)


@pytest.fixture
def lifecycle(tmp_path: Path) -> Lifecycle:
    return Lifecycle(Records(Store.open(str(tmp_path))), 2, 8)


def make(lifecycle: Lifecycle, run_id: str) -> list[int]:
    def work() -> Generator[int, None, None]:
        yield 1
        yield 2

    store = lifecycle.records.store
    return list(lifecycle.start(lambda: Work(Run.create(store, "train", run_id), NUMBERS, work)))


def test_another_names_run_does_not_exist(lifecycle: Lifecycle) -> None:
    control = RunControl(lifecycle.records, [lifecycle])
    with calling(ALICE):
        make(lifecycle, "mine")
        assert control.get(RunRef("mine"), False).run.owner == "alice"
    with calling(BOB):
        for use in (
            lambda: control.get(RunRef("mine"), False),
            lambda: control.stop(RunRef("mine")),
            lambda: control.delete(RunRef("mine")),
            lambda: lifecycle.watch(NUMBERS, "mine"),
            lambda: lifecycle.resume(NUMBERS, "mine", pytest.fail, detached=False, take_over=True),
        ):
            with pytest.raises(NotFound) as caught:
                use()
            assert str(caught.value).endswith("the store has no run mine")
        assert control.page(RunFilter()).runs == ()
    for who in (ALICE, OPERATOR):
        with calling(who):
            assert [info.run_id for info in control.page(RunFilter()).runs] == ["mine"]


def test_a_run_that_another_process_goes_on_with_stays_its_owners(lifecycle: Lifecycle) -> None:
    store = lifecycle.records.store
    owners = []

    def work() -> Generator[int, None, None]:
        owners.append(caller.get().name)
        yield 1

    with calling(ALICE):
        list(lifecycle.start(lambda: Work(Run.create(store, "train", "mine"), NUMBERS, work)))
    list(lifecycle.start(lambda: Work(Run.take_over(store, "train", "mine"), NUMBERS, work)))
    record = lifecycle.records.read(RunKind.TRAIN, "mine")
    assert record is not None
    assert (record.info.owner, owners) == ("alice", ["alice", "alice"])


def test_a_name_with_all_of_its_runs_leaves_room_for_others() -> None:
    queue = RunQueue(1, 8)
    with calling(Caller("alice", most_runs=2)):
        tickets = [queue.take(), queue.take()]
        with pytest.raises(Overloaded, match="2 runs of alice"):
            queue.take()
    with calling(BOB):
        queue.take()
    queue.leave(tickets[0])
    with calling(Caller("alice", most_runs=2)):
        queue.take()


def test_a_name_whose_runs_fill_its_share_of_the_store_starts_no_more(lifecycle: Lifecycle) -> None:
    with calling(Caller("alice", most_bytes=1)):
        make(lifecycle, "first")
        with pytest.raises(Overloaded, match="delete some"):
            make(lifecycle, "second")
    with calling(Caller("bob", most_bytes=1)):
        make(lifecycle, "third")

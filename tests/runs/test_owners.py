"""What a name has made, another name cannot see: it is NotFound, as if it did not exist."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from gramlet.embed.settings import MapSettings
from gramlet.errors import NotFound, Overloaded
from gramlet.run.types import RunFilter, RunInfo, RunKind, RunRef
from gramlet.train.types import HeadRef
from gramlet_server.embed.stored import Plan, list_maps, put_plan
from gramlet_server.process.identity import Caller, caller
from gramlet_server.runs.control import RunControl
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.queue import RunQueue
from gramlet_server.runs.quota import StoreQuota
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.train.classifier import HeadWeights
from gramlet_server.train.descriptions import HeadSizes
from gramlet_server.train.registry import Registry

from tests.runs.kinds import NUMBERS
from tests.train.test_registry import HEAD, STATE


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


def test_lists_read_only_once_what_others_have(lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    records, registry = lifecycle.records, Registry(lifecycle.records.store)
    with calling(ALICE):
        for number in range(3):
            make(lifecycle, f"r{number}")
        registry.add(HEAD, HeadWeights(STATE, {}))
    with calling(BOB):
        assert (records.page(RunFilter()).runs, registry.heads()) == ((), [])
        with monkeypatch.context() as patched:
            patched.setattr(records.store, "get", pytest.fail)
            assert (records.page(RunFilter()).runs, registry.heads()) == ((), [])
        make(lifecycle, "mine")
        assert [info.run_id for info in records.page(RunFilter()).runs] == ["mine"]
    with calling(ALICE):
        RunControl(records, [lifecycle]).delete(RunRef("r0"))
    with calling(BOB):
        make(lifecycle, "r0")
        assert [info.run_id for info in records.page(RunFilter()).runs] == ["r0", "mine"]
    with calling(ALICE):
        assert [info.run_id for info in records.page(RunFilter()).runs] == ["r2", "r1"]
        assert len(registry.heads()) == 1


def test_maps_of_others_are_not_listed(lifecycle: Lifecycle) -> None:
    store = lifecycle.records.store
    for owner, map_id in (("alice", "hers"), ("bob", "his")):
        run = Run.create(store, "embed", map_id)
        lifecycle.records.begin(run, Record(RunInfo(map_id, RunKind.EMBED, created=1.0, owner=owner)))
        put_plan(run, Plan(MapSettings(), 1.0))
    for who, seen in ((ALICE, {"hers"}), (BOB, {"his"}), (OPERATOR, {"hers", "his"})):
        with calling(who):
            assert {summary.map_id for summary in list_maps(store)} == seen


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


def test_a_name_that_fills_its_share_of_the_store_starts_no_more(lifecycle: Lifecycle) -> None:
    lifecycle.check_quota = quota(lifecycle)
    with calling(Caller("alice", most_bytes=1)):
        make(lifecycle, "first")
        with pytest.raises(Overloaded, match="delete runs, maps or heads") as caught:
            make(lifecycle, "second")
        assert caught.value.retry_after
    with calling(Caller("bob", most_bytes=1)):
        make(lifecycle, "third")


def test_heads_count_and_deleted_things_do_not(lifecycle: Lifecycle) -> None:
    store = lifecycle.records.store
    check, registry = quota(lifecycle), Registry(store)
    with calling(Caller("alice", sees_all=False)):
        head = registry.add(HEAD, HeadWeights(STATE, {}))
        make(lifecycle, "first")
    run_bytes = sum(size for owner, size in lifecycle.records.sizes() if owner == "alice")
    assert run_bytes == sum(entry.size for entry in store.list("runs/train/first")) - len("0123456789abcdef")
    with calling(Caller("alice", sees_all=False, most_bytes=run_bytes + head.bytes)):
        with pytest.raises(Overloaded):  # the description of the head counts as well
            check()
        registry.delete(HeadRef(HEAD.name, head.version))
        check()
    with calling(Caller("alice", sees_all=False, most_bytes=run_bytes)):
        with pytest.raises(Overloaded):
            check()
        RunControl(lifecycle.records, [lifecycle]).delete(RunRef("first"))
        check()


def test_a_run_that_exists_goes_on_however_full_the_share_is(lifecycle: Lifecycle) -> None:
    lifecycle.check_quota = quota(lifecycle)
    store = lifecycle.records.store

    def work() -> Generator[int, None, None]:
        yield 1

    with calling(Caller("alice", sees_all=False, most_bytes=1)):
        make(lifecycle, "mine")
        prepare = partial(Work, kind=NUMBERS, events=work)
        watch = lifecycle.resume(
            NUMBERS,
            "mine",
            lambda: prepare(Run.take_over(store, "train", "mine")),
            detached=False,
            take_over=True,
        )
        assert list(watch) == [1]


def quota(lifecycle: Lifecycle) -> Callable[[], None]:
    return StoreQuota([lifecycle.records.sizes, HeadSizes(lifecycle.records.store)]).check

"""Two replicas that share a store: each is a lifecycle of its own here. tests/e2e does the same with processes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest
from gramlet.errors import Cancelled, InvalidInput, NotFound, Unavailable
from gramlet.run.types import RunDetails, RunFilter, RunKind, RunRef, RunResult, RunState
from gramlet_server.runs.control import RunControl
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import Records
from gramlet_server.runs.rescue import rescue_once
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

from tests.runs.kinds import NUMBERS, Event, finite, new_work, taken_over

R = RunRef("r")


class Gate:
    """Work of one step, and then of a result when the test opens the gate."""

    def __init__(self, store: Store) -> None:
        self.open = threading.Event()
        self._store = store

    def __call__(self) -> Generator[Event, None, None]:
        yield 1
        while not self.open.wait(0.01):
            yield 2
        Run(self._store, "train", "r", 1).put("result", b"done")
        yield "done"


def replica(store: Store) -> Iterator[Lifecycle]:
    lifecycle = Lifecycle(Records(store, lease_seconds=0.6), 2, 2)
    yield lifecycle
    for run_id in ("r", "detached"):
        if execution := lifecycle.execution(RunKind.TRAIN, run_id):
            execution.stop()
            execution.join()


@pytest.fixture
def here(store: Store) -> Iterator[Lifecycle]:
    yield from replica(store)


@pytest.fixture
def there(store: Store) -> Iterator[Lifecycle]:
    yield from replica(store)


def test_a_watcher_elsewhere_sees_the_progress_and_the_result(store: Store, here: Lifecycle, there: Lifecycle) -> None:
    gate = Gate(store)
    caller = here.start(new_work(here.records, gate))
    watcher = iter(there.watch(NUMBERS, "r"))
    seen = [next(watcher)]
    while seen[-1] != 2.0:
        seen.append(next(watcher))
    gate.open.set()
    *progress, result = watcher
    assert result == "done"
    assert all(isinstance(event, float) for event in [*seen, *progress])
    assert list(caller)[-1] == "done"


@pytest.mark.parametrize("is_made_again", [False, True])
@pytest.mark.parametrize("writes", [False, True], ids=["found by the keeper", "found by the work"])
def test_a_run_that_another_process_has_deleted_is_not_said_to_go_on(
    store: Store, here: Lifecycle, there: Lifecycle, is_made_again: bool, writes: bool
) -> None:
    deleted = threading.Event()

    def work() -> Work[Event]:
        run = Run.create(store, "train", "r")

        def steps() -> Generator[Event, None, None]:
            yield 1
            while not (deleted.wait(0.01) and writes):
                yield 2
            run.put("result", b"done")

        return Work(run, NUMBERS, steps)

    caller = here.start(work)
    events = iter(caller)
    while next(events) != 2:  # it has begun
        pass
    Run(store, "train", "r").delete()  # as a process whose request to stop it came too late
    if is_made_again:
        assert list(there.start(finite(there.records, "r", 7, "other"))) == [7, "other"]
    deleted.set()
    with pytest.raises(Cancelled, match=r"^run r was deleted$"):
        list(events)
    caller.join()
    if is_made_again:
        assert Run.find(store, "train", "r").get("result") == b"other"


def test_who_resumes_elsewhere_watches_and_takes_over_when_the_caller_has_left(
    store: Store, here: Lifecycle, there: Lifecycle
) -> None:
    caller = here.start(new_work(here.records, Gate(store)))
    on_there = finite_takeover(there.records)
    joined = iter(there.resume(NUMBERS, "r", on_there, detached=False, take_over=False))
    assert isinstance(next(joined), float)
    caller.cancel()
    assert list(joined)[-2:] == [3, "mine"]


def finite_takeover(records: Records, run_id: str = "r"):  # type: ignore[no-untyped-def]
    """Takes the run over, and finishes it."""

    def steps() -> Generator[Event, None, None]:
        yield 3
        yield "mine"

    return taken_over(records, steps, run_id)


def test_who_lost_the_stream_takes_an_attached_run_over_at_once_but_not_a_detached_one(
    store: Store, here: Lifecycle, there: Lifecycle
) -> None:
    here.start(new_work(here.records, Gate(store)))
    events = list(there.resume(NUMBERS, "r", finite_takeover(there.records), detached=False, take_over=True))
    assert events[-2:] == [3, "mine"]
    gate = Gate(store)
    here.start(new_work(here.records, gate, "detached", detached=True))
    joined = there.resume(NUMBERS, "detached", finite_takeover(there.records), detached=False, take_over=True)
    assert isinstance(next(iter(joined)), float)


def test_a_detached_run_of_a_server_that_shuts_down_goes_on_elsewhere(
    store: Store, here: Lifecycle, there: Lifecycle
) -> None:
    def steps() -> Generator[Event, None, None]:
        yield 0
        while True:
            here.check_draining("r")
            yield 1

    caller = here.start(new_work(here.records, steps, detached=True))
    next(iter(caller))
    assert not rescue_once(there, RunKind.TRAIN, lambda run_id: finite_takeover(there.records, run_id)())
    here.drain()
    caller.join()
    assert rescue_once(there, RunKind.TRAIN, lambda run_id: finite_takeover(there.records, run_id)())
    execution = there.execution(RunKind.TRAIN, "r")
    assert execution is None or execution.join(10)
    assert RunControl(there.records, []).get(R, False).run.state is RunState.SUCCEEDED
    assert store.list("detached") == []
    with pytest.raises(Unavailable):
        list(caller)


def test_a_detached_run_that_cannot_go_on_fails_with_the_reason(
    store: Store, here: Lifecycle, there: Lifecycle
) -> None:
    here.start(new_work(here.records, lambda: iter_until_drained(here), detached=True))
    here.drain()
    execution = here.execution(RunKind.TRAIN, "r")
    assert execution is None or execution.join(10)

    def prepare(run_id: str):  # type: ignore[no-untyped-def]
        raise NotFound("its items were lost")

    assert not rescue_once(there, RunKind.TRAIN, prepare)
    with pytest.raises(NotFound, match="its items were lost"):
        list(there.watch(NUMBERS, "r"))
    assert store.list("detached") == []


def iter_until_drained(lifecycle: Lifecycle) -> Generator[Event, None, None]:
    while True:
        lifecycle.check_draining("r")
        yield 1


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_run_is_stopped_from_any_replica_and_its_callers_learn_it(
    store: Store, here: Lifecycle, there: Lifecycle, where: str
) -> None:
    caller = here.start(new_work(here.records, Gate(store), detached=True))
    joined = there.resume(NUMBERS, "r", finite_takeover(there.records), detached=False, take_over=False)
    control = RunControl(here.records, [here] if where == "here" else [there])
    assert control.stop(R).state is RunState.STOPPED
    assert control.stop(R).state is RunState.STOPPED
    for watch in (caller, joined):
        with pytest.raises(Cancelled, match="run r was stopped"):
            list(watch)
    assert list(there.resume(NUMBERS, "r", finite_takeover(there.records), detached=False, take_over=False)) == [
        3,
        "mine",
    ]


def test_a_run_that_nobody_executes_is_stopped_and_not_taken_over(store: Store, here: Lifecycle) -> None:
    caller = here.start(new_work(here.records, lambda: iter_until_drained(here), detached=True))
    here.drain()
    caller.join()
    assert RunControl(here.records, []).stop(R).state is RunState.STOPPED
    assert list(here.records.abandoned(RunKind.TRAIN)) == []


@pytest.mark.parametrize("where", ["here", "there"])
def test_deleting_a_run_erases_every_key_even_of_one_that_is_executed(
    store: Store, here: Lifecycle, there: Lifecycle, where: str
) -> None:
    here.start(new_work(here.records, Gate(store), detached=True))
    control = RunControl(here.records, [here] if where == "here" else [there])
    control.delete(R)
    assert [entry.key for prefix in ("runs", "index", "detached") for entry in store.list(prefix)] == []
    with pytest.raises(NotFound):
        control.get(R, False)
    with pytest.raises(NotFound):
        control.delete(R)
    assert control.page(RunFilter()).runs == ()


@pytest.mark.parametrize("resumes", [True, False])
def test_a_run_that_is_deleted_elsewhere_is_not_ordered_again_by_who_resumes_it(
    store: Store, here: Lifecycle, there: Lifecycle, resumes: bool
) -> None:
    here.start(new_work(here.records, Gate(store), detached=True))
    if resumes:
        prepare = taken_over(there.records, Gate(store))
        watch = there.resume(NUMBERS, "r", prepare, detached=False, take_over=True)
    else:
        watch = there.watch(NUMBERS, "r")
    events = iter(watch)
    next(events)
    RunControl(here.records, [here]).delete(R)
    with pytest.raises(Cancelled if resumes else NotFound, match="was deleted"):  # the SDK orders after NotFound
        list(events)


def test_a_run_shows_its_state_and_its_result(here: Lifecycle) -> None:
    list(here.start(finite(here.records, "r", 1, 2, "done")))
    details = RunControl(here.records, [here]).get(R, include_result=True)
    assert (details.run.state, details.run.progress.done) == (RunState.SUCCEEDED, 2)
    assert details.run.ended is not None
    assert details.run.bytes > 0
    assert details == RunDetails(details.run, RunResult(head=""))
    assert RunControl(here.records, []).get(R, include_result=False).result is None


def test_an_id_that_several_kinds_have_needs_the_kind(store: Store, here: Lifecycle) -> None:
    list(here.start(finite(here.records, "r", "done")))
    for kind in ("stylize", "sweep"):
        run = Run.create(store, kind, "r")
        record = here.records.read(RunKind.TRAIN, "r")
        assert record is not None
        here.records.begin(run, record)
    with pytest.raises(InvalidInput) as error:
        RunControl(here.records, []).get(R, False)
    assert error.value.field == "kind"

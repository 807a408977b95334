"""Every run leaves the queue, however and whenever it ends, and its readers learn how it ended."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator

import pytest
from gramlet.errors import Cancelled, GramletError, InvalidInput, NotFound, Overloaded, Unavailable
from gramlet.run.types import RunKind, RunState
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run

from tests.runs.kinds import NUMBERS, Event, finite, new_work, taken_over

CALL = contextvars.ContextVar("CALL", default="none")


class Steps:
    """Work of endless numbered steps, each of which has to be allowed by the test."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self) -> Generator[Event, None, None]:
        try:
            for step in range(1_000_000):
                self.allowed.acquire()
                yield step
        finally:
            self.closed.set()


def is_empty(lifecycle: Lifecycle) -> bool:
    return (lifecycle.queue.running, lifecycle.queue.queued) == (0, 0)


def state(records: Records, run_id: str = "r") -> RunState:
    record = records.read(RunKind.TRAIN, run_id)
    assert record is not None
    return record.info.state


def test_a_run_waits_for_its_turn_reports_its_position_and_leaves(records: Records) -> None:
    lifecycle = Lifecycle(records, 1, 2)
    first = Steps()
    running = lifecycle.start(new_work(records, first))
    waiting = iter(lifecycle.start(finite(records, "second", 1, 2, "done")))
    assert next(waiting) == -1
    assert state(records, "second") is RunState.QUEUED
    running.cancel()
    first.allowed.release()
    assert list(waiting) == [1, 2, "done"]
    running.join()
    assert is_empty(lifecycle)
    assert (state(records), state(records, "second")) == (RunState.STOPPED, RunState.SUCCEEDED)


def test_a_full_queue_refuses_a_run_before_it_is_prepared(records: Records) -> None:
    lifecycle = Lifecycle(records, 1, 0)
    lifecycle.queue.take()
    with pytest.raises(Overloaded) as error:
        lifecycle.start(finite(records, "r"))
    assert error.value.retry_after
    assert records.store.list("runs") == []


def test_a_run_that_cannot_be_prepared_leaves_no_place_taken(records: Records) -> None:
    def prepare() -> Work[Event]:
        raise InvalidInput("no such stage")

    lifecycle = Lifecycle(records, 1, 0)
    with pytest.raises(InvalidInput):
        lifecycle.start(prepare)
    assert is_empty(lifecycle)


@pytest.mark.parametrize("error", [InvalidInput("no such label"), Overloaded("no memory")])
def test_a_run_that_is_refused_before_it_has_done_anything_leaves_nothing(
    records: Records, error: GramletError
) -> None:
    def refused() -> Generator[Event, None, None]:
        yield 1
        raise error

    lifecycle = Lifecycle(records, 1, 0)
    watch = lifecycle.start(new_work(records, refused))
    with pytest.raises(type(error)):
        list(watch)
    watch.join()
    assert records.store.list("") == []
    assert list(lifecycle.start(finite(records, "r", 1, "done"))) == [1, "done"]


def test_a_run_that_fails_after_it_has_stored_something_is_kept(records: Records) -> None:
    run = Run.create(records.store, "train", "r")

    def failing() -> Generator[Event, None, None]:
        run.put("state", b"1")
        yield 1
        raise InvalidInput("a bad picture")

    lifecycle = Lifecycle(records, 1, 0)
    watch = lifecycle.start(lambda: Work(run, NUMBERS, failing))
    with pytest.raises(InvalidInput):
        list(watch)
    watch.join()
    assert state(records) is RunState.FAILED


def test_a_run_whose_order_cannot_be_stored_leaves_nothing(records: Records) -> None:
    def prepare() -> Work[Event]:
        with Run.new(records.store, "train", "r") as run:
            run.put("order", b"1")
            raise Overloaded("the store is full")

    lifecycle = Lifecycle(records, 1, 0)
    with pytest.raises(Overloaded):
        lifecycle.start(prepare)
    assert records.store.list("") == []


def test_a_run_whose_success_cannot_be_stored_does_not_end_as_if_there_were_no_result(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = records.write

    def fails(run: Run, record: Record) -> Record:
        if record.info.state is RunState.SUCCEEDED:
            raise Unavailable("the store fails")
        return write(run, record)

    monkeypatch.setattr(records, "write", fails)
    with pytest.raises(Unavailable, match="the store fails"):
        list(Lifecycle(records, 1, 0).start(finite(records, "r", 1, "done")))


def test_a_run_whose_record_cannot_be_stored_leaves_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Overloaded("the store is full")

    lifecycle = Lifecycle(records, 1, 0)
    monkeypatch.setattr(records, "begin", full)
    with pytest.raises(Overloaded):
        lifecycle.start(finite(records, "r", 1, "done"))
    assert records.store.list("") == []
    assert is_empty(lifecycle)


def test_cancelling_closes_the_work_within_one_step_and_wakes_the_reader(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    watch = lifecycle.start(new_work(records, steps))
    steps.allowed.release()
    assert next(iter(watch)) == 0
    watch.cancel()
    with pytest.raises(Cancelled):
        next(iter(watch))
    steps.allowed.release()
    watch.join()
    assert steps.closed.is_set()
    assert is_empty(lifecycle)


def test_a_run_that_is_cancelled_while_it_waits_leaves_and_never_works(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 1), Steps()
    lifecycle.queue.take()
    watch = lifecycle.start(new_work(records, steps))
    watch.cancel()
    watch.join()
    assert lifecycle.queue.queued == 0
    assert not steps.closed.is_set()


@pytest.mark.parametrize("is_over", [False, True])
def test_a_run_is_cancelled_with_its_call_even_if_that_ended_while_it_was_prepared(
    records: Records, is_over: bool
) -> None:
    callbacks: list[Callable[[], None]] = []

    def add_callback(callback: Callable[[], None]) -> bool:  # as gRPC's
        if not is_over:
            callbacks.append(callback)
        return not is_over

    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    watch = lifecycle.start(new_work(records, steps))
    watch.cancel_with_call(add_callback)
    for callback in callbacks:
        callback()
    steps.allowed.release()
    watch.join()
    with pytest.raises(Cancelled):
        next(iter(watch))
    assert is_empty(lifecycle)


def test_a_hundred_calls_cancelled_while_they_are_prepared_leave_the_service_free(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 2, 8), Steps()
    for number in range(100):
        watch = lifecycle.start(new_work(records, steps, str(number)))
        watch.cancel_with_call(lambda cancel: False)
        steps.allowed.release()
        watch.join()
    assert is_empty(lifecycle)
    assert list(lifecycle.start(finite(records, "last", 1))) == [1]


def test_the_error_of_the_work_reaches_the_readers_after_its_events_and_is_stored(records: Records) -> None:
    def failing() -> Generator[Event, None, None]:
        yield 1
        raise NotFound("gone", field="there")

    lifecycle = Lifecycle(records, 1, 0)
    reader = iter(lifecycle.start(new_work(records, failing)))
    assert next(reader) == 1
    with pytest.raises(NotFound):
        next(reader)
    assert is_empty(lifecycle)
    with pytest.raises(NotFound, match="gone") as error:
        list(lifecycle.watch(NUMBERS, "r"))
    assert error.value.field == "there"


def test_draining_ends_waiting_runs_at_once_running_ones_at_their_next_step_and_refuses_new_ones(
    records: Records,
) -> None:
    lifecycle = Lifecycle(records, 1, 1)
    go_on, saved = threading.Event(), []

    def steps() -> Generator[Event, None, None]:
        yield 0
        go_on.wait()
        saved.append(lifecycle.draining)
        lifecycle.check_draining("r")

    running = lifecycle.start(new_work(records, steps))
    assert next(iter(running)) == 0
    waiting = lifecycle.start(finite(records, "second", 1))
    lifecycle.drain()
    with pytest.raises(Unavailable, match="shutting down") as error:
        list(waiting)
    assert error.value.retry_after == 0.0
    go_on.set()
    with pytest.raises(Unavailable, match="shutting down: resume run r ") as error:
        list(running)
    assert error.value.retry_after == 0.0
    assert saved == [True]
    with pytest.raises(Unavailable, match="shutting down"):
        lifecycle.start(finite(records, "third", 1))


def test_the_work_runs_in_the_context_of_its_call(records: Records) -> None:
    seen: list[str] = []

    def steps() -> Generator[Event, None, None]:
        seen.append(CALL.get())
        yield 0

    CALL.set("mine")
    list(Lifecycle(records, 1, 0).start(new_work(records, steps)))
    assert seen == ["mine"]


# --- watching and joining ---


def test_any_number_of_watchers_see_the_events_and_change_nothing(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    caller = lifecycle.start(new_work(records, steps))
    watchers = [lifecycle.watch(NUMBERS, "r") for _ in range(3)]
    steps.allowed.release()
    assert [next(iter(watch)) for watch in (caller, *watchers)] == [0, 0, 0, 0]
    for watch in watchers[1:]:
        watch.cancel()
    steps.allowed.release()
    assert next(iter(watchers[0])) == 1
    caller.cancel()
    steps.allowed.release()
    with pytest.raises(Cancelled, match="run r was stopped"):
        list(watchers[0])


def test_who_resumes_a_running_run_joins_it_and_keeps_it_going(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    first = lifecycle.start(new_work(records, steps))
    second = lifecycle.resume(NUMBERS, "r", taken_over(records, steps), detached=False, take_over=False)
    first.cancel()
    steps.allowed.release()
    assert next(iter(second)) == 0  # no step is done twice
    second.cancel()
    steps.allowed.release()
    second.join()
    assert state(records) is RunState.STOPPED


def test_a_finished_run_gives_its_result_to_who_watches_or_resumes_it(records: Records) -> None:
    lifecycle = Lifecycle(records, 1, 0)
    list(lifecycle.start(finite(records, "r", 1, "done")))
    assert list(lifecycle.watch(NUMBERS, "r")) == ["done"]
    assert list(lifecycle.resume(NUMBERS, "r", finite(records, "r"), detached=False, take_over=False)) == ["done"]


def test_a_missing_run_is_not_found(records: Records) -> None:
    lifecycle = Lifecycle(records, 1, 0)
    for run_id, error in (("nobodys", NotFound), ("no name", InvalidInput)):
        with pytest.raises(error):
            lifecycle.watch(NUMBERS, run_id)
        with pytest.raises(error):
            lifecycle.resume(NUMBERS, run_id, taken_over(records, Steps(), run_id), detached=False, take_over=False)


def test_a_caller_gets_signs_while_nothing_happens(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    caller = lifecycle.start(new_work(records, steps))
    watcher = lifecycle.watch(NUMBERS, "r")
    elsewhere = Lifecycle(records, 1, 0).watch(NUMBERS, "r")
    beats = [watch.beating(0.01) for watch in (caller, watcher, elsewhere)]
    signs = [next(events) for events in (*beats[:2], *beats[:2])]
    assert signs == [None] * 4
    assert next(event for event in beats[2] if event is None) is None
    steps.allowed.release()
    for events in beats[:2]:
        assert next(event for event in events if event is not None) == 0
    caller.cancel()
    elsewhere.cancel()


def test_a_detached_run_goes_on_without_its_caller_until_it_is_stopped(records: Records) -> None:
    lifecycle, steps = Lifecycle(records, 1, 0), Steps()
    caller = lifecycle.start(new_work(records, steps, detached=True))
    caller.cancel()
    watcher = lifecycle.watch(NUMBERS, "r")
    steps.allowed.release()
    assert next(iter(watcher)) == 0
    execution = lifecycle.execution(RunKind.TRAIN, "r")
    assert execution is not None
    execution.stop()
    steps.allowed.release()
    with pytest.raises(Cancelled):
        list(watcher)
    assert state(records) is RunState.STOPPED
    assert records.store.list("detached") == []

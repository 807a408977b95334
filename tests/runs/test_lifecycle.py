"""Every run leaves the queue, however and whenever it ends, and its reader learns how it ended."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator

import pytest
from gramlet.errors import Cancelled, InvalidInput, NotFound, Overloaded, Unavailable
from gramlet_server.runs.lifecycle import Execution, Lifecycle, Work

CALL = contextvars.ContextVar("CALL", default="none")


class Steps:
    """Work of endless numbered steps, each of which has to be allowed by the test."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self) -> Generator[int, None, None]:
        try:
            for step in range(1_000_000):
                self.allowed.acquire()
                yield step
        finally:
            self.closed.set()

    def work(self) -> Work[int]:
        return Work("r", queued=lambda position: -1 - position, events=self)


def finite(*events: int) -> Callable[[], Work[int]]:
    def steps() -> Generator[int, None, None]:
        yield from events

    return lambda: Work("r", queued=lambda position: -1 - position, events=steps)


def is_empty(lifecycle: Lifecycle) -> bool:
    return (lifecycle.queue.running, lifecycle.queue.queued) == (0, 0)


def test_a_run_waits_for_its_turn_reports_its_position_and_leaves() -> None:
    lifecycle = Lifecycle(1, 2)
    first = Steps()
    running = lifecycle.start(first.work)
    waiting = iter(lifecycle.start(finite(1, 2)))
    assert next(waiting) == -1
    running.cancel()
    first.allowed.release()
    assert list(waiting) == [1, 2]
    running.join()
    assert is_empty(lifecycle)


def test_a_full_queue_refuses_a_run_before_it_is_prepared() -> None:
    lifecycle = Lifecycle(1, 0)
    lifecycle.queue.take()
    prepared: list[bool] = []

    def prepare() -> Work[int]:
        prepared.append(True)
        return finite()()

    with pytest.raises(Overloaded) as error:
        lifecycle.start(prepare)
    assert error.value.retry_after
    assert not prepared


def test_a_run_that_cannot_be_prepared_leaves_no_place_taken() -> None:
    def prepare() -> Work[int]:
        raise InvalidInput("no such stage")

    lifecycle = Lifecycle(1, 0)
    with pytest.raises(InvalidInput):
        lifecycle.start(prepare)
    assert is_empty(lifecycle)


def test_cancelling_closes_the_work_within_one_step_and_wakes_the_reader() -> None:
    lifecycle, steps = Lifecycle(1, 0), Steps()
    execution = lifecycle.start(steps.work)
    steps.allowed.release()
    assert next(iter(execution)) == 0
    execution.cancel()
    with pytest.raises(Cancelled):
        next(iter(execution))
    steps.allowed.release()
    execution.join()
    assert steps.closed.is_set()
    assert is_empty(lifecycle)


def test_a_run_that_is_cancelled_while_it_waits_leaves_and_never_works() -> None:
    lifecycle, steps = Lifecycle(1, 1), Steps()
    lifecycle.queue.take()
    execution = lifecycle.start(steps.work)
    execution.cancel()
    execution.join()
    assert lifecycle.queue.queued == 0
    assert not steps.closed.is_set()


@pytest.mark.parametrize("is_over", [False, True])
def test_a_run_is_cancelled_with_its_call_even_if_that_ended_while_it_was_prepared(is_over: bool) -> None:
    callbacks: list[Callable[[], None]] = []

    def add_callback(callback: Callable[[], None]) -> bool:  # as gRPC's
        if not is_over:
            callbacks.append(callback)
        return not is_over

    lifecycle, steps = Lifecycle(1, 0), Steps()
    execution = lifecycle.start(steps.work)
    execution.cancel_with_call(add_callback)
    for callback in callbacks:
        callback()
    steps.allowed.release()
    execution.join()
    with pytest.raises(Cancelled):
        next(iter(execution))
    assert is_empty(lifecycle)


def test_three_hundred_calls_cancelled_while_they_are_prepared_leave_the_service_free() -> None:
    lifecycle, steps = Lifecycle(2, 8), Steps()
    for _ in range(300):
        execution = lifecycle.start(steps.work)
        execution.cancel_with_call(lambda cancel: False)
        steps.allowed.release()
        execution.join()
    assert is_empty(lifecycle)
    assert list(lifecycle.start(finite(1))) == [1]


def test_the_error_of_the_work_reaches_the_reader_after_its_events() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise NotFound("gone")

    lifecycle = Lifecycle(1, 0)
    reader = iter(lifecycle.start(lambda: Work("r", queued=int, events=failing)))
    assert next(reader) == 1
    with pytest.raises(NotFound):
        next(reader)
    assert is_empty(lifecycle)


def test_draining_ends_waiting_runs_at_once_running_ones_at_their_next_step_and_refuses_new_ones() -> None:
    lifecycle = Lifecycle(1, 1)
    go_on, saved = threading.Event(), []

    def steps() -> Generator[int, None, None]:
        yield 0
        go_on.wait()
        saved.append(lifecycle.draining)
        lifecycle.check_draining("r")

    running: Execution[int] = lifecycle.start(lambda: Work("r", queued=int, events=steps))
    assert next(iter(running)) == 0
    waiting = lifecycle.start(finite(1))
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
        lifecycle.start(finite(1))


def test_the_work_runs_in_the_context_of_its_call() -> None:
    seen: list[str] = []

    def steps() -> Generator[int, None, None]:
        seen.append(CALL.get())
        yield 0

    CALL.set("mine")
    list(Lifecycle(1, 0).start(lambda: Work("r", queued=int, events=steps)))
    assert seen == ["mine"]

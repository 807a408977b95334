"""The scheduler is fair to callers, batches their work, limits its queue, and confines a failure to one picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from gramlet.errors import Cancelled, InvalidInput, Overloaded, Unavailable
from gramlet.types import Timing
from gramlet_server.feature import scheduler as scheduler_module
from gramlet_server.feature.scheduler import Scheduler
from gramlet_server.feature.work import Batching, Caller, Later, Work, outcome

from tests.e2e.cluster import wait_until


class Device:
    """Records its passes, and holds them until released."""

    def __init__(self) -> None:
        self.passes: list[list[Any]] = []
        self.gate = threading.Event()
        self.busy = threading.Event()

    def run(self, payloads: Sequence[Any]) -> list[Any]:
        self.busy.set()
        assert self.gate.wait(30)
        self.passes.append(list(payloads))
        if "bad" in payloads:
            raise InvalidInput("a bad one")
        return [f"{payload}!" for payload in payloads]

    def work(self, payload: Any, key: Any = "same", pixels: int = 100) -> Work:
        return Work("extract", key, pixels, self.run, payload)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def scheduler(device: Device) -> Iterator[Scheduler]:
    scheduler = Scheduler(Batching(pictures=4, pixels=1000, queue_limit=20))
    yield scheduler
    device.gate.set()
    scheduler.close()


def hold(device: Device, caller: Caller) -> None:
    """Keeps the device busy with a pass of its own, so that a queue builds up."""
    caller.submit(device.work("first", key=None))
    assert device.busy.wait(30)


def test_work_of_one_key_shares_passes_also_of_different_callers(scheduler: Scheduler, device: Device) -> None:
    a, b = scheduler.caller(), scheduler.caller()
    hold(device, a)
    futures = [a.submit(device.work("a1")), b.submit(device.work("b1")), b.submit(device.work("other", key="k"))]
    futures += [a.submit(device.work("a2"))]
    device.gate.set()
    assert [outcome(future)[0] for future in futures] == ["a1!", "b1!", "other!", "a2!"]
    assert sorted(device.passes[1]) == ["a1", "a2", "b1"]
    assert outcome(futures[0])[1].batch_size == 3


def test_a_pass_is_limited_in_pictures_and_in_pixels(scheduler: Scheduler, device: Device) -> None:
    a = scheduler.caller()
    hold(device, a)
    futures = [a.submit(device.work(i)) for i in range(6)]
    futures += [a.submit(device.work(f"large {i}", key="large", pixels=600)) for i in range(2)]
    futures += [a.submit(device.work("huge", key="large", pixels=5000))]
    device.gate.set()
    for future in futures:
        outcome(future)
    assert [len(each) for each in device.passes] == [1, 4, 2, 1, 1, 1]


def test_a_corpus_does_not_starve_a_stylization(scheduler: Scheduler, device: Device) -> None:
    corpus, stylization = scheduler.caller(), scheduler.caller()
    hold(device, corpus)
    for i in range(16):
        corpus.submit(device.work(i))
    gradients = [stylization.submit(device.work(f"gradient {i}", key=None)) for i in range(2)]
    device.gate.set()
    for future in gradients:
        outcome(future)
    # By then the corpus has had at most one full pass for each of the stylization's.
    before = device.passes[: device.passes.index(["gradient 1"])]
    assert sum(len(each) for each in before if isinstance(each[0], int)) <= 8


def test_an_endless_series_of_single_calls_starves_nobody(scheduler: Scheduler, device: Device) -> None:
    """Overload: more calls wait than fit a pass, and each caller sends one picture only."""
    stream = scheduler.caller()
    hold(device, stream)

    def call(number: int) -> tuple[Caller, Future[tuple[Any, Timing]]]:
        caller = scheduler.caller()
        return caller, caller.submit(device.work(f"call {number}"))

    row = [call(number) for number in range(8)]
    waiting = stream.submit(device.work("stream", key="of the stream"))
    device.gate.set()
    for number in range(8, 200):
        caller, future = row[number - 8]
        outcome(future)
        caller.close()
        row.append(call(number))
    order = [payload for batch in device.passes for payload in batch if str(payload).startswith("call")]
    assert order == sorted(order, key=lambda payload: int(payload.split()[1]))
    assert waiting.done()


def test_a_pause_earns_no_credit(scheduler: Scheduler, device: Device) -> None:
    device.gate.set()
    old = scheduler.caller()
    for _ in range(50):
        outcome(old.submit(device.work("old", key=None)))
    newcomer = scheduler.caller()
    outcome(newcomer.submit(device.work("new", key=None)))
    assert newcomer.clock >= 0.5 * old.clock


@pytest.fixture
def patient(device: Device) -> Iterator[Scheduler]:
    """Waits very long for expected callers."""
    scheduler = Scheduler(Batching(pictures=4, linger=1e9))
    yield scheduler
    device.gate.set()
    scheduler.close()


def serve_together(scheduler: Scheduler, device: Device, number: int) -> None:
    """Runs a pass over one picture each of so many callers."""
    works = []
    with scheduler.caller() as first:
        hold(device, first)
        for index in range(number):
            works.append(device.work(f"served {index}"))
            scheduler.caller().submit(works[-1])
        device.gate.set()
        for work in works:
            outcome(work.future)


def test_callers_that_return_share_the_next_pass(patient: Scheduler, device: Device) -> None:
    serve_together(patient, device, 3)
    back = [patient.caller().submit(device.work(f"back {index}")) for index in range(3)]
    assert [outcome(future)[1].batch_size for future in back] == [3, 3, 3]


def test_a_pass_that_is_full_waits_for_nobody(patient: Scheduler, device: Device) -> None:
    serve_together(patient, device, 3)
    crowd = patient.caller().submit_together([device.work(index) for index in range(5)])
    assert outcome(crowd[0])[1].batch_size == 4


def test_a_single_caller_never_waits_for_others(patient: Scheduler, device: Device) -> None:
    device.gate.set()
    for pictures in (3, 1, 1, 2):
        with patient.caller() as single:
            futures = single.submit_together([device.work(index) for index in range(pictures)])
            assert [outcome(future)[1].batch_size for future in futures] == [pictures] * pictures


def test_nobody_is_waited_for_while_there_is_other_work(patient: Scheduler, device: Device) -> None:
    serve_together(patient, device, 3)
    back, gradient = patient.caller().submit(device.work("back")), patient.caller().submit(device.work("g", key=None))
    assert outcome(back)[0] == "back!"
    assert outcome(gradient)[0] == "g!"


def test_callers_that_do_not_return_cost_one_short_wait(device: Device) -> None:
    scheduler = Scheduler(Batching(linger=0.01))
    serve_together(scheduler, device, 8)
    for number in range(3):
        assert outcome(scheduler.caller().submit(device.work(number)))[1].batch_size == 1
    scheduler.close()


def test_a_failure_in_a_batch_does_not_affect_the_others(scheduler: Scheduler, device: Device) -> None:
    a = scheduler.caller()
    hold(device, a)
    futures = [a.submit(device.work(payload)) for payload in ("one", "bad", "two")]
    device.gate.set()
    assert outcome(futures[0])[0] == "one!"
    with pytest.raises(InvalidInput):
        outcome(futures[1])
    assert outcome(futures[2])[0] == "two!"


def test_waiting_work_of_a_closed_caller_is_never_run(scheduler: Scheduler, device: Device) -> None:
    a, b = scheduler.caller(), scheduler.caller()
    hold(device, a)
    gone, stays = b.submit(device.work("gone")), a.submit(device.work("stays"))
    b.close()
    device.gate.set()
    assert outcome(stays)[0] == "stays!"
    with pytest.raises(Cancelled):
        outcome(gone)
    with pytest.raises(Cancelled):
        b.submit(device.work("late"))
    assert "gone" not in [payload for each in device.passes for payload in each]
    assert scheduler.queued == 0


def test_a_full_queue_admits_no_caller(scheduler: Scheduler, device: Device) -> None:
    a = scheduler.caller()
    hold(device, a)
    for i in range(20):
        a.submit(device.work(i))
    with pytest.raises(Overloaded) as error:
        scheduler.caller()
    assert error.value.retry_after is not None
    assert scheduler.callers == 1


def is_refused(caller: Caller, device: Device) -> bool:
    try:
        caller.submit(device.work("late"))
    except Unavailable:
        return True
    return False


def test_closing_fails_waiting_work_and_refuses_new_work(device: Device) -> None:
    scheduler = Scheduler(Batching())
    a = scheduler.caller()
    hold(device, a)
    waiting = a.submit(device.work("waiting"))
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    wait_until(lambda: is_refused(a, device), what="the scheduler to be closing")
    device.gate.set()
    closing.join()
    with pytest.raises(Unavailable):
        outcome(waiting)
    assert is_refused(a, device)


def test_long_work_in_short_pieces_has_its_share_beside_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    order: list[str] = []
    scheduler = Scheduler(Batching(pictures=1))
    with scheduler.caller() as corpus, scheduler.caller() as long:

        def run(payloads: Sequence[str]) -> list[str]:
            order.append(payloads[0])
            now[0] += {"corpus": 10.0, "piece": 1.0}[payloads[0]]  # the scheduler reads no other clock
            if payloads[0] == "corpus":  # long enough for the next piece to come
                wait_until(lambda: bool(long.waiting) or long.closed)
            return list(payloads)

        futures = corpus.submit_together([Work("extract", "same", 100, run, "corpus") for _ in range(6)])
        for _ in range(35):  # each piece is sent when the one before has ended
            outcome(long.submit(Work("descend", None, 100, run, "piece")))
        long.close()
        for future in futures:
            outcome(future)
    scheduler.close()
    pieces = "".join(each[0] for each in order).strip("c").split("c")
    assert len(pieces) <= 4
    assert all(len(each) >= 9 for each in pieces[:-1]), order


class Overlapping:
    """A device on which a pass has begun before its results are there."""

    def __init__(self) -> None:
        self.begun: list[list[Any]] = []
        self.ended = 0
        self.gates = [threading.Event() for _ in range(8)]

    def run(self, payloads: Sequence[Any]) -> Later:
        number = len(self.begun)
        self.begun.append(list(payloads))

        def wait() -> list[Any]:
            assert self.gates[number].wait(30)
            self.ended += 1
            if "bad" in payloads:
                raise InvalidInput("a bad one")
            return [f"{payload}!" for payload in payloads]

        return Later(wait)

    def work(self, payload: Any, key: Any = "same", overlaps: bool = True) -> Work:
        return Work("extract", key, 100, self.run, payload, overlaps)


def test_the_next_pass_begins_while_one_computes_if_it_is_as_large() -> None:
    device, scheduler = Overlapping(), Scheduler(Batching(pictures=2))
    with scheduler.caller() as caller:
        futures = caller.submit_together([device.work(number) for number in range(4)])
        wait_until(lambda: len(device.begun) == 2)
        assert (device.begun, device.ended) == ([[0, 1], [2, 3]], 0)
        more = caller.submit(device.work(4))  # fewer than the pass that computes has: it waits for others
        device.gates[0].set()
        assert [outcome(future)[0] for future in futures[:2]] == ["0!", "1!"]
        assert len(device.begun) == 2
        for gate in device.gates:
            gate.set()
        assert [outcome(future)[0] for future in [*futures[2:], more]] == ["2!", "3!", "4!"]
    scheduler.close()


def test_work_that_does_not_overlap_waits_for_the_pass_before() -> None:
    device, scheduler = Overlapping(), Scheduler(Batching(pictures=1))
    with scheduler.caller() as caller, scheduler.caller() as other:
        first = caller.submit(device.work("extraction"))
        wait_until(lambda: device.begun == [["extraction"]])
        second = other.submit(device.work("gradient", key=None, overlaps=False))
        device.gates[1].set()
        assert not second.done()
        device.gates[0].set()
        assert [outcome(future)[0] for future in (first, second)] == ["extraction!", "gradient!"]
    scheduler.close()


def test_a_failure_that_shows_late_is_that_of_its_picture_alone() -> None:
    device, scheduler = Overlapping(), Scheduler(Batching(pictures=2))
    for gate in device.gates:
        gate.set()
    with scheduler.caller() as caller:
        futures = caller.submit_together([device.work(payload) for payload in ("good", "bad", "next", "last")])
        assert outcome(futures[0])[0] == "good!"
        with pytest.raises(InvalidInput):
            outcome(futures[1])
        assert [outcome(future)[0] for future in futures[2:]] == ["next!", "last!"]
    scheduler.close()


def test_closing_ends_the_pass_under_way() -> None:
    device, scheduler = Overlapping(), Scheduler(Batching(pictures=1))
    future = scheduler.caller().submit(device.work("one"))
    wait_until(lambda: bool(device.begun))
    device.gates[0].set()
    scheduler.close()
    assert outcome(future)[0] == "one!"

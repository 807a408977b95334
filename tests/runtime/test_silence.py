"""Callers who send nothing, or take nothing, cost nobody else anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from gramlet.errors import Overloaded
from gramlet_server.process.memory_budget import Budget
from gramlet_server.runtime import incoming
from gramlet_server.runtime.health import LIVENESS
from gramlet_server.runtime.incoming import Incoming, Patience
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.silence import PACE_SECONDS, Pace, Silences
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.cluster import wait_until

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
ALL_TOKENS = ("first-token",)
GOOD = (("authorization", "Bearer first-token"),)
SERVING = health_pb2.HealthCheckResponse.SERVING


class Silent(Iterator[bytes]):
    """A caller who sends these messages and then nothing, until the test ends."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.ended = threading.Event()

    def __next__(self) -> bytes:
        if self._messages:
            return self._messages.pop(0)
        self.ended.wait(60)
        raise StopIteration


@pytest.fixture
def silent() -> Iterator[Callable[..., Silent]]:
    made: list[Silent] = []

    def make(*messages: bytes) -> Silent:
        made.append(Silent(*messages))
        return made[-1]

    yield make
    for caller in made:
        caller.ended.set()


def open_call(channel: grpc.Channel, kind: str, requests: Iterator[bytes], metadata: Any = ()) -> Any:
    """Opens a call; a client of gRPC sends a unary request with its headers, so all are opened as streams."""
    if kind.endswith("unary"):
        return channel.stream_unary(f"/test.Echo/{kind}").future(requests, metadata=metadata)
    return channel.stream_stream(f"/test.Echo/{kind}")(requests, metadata=metadata)


def outcome(call: Any, kind: str) -> Any:
    """The failed call, when it has ended; replies are read first, since gRPC's client keeps the status behind them."""
    with pytest.raises(grpc.RpcError) as failure:
        call.result(30) if kind.endswith("unary") else list(call)
    return failure.value


def health(channel: grpc.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status
    return status


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_a_token_is_refused_before_its_message(serving: Any, silent: Any, kind: str) -> None:
    with serving(tokens=ALL_TOKENS) as running:
        assert outcome(open_call(running.channel, kind, silent()), kind).code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_whose_first_message_does_not_come_is_ended(serving: Any, silent: Any, kind: str) -> None:
    metrics = Metrics()
    with serving(first_message_seconds=0.1, metrics=metrics) as running:
        call = outcome(open_call(running.channel, kind, silent()), kind)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "first message did not come within 0.1 s" in call.details()
        labels = {"method": f"/test.Echo/{kind}", "code": "DEADLINE_EXCEEDED"}
        counted = partial(metrics.registry.get_sample_value, "gramlet_requests_total", labels)
        wait_until(lambda: counted() == 1, what="the call is counted")


def test_a_stream_whose_next_message_does_not_come_is_ended(serving: Any, silent: Any) -> None:
    with serving(idle_seconds=0.1) as running:
        call = outcome(open_call(running.channel, "stream_stream", silent(b"one")), "stream_stream")
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "next message did not come" in call.details()


def test_a_stream_whose_replies_are_not_taken_is_ended(serving: Any) -> None:
    with serving(idle_seconds=0.1) as running:
        call = running.channel.unary_stream("/test.Echo/endless")(bytes(2**20))
        assert running.echo.closed.wait(30)
        assert outcome(call, "unary_stream").code() is grpc.StatusCode.UNAVAILABLE


def test_a_full_server_ends_the_oldest_call_that_has_sent_nothing(serving: Any, silent: Any) -> None:
    with serving(max_calls=1) as running:
        call = open_call(running.channel, "unary_unary", silent())
        wait_until(lambda: not running.server.admission.wait_until_idle(0), what="the silent call is admitted")

        def answered() -> bool:
            call = running.channel.unary_unary("/test.Echo/unary_unary").future(b"hello")
            return bool(call.code() is grpc.StatusCode.OK)

        wait_until(answered, what="the silent call has made room")
        assert outcome(call, "unary_unary").code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_health_answers_while_others_send_it_nothing(serving: Any, silent: Any) -> None:
    with serving() as running, grpc.insecure_channel(running.address) as other:
        check = running.channel.stream_unary("/grpc.health.v1.Health/Check")
        calls = [check.future(silent()) for _ in range(100)]
        assert health(other) == SERVING
        # None of them keeps its thread.
        assert {call.code() for call in calls} <= {
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }


def test_open_watches_have_no_threads_and_hear_of_every_change(serving: Any) -> None:
    with serving() as running:
        before = threading.active_count()
        stub: Any = health_pb2_grpc.HealthStub(running.channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(90)]
        assert [next(watch).status for watch in watches] == [SERVING] * 90
        assert threading.active_count() - before < 90 + 72  # one of the client's for each, and the health pool's
        running.server._health.enter_graceful_shutdown()
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.NOT_SERVING}
        for watch in watches:
            watch.cancel()


def test_a_process_lives_while_it_does_not_serve(serving: Any) -> None:
    with serving() as running:
        running.server._health.enter_graceful_shutdown()
        assert health(running.channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert health(running.channel, LIVENESS) == SERVING


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Trickle(Iterator[bytes]):
    """Messages of one size that come a time after they are asked for; the watcher looks before each of them."""

    def __init__(self, clock: Clock, silences: Silences, ended: list[int], seconds: float, size: int) -> None:
        self._clock, self._silences, self._ended, self._seconds, self._size = clock, silences, ended, seconds, size

    def __next__(self) -> bytes:
        self._clock.now += self._seconds
        self._silences.end_late()
        if self._ended:
            raise StopIteration
        return bytes(self._size)


@pytest.fixture
def trickled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How many messages of a caller arrive before the call is ended, at most 100."""
    monkeypatch.setattr(Silences, "_watch", lambda self: None)  # `Trickle` looks instead

    def count(seconds: float, size: int, *, wanted: bool = True, idles: bool = False) -> int:
        clock = Clock()
        silences = Silences(clock)
        ended: list[int] = []
        call = SimpleNamespace(cancel=lambda code, details: ended.append(code))
        context: Any = SimpleNamespace(_rpc_event=SimpleNamespace(call=call))
        messages = Incoming(Trickle(clock, silences, ended, seconds, size), context, None, silences, Patience(20, 300))
        messages.hurry(lambda: wanted)
        for number in range(100):
            try:
                next(messages)
            except Overloaded:
                assert ended == [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]
                return number
            if idles:
                messages.let_idle()
        return 100

    return count


def test_a_caller_who_trickles_is_ended_when_others_wait(trickled: Callable[..., int]) -> None:
    assert trickled(0.9, 100) == 1 + 16  # the first message has a time of its own
    assert trickled(0.9, 100, wanted=False) == 100


def test_a_caller_who_keeps_the_pace_is_not_ended(trickled: Callable[..., int]) -> None:
    assert trickled(0.9, 16 * 1024) == 100
    assert trickled(0.9, 12 * 1024) < 100


def test_a_caller_who_need_not_send_is_not_ended(trickled: Callable[..., int]) -> None:
    assert trickled(0.9, 100, idles=True) == 100


def test_a_caller_cannot_save_up_patience() -> None:
    pace = Pace()
    pace.moved(waited=0, size=2**30)
    assert pace.left == PACE_SECONDS


def test_a_full_server_ends_the_stream_that_is_too_slow(
    serving: Any, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace.__init__, "__defaults__", (0.0,))
    with serving(max_calls=1) as running:
        call = open_call(running.channel, "stream_stream", silent(b"one"))
        assert [next(call), next(call)] == [b"first", b"one"]

        def answered() -> bool:
            call = running.channel.unary_unary("/test.Echo/unary_unary").future(b"hello")
            return bool(call.code() is grpc.StatusCode.OK)

        wait_until(answered, what="the slow call has made room")
        assert outcome(call, "stream_stream").code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_full_server_ends_the_stream_whose_replies_are_not_taken(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace.__init__, "__defaults__", (0.0,))
    with serving(max_calls=1) as running:
        unread = running.channel.unary_stream("/test.Echo/endless")(bytes(2**20))
        with grpc.insecure_channel(running.address) as other:

            def answered() -> bool:
                call = other.unary_unary("/test.Echo/unary_unary").future(b"hello")
                return bool(call.code() is grpc.StatusCode.OK)

            wait_until(lambda: not running.server.admission.wait_until_idle(0), what="the call is admitted")
            wait_until(answered, what="the call that is not read has made room")
        assert outcome(unread, "unary_stream").code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_slow_caller_is_ended_when_others_wait_for_memory(serving: Any, silent: Any) -> None:
    ended: list[int] = []
    call = SimpleNamespace(cancel=lambda code, details: ended.append(code))
    context: Any = SimpleNamespace(_rpc_event=SimpleNamespace(call=call))
    silences, caller = Silences(), silent(b"one")
    messages = Incoming(caller, context, None, silences, Patience(20, 300))
    budget = Budget(10)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setattr(incoming, "PROCESS", budget)
        next(messages)
        messages._pace.left = 0.0
        waiting = pool.submit(next, messages)
        with budget.reserve(10):
            wanting = pool.submit(budget.reserve, 1, wait=30)
            wait_until(lambda: bool(ended), what="the slow call is ended")
        wanting.result(30).close()
        caller.ended.set()
        with pytest.raises(Overloaded):
            waiting.result(30)
    silences.close()


def test_a_server_short_of_memory_ends_calls_whose_messages_are_not_complete() -> None:
    ended: list[tuple[int, str]] = []
    context: Any = SimpleNamespace(_rpc_event=SimpleNamespace(call=SimpleNamespace(cancel=lambda *a: ended.append(a))))
    now, short = 100.0, False
    silences = Silences(clock=lambda: now, is_short_of_memory=lambda: short)
    with silences.limited(context, 0, "", receives=True), silences.limited(context, 0, ""):
        now += 2
        silences.shed()
        assert not ended
        short = True
        silences.shed()
        assert [code for code, _ in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]
    silences.close()

"""Callers who send nothing, or take nothing, cost nobody else anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from gramlet_server.runtime.health import LIVENESS
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.silence import Silences
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


def test_a_silent_call_for_whose_turn_others_wait_is_ended_soon() -> None:
    ended: list[tuple[int, str]] = []
    context: Any = SimpleNamespace(_rpc_event=SimpleNamespace(call=SimpleNamespace(cancel=lambda *a: ended.append(a))))
    now, crowded = 100.0, False
    silences = Silences(clock=lambda: now)
    with silences.limited(context, 300, "", receives=True, others_wait=lambda: crowded):
        now += 16
        silences.end_late()
        assert not ended
        crowded = True
        silences.end_late()
        assert [code for code, _ in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]
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

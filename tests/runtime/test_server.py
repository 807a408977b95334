from __future__ import annotations

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from gramlet.errors import FailedPrecondition, Unavailable
from gramlet.transport.failures import decode_rpc_error
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(channel: grpc.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status
    return status


def watch(channel: grpc.Channel, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)


# --- start ---


def test_it_answers_while_it_loads_and_serves_once_loaded(serving: Any) -> None:
    loaded = threading.Event()

    def build() -> None:
        assert loaded.wait(30)

    with serving(build=build) as running:
        assert health_of(running.channel) == NOT_SERVING
        assert health_of(running.channel, "test.Echo") == NOT_SERVING
        overall = watch(running.channel)
        assert next(overall).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as failure:
            running.call("unary_stream")
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "google.rpc.RetryInfo" in str(rpc_status.from_call(failure.value))

        loaded.set()
        assert running.built.get(timeout=30) is None
        assert next(overall).status == SERVING
        assert health_of(running.channel, "test.Echo") == SERVING
        assert running.call("unary_stream")[0] == [b"first", b"hello"]
        overall.cancel()


def test_a_service_that_is_not_offered_has_no_health(serving: Any) -> None:
    with serving() as running, pytest.raises(grpc.RpcError) as failure:
        health_of(running.channel, "gramlet.feature.v1.FeatureService")
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("raised", "reported"),
    [
        (FailedPrecondition("no weights"), "no weights"),
        (ModuleNotFoundError(name="torch"), "torch is not installed; get it with: pip install 'gramlet-server[all]'"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_the_error_of_a_build_is_reported(serving: Any, raised: Exception, reported: str) -> None:
    def build() -> None:
        raise raised

    with serving(build=build) as running:
        assert str(running.built.get(timeout=30)) == reported
        assert health_of(running.channel) == NOT_SERVING


def test_a_taken_port_is_refused_in_a_line(serving: Any) -> None:
    with serving() as running:
        second = Server([], ServerSettings(port=running.server.port))
        with pytest.raises(FailedPrecondition, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            second.start()


def test_a_taken_metrics_port_is_refused_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server([], ServerSettings(port=0, metrics_port=taken.getsockname()[1]))
        with pytest.raises(FailedPrecondition, match=r"cannot serve metrics on .*: Address already in use"):
            server.start()


def test_an_address_of_another_machine_is_refused_in_a_line() -> None:
    with pytest.raises(FailedPrecondition, match="cannot listen on"):
        Server([], ServerSettings(host="192.0.2.1", port=0)).start()


def test_a_server_that_anybody_can_call_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    for settings, warned in [
        (ServerSettings(host="0.0.0.0", port=0), True),
        (ServerSettings(host="0.0.0.0", port=0, tokens=("token",)), False),
        (ServerSettings(host="localhost", port=0), False),
        (ServerSettings(host="127.0.0.2", port=0), False),
    ]:
        caplog.clear()
        server = Server([], settings)
        server.start()
        server.stop(drain_seconds=0)
        assert ("neither TLS nor a token" in caplog.text) is warned, settings


# --- what a client like grpcurl sees ---


def test_reflection_lists_what_is_served(serving: Any) -> None:
    with serving() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (reply,) = stub.ServerReflectionInfo(iter([request]))
    assert {service.name for service in reply.list_services_response.service} == {
        "test.Echo",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_call_that_does_not_exist_is_unimplemented(serving: Any) -> None:
    with serving() as running, pytest.raises(grpc.RpcError) as failure:
        running.channel.unary_unary("/test.Echo/nothing")(b"")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_messages_up_to_the_limit_pass_both_ways_and_larger_ones_are_refused(serving: Any) -> None:
    with serving(max_message_bytes=8 * 2**20) as running:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(running.address, options) as channel:
            echo = channel.unary_unary("/test.Echo/unary_unary")
            assert len(echo(bytes(8 * 2**20))) == 8 * 2**20
            with pytest.raises(grpc.RpcError) as failure:
                echo(bytes(8 * 2**20 + 1))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_many_streams_run_at_once(serving: Any) -> None:
    together = threading.Barrier(100)

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        together.wait(30)
        return request

    with serving() as running, ThreadPoolExecutor(100) as pool:
        running.echo.answer = answer
        outcomes = [pool.submit(running.call, "stream_stream") for _ in range(100)]
        assert all(outcome.result()[0] == [b"first", b"hello"] for outcome in outcomes)


# --- stop ---


class Stopping:
    """A server that is stopped while a call runs."""

    def __init__(self, running: Any, drain_seconds: float) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        running.echo.answer = self._answer
        self.call: Any = running.channel.unary_unary("/test.Echo/unary_unary").future(b"late")
        assert self.entered.wait(30)
        self._pool = ThreadPoolExecutor(1)
        self.stopped: Future[bool] = self._pool.submit(running.server.stop, drain_seconds)
        self._pool.shutdown(wait=False)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.cancelled)
        self.entered.set()
        assert self.release.wait(30)
        return request

    def cancelled(self) -> None:
        """The call has ended, successfully or not: releases the thread that works for it."""
        self.release.set()


def test_draining_finishes_running_calls_and_refuses_new_ones(serving: Any) -> None:
    with serving() as running:
        stopping = Stopping(running, drain_seconds=60)
        assert running.echo.drained.wait(30)
        with pytest.raises(grpc.RpcError) as failure:
            running.call("unary_unary")
        # Until the client knows that the server stops, gRPC ends its calls with CANCELLED. The SDK retries both.
        assert isinstance(decode_rpc_error(failure.value, running.address), Unavailable)
        assert not stopping.stopped.done()

        stopping.release.set()
        assert stopping.call.result() == b"late"
        assert stopping.stopped.result(30)


def test_a_watch_reports_that_the_server_stops_and_then_ends(serving: Any) -> None:
    with serving() as running:
        overall = watch(running.channel)
        assert next(overall).status == SERVING
        # The watch is still open, and does not delay the stop for the 60 seconds.
        assert running.server.stop(drain_seconds=60)
        assert [reply.status for reply in overall] == [NOT_SERVING]
        assert overall.code() is grpc.StatusCode.OK


def test_calls_that_outlast_the_drain_are_cancelled_with_unavailable(serving: Any) -> None:
    with serving() as running:
        stopping = Stopping(running, drain_seconds=0.1)
        assert stopping.call.code() is grpc.StatusCode.UNAVAILABLE
        assert stopping.stopped.result(30)


def test_services_are_closed_in_the_reverse_of_the_order_in_which_they_were_built() -> None:
    happened = []

    def service(name: str) -> Service:
        def build() -> Built:
            happened.append(f"build {name}")
            return Built(
                None, drain=lambda: happened.append(f"drain {name}"), close=lambda: happened.append(f"close {name}")
            )

        return Service(name, add=lambda servicer, server: None, build=build)

    server = Server([service("first"), service("second")], ServerSettings(port=0))
    built = threading.Event()
    server.start(lambda error: built.set())
    assert built.wait(30)
    assert server.stop(drain_seconds=0)
    assert happened == ["build first", "build second", "drain second", "drain first", "close second", "close first"]


def test_a_service_that_fails_for_good_is_not_serving_and_the_failure_is_reported(serving: Any) -> None:
    with serving() as running:
        overall = watch(running.channel)
        assert next(overall).status == SERVING
        running.echo.fail(Unavailable("cuda:0 has failed"))
        assert next(overall).status == NOT_SERVING
        assert health_of(running.channel, "test.Echo") == NOT_SERVING
        assert str(running.built.get(timeout=30)) == "cuda:0 has failed"
        overall.cancel()


def test_a_service_that_lacks_its_store_refuses_calls_with_the_reason_until_it_is_back(serving: Any) -> None:
    with serving() as running:
        overall = watch(running.channel)
        assert next(overall).status == SERVING
        running.echo.lack(Unavailable("the store fails"))
        assert next(overall).status == NOT_SERVING
        assert health_of(running.channel, "test.Echo") == NOT_SERVING
        with pytest.raises(grpc.RpcError) as failure:
            running.call("unary_stream")
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert failure.value.details() == "the store fails"

        running.echo.lack(None)
        assert next(overall).status == SERVING
        assert running.call("unary_stream")[0] == [b"first", b"hello"]
        overall.cancel()


def test_a_server_serves_as_long_as_one_of_its_services_can_work() -> None:
    reports = {}

    def service(name: str) -> Service:
        def build() -> Built:
            return Built(None, on_readiness=lambda report: reports.update({name: report}))

        return Service(name, add=lambda servicer, server: None, build=build)

    server = Server([service("first"), service("second")], ServerSettings(port=0))
    built = threading.Event()
    server.start(lambda error: built.set())
    assert built.wait(30)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        reports["second"](Unavailable("the store fails"))
        assert [health_of(channel, name) for name in ("first", "second", "")] == [SERVING, NOT_SERVING, SERVING]
        reports["first"](Unavailable("the store fails"))
        assert [health_of(channel, name) for name in ("first", "second", "")] == [NOT_SERVING] * 3
        reports["second"](None)
        assert [health_of(channel, name) for name in ("first", "second", "")] == [NOT_SERVING, SERVING, SERVING]
    server.stop(drain_seconds=0)

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import grpc
import pytest
from gramlet.embed.v1 import embed_pb2
from gramlet.errors import NotFound
from gramlet.feature.v1 import feature_pb2
from gramlet.run.v1 import run_pb2
from gramlet.stylize.v1 import stylize_pb2
from gramlet.train.v1 import train_pb2
from gramlet.transport.channel import REQUEST_ID, Metadata
from gramlet.transport.connection import call_metadata
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.runtime.incoming import run_named_in
from gramlet_server.runtime.logs import JsonFormatter, TextFormatter
from gramlet_server.runtime.metrics import Metrics
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.e2e.cluster import wait_until
from tests.runs.kinds import NUMBERS

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
CALLS = "gramlet_server.calls"


def is_serving(channel: grpc.Channel) -> bool:
    health: Any = health_pb2_grpc.HealthStub(channel)
    status: int = health.Check(health_pb2.HealthCheckRequest()).status
    return status == health_pb2.HealthCheckResponse.SERVING


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


class Gate:
    """Work that waits until the test opens the gate."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.entered.release()
        assert self.open.wait(30)
        return request


# --- request ids ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_request_id_comes_back(serving: Any, kind: str) -> None:
    with serving() as running:
        responses, call = running.call(kind, metadata=(("x-request-id", "mine-1"),))
    assert responses[-1] == b"hello"
    assert ("x-request-id", "mine-1") in [tuple(pair) for pair in call.trailing_metadata()]


@pytest.mark.parametrize("sent", [(), (("x-request-id", "x" * 200),), (("x-request-id", "two words"),)])
def test_a_request_without_a_usable_id_gets_one(serving: Any, sent: tuple[tuple[str, str], ...]) -> None:
    with serving() as running:
        ids = [dict(running.call("unary_unary", metadata=sent)[1].trailing_metadata())["x-request-id"] for _ in "ab"]
    assert ids[0] != ids[1]
    assert all(len(made) == 32 for made in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_to_other_servers_carry_the_id_of_the_call(serving: Any, kind: str, tmp_path: Path) -> None:
    sent: list[Metadata] = []
    store = Store.open(str(tmp_path))
    lifecycle = Lifecycle(Records(store), 1, 0)

    def work() -> Generator[int, None, None]:
        sent.append(call_metadata(None))
        yield 1

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        list(lifecycle.start(lambda: Work(Run.create(store, "train"), NUMBERS, work)))
        return request

    with serving() as running:
        running.echo.answer = answer
        running.call(kind, metadata=(("x-request-id", "mine"),))
    assert set(sent) == {(("x-request-id", "mine"),)}
    assert call_metadata(None) == ()


# --- logs and metrics ---


def test_every_call_is_one_line_of_the_log(serving: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, CALLS)
    with serving() as running:
        running.call("unary_stream")
        running.call("unary_unary")
    lines = [record for record in caplog.records if record.name == CALLS]
    assert [(line.fields["method"], line.fields["code"]) for line in lines] == [  # type: ignore[attr-defined]
        ("/test.Echo/unary_stream", "OK"),
        ("/test.Echo/unary_unary", "OK"),
    ]
    assert not any("reason" in line.fields for line in lines)  # type: ignore[attr-defined]
    assert lines[0].fields["peer"].startswith("ipv4:127.0.0.1")  # type: ignore[attr-defined]


def test_a_failed_call_is_one_structured_line_with_its_reason_run_and_caller(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, CALLS)

    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise NotFound("there is no\nsuch thing", field="thing")

    with serving() as running:
        running.echo.answer = fail
        with pytest.raises(grpc.RpcError):
            running.call("unary_unary", metadata=[(REQUEST_ID, "this-one")])
    (line,) = [record for record in caplog.records if record.name == CALLS]
    wanted = {"code": "NOT_FOUND", "reason": "there is no such thing", "field": "thing", "request_id": "this-one"}
    assert wanted.items() <= line.fields.items()  # type: ignore[attr-defined]
    assert "NOT_FOUND" in line.getMessage()
    assert line.getMessage().endswith("thing: there is no such thing")


@pytest.mark.parametrize(
    ("request_message", "run"),
    [
        (stylize_pb2.StylizeRequest(run_id="new"), "new"),
        (stylize_pb2.StylizeRequest(resume_run_id="old"), "old"),
        (train_pb2.TrainRequest(configuration=train_pb2.Configuration(run_id="training")), "training"),
        (embed_pb2.EmbedRequest(start=embed_pb2.EmbedRequest.Start(watch_map_id="map")), "map"),
        (run_pb2.StopRunRequest(run_id="stopped"), "stopped"),
        (feature_pb2.DescendRequest(start=feature_pb2.DescendRequest.Start()), ""),
        (b"bytes", ""),
    ],
)
def test_the_log_knows_the_run_that_a_request_names(request_message: Any, run: str) -> None:
    assert run_named_in(request_message) == run


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_log_lines_carry_the_request_id(serving: Any, formatter: logging.Formatter) -> None:
    written = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        logging.getLogger("gramlet_server.somewhere").warning("at work")
        return request

    handler = Written()
    handler.setFormatter(formatter)
    logging.getLogger("gramlet_server").addHandler(handler)
    try:
        with serving() as running:
            running.echo.answer = answer
            running.call("stream_stream", metadata=(("x-request-id", "mine"),))
    finally:
        logging.getLogger("gramlet_server").removeHandler(handler)
    (line,) = [line for line in written if "at work" in line]
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["request_id"] == "mine"
    else:
        assert line.endswith("WARNING gramlet_server.somewhere: at work [mine]")


def test_json_lines_hold_fields_and_tracebacks() -> None:
    record = logging.LogRecord("name", logging.INFO, "", 0, "said %s", ("this",), None)
    record.fields = {"code": "OK"}
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["code"], entry["level"]) == ("said this", "OK", "INFO")
    assert "traceback" not in entry


def test_calls_are_counted_by_method_and_code(serving: Any) -> None:
    metrics = Metrics()
    method = "/test.Echo/unary_unary"
    gate = Gate()
    with serving(metrics=metrics) as running:
        running.call("unary_unary")
        running.echo.answer = gate.answer
        waiting = running.channel.unary_unary(method).future(b"")
        gate.entered.acquire()
        assert sample(metrics, "gramlet_requests_in_flight", method=method) == 1
        gate.open.set()
        waiting.result()
    assert sample(metrics, "gramlet_requests_total", method=method, code="OK") == 2
    assert sample(metrics, "gramlet_request_seconds_count", method=method) == 2
    assert sample(metrics, "gramlet_requests_in_flight", method=method) == 0


# --- cancellation ---


def test_cancelling_a_stream_closes_its_generator(serving: Any) -> None:
    metrics = Metrics()
    with serving(metrics=metrics) as running:
        call = running.channel.unary_stream("/test.Echo/endless")(b"again")
        assert next(call) == b"again"
        assert not running.echo.closed.is_set()
        call.cancel()
        assert running.echo.closed.wait(30)
    assert sample(metrics, "gramlet_requests_total", method="/test.Echo/endless", code="CANCELLED") == 1


def test_a_deadline_closes_the_generator_too(serving: Any) -> None:
    metrics = Metrics()
    with serving(metrics=metrics) as running:
        with pytest.raises(grpc.RpcError) as failure:
            for _ in running.channel.unary_stream("/test.Echo/endless")(b"again", timeout=0.3):
                pass
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert running.echo.closed.wait(30)
    codes = ("DEADLINE_EXCEEDED", "CANCELLED")  # whichever of its own clock and the client's reset comes first
    assert any(sample(metrics, "gramlet_requests_total", method="/test.Echo/endless", code=code) for code in codes)


def test_a_caller_that_goes_away_while_its_requests_are_read_is_no_error(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    hold = threading.Event()

    def requests() -> Any:
        yield b"one"
        hold.wait(30)

    with serving(metrics=metrics) as running:
        call = running.channel.stream_stream("/test.Echo/stream_stream")(requests())
        assert [next(call), next(call)] == [b"first", b"one"]
        call.cancel()
        # gRPC's server may see the end of the messages before it sees that the call was cancelled.
        counted = [{"method": "/test.Echo/stream_stream", "code": code} for code in ("CANCELLED", "OK")]
        wait_until(
            lambda: any(sample(metrics, "gramlet_requests_total", **each) == 1 for each in counted),
            what="the call is counted",
        )
        hold.set()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- tokens ---

TOKENS = ("first-token", "second-token")


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_token_opens_the_server(serving: Any, token: str, scheme: str) -> None:
    with serving(tokens=TOKENS) as running:
        assert running.call("unary_unary", metadata=(("authorization", f"{scheme} {token}"),))[0] == [b"hello"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sent", [None, "", "first-token", "Bearer", "Bearer wrong", "Bearer first", "Basic first-token"]
)
def test_without_a_token_every_call_is_refused(serving: Any, kind: str, sent: str | None) -> None:
    metadata = () if sent is None else (("authorization", sent),)
    with serving(tokens=TOKENS) as running, pytest.raises(grpc.RpcError) as failure:
        running.call(kind, metadata=metadata)
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "first-token" not in failure.value.details()


def test_health_needs_no_token_and_reflection_does(serving: Any) -> None:
    with serving(tokens=TOKENS) as running:
        assert is_serving(running.channel)
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as failure:
            list(stub.ServerReflectionInfo(iter([request])))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED


# --- admission ---


@pytest.mark.parametrize("kind", KINDS)
def test_calls_above_the_limit_are_refused_before_any_work(serving: Any, kind: str) -> None:
    gate = Gate()
    with serving(max_calls=2) as running:
        running.echo.answer = gate.answer
        under_way = [running.channel.unary_unary("/test.Echo/unary_unary").future(b"") for _ in range(2)]
        for _ in under_way:
            gate.entered.acquire()
        with pytest.raises(grpc.RpcError) as failure:
            running.call(kind)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "google.rpc.RetryInfo" in str(rpc_status.from_call(failure.value))
        assert not gate.entered.acquire(blocking=False)
        assert is_serving(running.channel)
        gate.open.set()
        assert [call.result() for call in under_way] == [b"", b""]
        assert running.call(kind)[0][-1] == b"hello"


def test_a_cancelled_stream_no_longer_counts_as_running(serving: Any) -> None:
    with serving(max_calls=1) as running:
        for _ in range(3):
            running.echo.closed.clear()
            call = running.channel.unary_stream("/test.Echo/endless")(b"again", wait_for_ready=True)
            assert next(call) == b"again"
            call.cancel()
            assert running.echo.closed.wait(30)
            assert running.server.admission.wait_until_idle(30)

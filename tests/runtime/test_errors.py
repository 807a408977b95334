from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from gramlet.errors import BY_CODE, GramletError, InvalidInput, Overloaded, Unavailable
from grpc_status import rpc_status

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest.fixture(scope="module")
def running(serving: Any) -> Iterator[Any]:
    with serving() as running:
        yield running


CALLS = "gramlet_server.calls"


def fail_with(running: Any, error: Exception) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise error

    running.echo.answer = answer


def failed_call(running: Any, kind: str, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as failure:
        running.call(kind, **options)
    return failure.value


def details(failed: Any) -> dict[str, Any]:
    """The google.rpc details of a failed call, by message name."""
    found = {}
    for packed in rpc_status.from_call(failed).details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        packed.Unpack(found[name])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", BY_CODE.values(), ids=lambda error: error.__name__)
def test_every_error_reaches_the_caller_as_its_code_with_details(
    running: Any, kind: str, error: type[GramletError]
) -> None:
    fail_with(running, error("what is wrong and how to fix it"))
    failed = failed_call(running, kind, metadata=(("x-request-id", "mine"),))
    assert failed.code().value[0] == error.code
    assert failed.details() == "what is wrong and how to fix it"
    found = details(failed)
    assert found["ErrorInfo"].domain == "gramlet"
    assert found["ErrorInfo"].reason.replace("_", "").lower() == error.__name__.lower()
    assert found["RequestInfo"].request_id == "mine"
    assert dict(failed.trailing_metadata())["x-request-id"] == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_input_names_the_field(running: Any, kind: str) -> None:
    fail_with(running, InvalidInput("is no picture", field="pictures[3].encoded"))
    failed = failed_call(running, kind)
    assert failed.details() == "pictures[3].encoded: is no picture"
    (violation,) = details(failed)["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("pictures[3].encoded", "is no picture")


@pytest.mark.parametrize("error", [Overloaded, Unavailable])
def test_the_caller_learns_when_to_try_again(running: Any, error: type[GramletError]) -> None:
    fail_with(running, error("later", retry_after=1.5))
    assert details(failed_call(running, "unary_unary"))["RetryInfo"].retry_delay.ToMilliseconds() == 1500


def test_an_error_without_field_or_delay_has_no_such_details(running: Any) -> None:
    fail_with(running, Unavailable("gone"))
    assert set(details(failed_call(running, "unary_unary"))) == {"ErrorInfo", "RequestInfo"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bug_shows_the_caller_the_request_id_and_the_log_the_traceback(
    running: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    fail_with(running, ZeroDivisionError("secret of the house"))
    failed = failed_call(running, kind, metadata=(("x-request-id", "mine"),))
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert "mine" in failed.details()
    assert "secret" not in failed.details()
    assert details(failed)["RequestInfo"].request_id == "mine"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelno == logging.ERROR
    assert record.fields["reason"] == "ZeroDivisionError: secret of the house"  # type: ignore[attr-defined]
    assert f"/test.Echo/{kind}" in record.getMessage()


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_call_is_one_log_line_with_code_reason_field_and_request_id(
    serving: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, CALLS)
    with serving() as running:  # its end waits for the calls, and so for their log lines
        fail_with(running, InvalidInput("is no\npicture", field="pictures[3].encoded"))
        failed_call(running, kind, metadata=(("x-request-id", "mine"),))
    (record,) = [record for record in caplog.records if record.name == CALLS]
    fields = record.fields  # type: ignore[attr-defined]
    assert fields["method"] == f"/test.Echo/{kind}"
    assert fields["code"] == "INVALID_ARGUMENT"
    assert fields["reason"] == "is no picture"
    assert fields["field"] == "pictures[3].encoded"
    assert fields["request_id"] == "mine"
    assert record.getMessage().endswith(" pictures[3].encoded: is no picture")
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_responses_before_the_error_arrive(running: Any, kind: str) -> None:
    fail_with(running, InvalidInput("no"))
    call = getattr(running.channel, kind)(f"/test.Echo/{kind}")(iter([b""]) if kind == "stream_stream" else b"")
    assert next(call) == b"first"
    with pytest.raises(grpc.RpcError) as failure:
        next(call)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_message_are_invalid_input(running: Any) -> None:
    typed = running.channel.unary_unary("/test.Echo/typed")
    with pytest.raises(grpc.RpcError) as failure:
        typed(b"\xff\xff\xff")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ErrorInfo" in details(failure.value)
    assert typed(b"\x08\x07") == b"7"


def test_a_message_of_any_length_and_script_arrives(running: Any) -> None:
    fail_with(running, InvalidInput("größer als 1 €\n" * 1000, field="größe"))
    failed = failed_call(running, "unary_unary")
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.details().startswith("größe: größer als 1 €")


def test_the_request_id_of_another_server_is_in_the_details(running: Any) -> None:
    fail_with(running, Unavailable("lost the features", request_id="theirs"))
    assert details(failed_call(running, "unary_unary"))["RequestInfo"].serving_data == "theirs"

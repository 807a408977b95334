"""A failed call as gRPC reports it, turned into the error of `gramlet.errors` that the server raised.

The class comes from the status code by the table `errors.BY_CODE`; field, retry delay and request id come from the
google.rpc details. A status without details was made by the transport (no server listens, the connection broke, the
message is too large) and gets a message that says what to do.
"""

from __future__ import annotations

from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gramlet.errors import (
    GramletError,
    InvalidInput,
    OtherWeights,
    Unavailable,
    Unimplemented,
    error_class,
    reason_of,
)
from gramlet.transport.channel import proxy_of, with_port

_BY_REASON: dict[str, type[GramletError]] = {reason_of(OtherWeights): OtherWeights}
"""Errors that share their status code with another one, by the reason in ErrorInfo."""
_DETAILS = "grpc-status-details-bin"
_LONGEST_RETRY = 3600.0
_REQUEST_ID = "x-request-id"
_NEVER_CONNECTED = ("failed to connect", "all backends failing", "resolution failed", "errors resolving")
# A proxy or a dying server resets the stream; gRPC calls that an internal or unknown error. The last one is what
# asyncio reports where the server ended the call while a message was being sent: the server's own status is lost then,
# and the next attempt receives it (https://github.com/grpc/grpc/issues/36066).
_BROKEN_STREAM = (
    "RST_STREAM",
    "Stream removed",
    "GOAWAY",
    "Connection reset",
    "Socket closed",
    "Internal error from Core",
    "exceeded request buffer limit while retrying",  # Envoy: a replica was lost in the middle of a long stream
)
_UNREADY = "backend unhealthy"  # by grpc.health.v1, to the balancer, which reports no other reason
_CANCELLED_HERE = ("ancelled by application", "hannel closed", "hannel is closed")


class FailedCall(Protocol):
    """What the synchronous and the asynchronous RpcError have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Any: ...


def decode_rpc_error(failed: FailedCall, address: str, call: str = "this call", *, tls: bool = False) -> GramletError:
    """The error that the server raised, or that the transport ran into.

    Args:
        failed: The RpcError.
        address: Where the call went, for the message.
        call: What was called, for the message.
        tls: Whether the call spoke TLS.
    """
    metadata = dict(failed.trailing_metadata() or ())
    code, message = failed.code(), failed.details() or ""
    if _DETAILS in metadata:
        return _decode_details(code, message, metadata[_DETAILS])
    error = _transport_error(code, message, with_port(address), call, tls)
    error.request_id = metadata.get(_REQUEST_ID, "")
    return error


def _decode_details(code: grpc.StatusCode, message: str, details: bytes) -> GramletError:
    field, retry_after, request_id, kind = "", None, "", _class_of(code)
    violation = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    request = error_details_pb2.RequestInfo()
    info = error_details_pb2.ErrorInfo()
    try:
        status = status_pb2.Status.FromString(details)
    except DecodeError:  # not of a server of gramlet: code and message say what there is
        return _class_of(code)(message)
    for detail in status.details:
        if detail.Unpack(violation) and violation.field_violations:
            field, message = violation.field_violations[0].field, violation.field_violations[0].description
        elif detail.Unpack(retry):
            retry_after = min(max(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9, 0.0), _LONGEST_RETRY)
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(info):
            kind = _BY_REASON.get(info.reason, kind)
    return kind(message, field=field, retry_after=retry_after, request_id=request_id)


def shows_a_server(failed: FailedCall) -> bool:
    """Whether a failed call shows that there is a server: even a broken stream does, and one that is not ready."""
    message = failed.details() or ""
    is_broken = _mentions(message, _BROKEN_STREAM) and not _mentions(message, _NEVER_CONNECTED)
    return failed.code() is not grpc.StatusCode.UNAVAILABLE or _UNREADY in message or is_broken


def answers(failed: FailedCall) -> bool:
    """Whether a server has answered a failed call in time."""
    return shows_a_server(failed) and failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def _class_of(code: grpc.StatusCode) -> type[GramletError]:
    return error_class(code.value[0])


def _transport_error(code: grpc.StatusCode, message: str, address: str, call: str, tls: bool) -> GramletError:
    if code is grpc.StatusCode.UNAVAILABLE and _UNREADY in message:
        return Unavailable(f"no server at {address} is ready: they are loading, shutting down, or lack what they need")
    if code is grpc.StatusCode.UNAVAILABLE and _mentions(message, _NEVER_CONNECTED):
        return Unavailable(_nobody_answers(message, address, tls))
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and _mentions(message, _BROKEN_STREAM):
        return Unavailable(f"the connection to {address} broke: {message}")
    if code is grpc.StatusCode.CANCELLED and not _mentions(message, _CANCELLED_HERE):
        return Unavailable(f"the server at {address} dropped the call: it is probably shutting down")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"lost the server at {address}: {message}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return InvalidInput(f"{message}: send smaller pictures, or ask for fewer stages or a smaller size at once")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        advice = "its service may have an address of its own; `gramlet status` shows what there is at this one"
        return Unimplemented(f"the server at {address} does not offer {call} ({message.rstrip('!')}): {advice}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _class_of(code)(f"{address} took longer than the timeout: allow more, or ask for less")
    return _class_of(code)(message)


def _mentions(message: str, signs: tuple[str, ...]) -> bool:
    return any(sign in message for sign in signs)


def _nobody_answers(message: str, address: str, tls: bool = False) -> str:
    # gRPC names every address and layer; the last part says why.
    reason = message.removesuffix(": OK").rsplit(": ", 1)[-1].strip("[]").removesuffix(" (111)")
    if "Hostname Verification" in message:
        return f"no TLS with {address}: its certificate is for another name than this one"
    if "handshake" in message.lower():
        return (
            f"no TLS with {address} ({reason}): leave out tls=, or --tls, if it speaks plaintext; otherwise, did the "
            "given authority sign its certificate?"
        )
    if proxy := proxy_of(address):
        return (
            f"no way to {address} through the proxy {proxy.url} ({reason}), which {proxy.variable} names: unset it, or "
            "list the host in no_proxy"
        )
    if tls:  # of several addresses of a name, gRPC reports only one: another may have answered, in plaintext
        return f"no server at {address} that speaks TLS ({reason}): leave out tls=, or --tls, if it speaks plaintext"
    if "Socket closed" in reason:  # something accepted the connection
        return f"no server of gramlet at {address}, or one that wants TLS ({reason}): give tls=, or --tls, if it does"
    return f"no server at {address} ({reason}): start one with `gramlet-server all`, or name another address"

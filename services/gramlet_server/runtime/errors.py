"""The one place that turns errors into status codes with google.rpc details, and logs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from gramlet.errors import GramletError, InternalError, OtherWeights, reason_of
from gramlet.transport.channel import REQUEST_ID
from grpc_status import rpc_status

from gramlet_server.runtime.calls import Call

DOMAIN = "gramlet"

# A message is sent twice, as text and in the details, and gRPC limits all metadata of a reply to 8 KiB.
_MESSAGE_LENGTH = 1024

# Tells a proxy that another replica may be able to do this; docker/envoy.yaml tries one.
_ELSEWHERE = (("x-gramlet-elsewhere", "1"),)


@contextmanager
def translated(call: Call) -> Iterator[None]:
    """A layer that ends a call with the status of the exception raised inside, for unary calls and streams alike.

    A GramletError becomes its own code with details. Anything else is a bug: the caller gets INTERNAL with the request
    id and no details; the traceback is logged under the same id.
    """
    try:
        yield
    except GramletError as error:
        _abort(call, error)
    except grpc.RpcError as error:
        # Usually the requests of a call whose caller is gone were being read. Nobody is left to answer then.
        if call.context.is_active():
            _abort(call, _internal(call), bug=error)
        abort(call.context, grpc.StatusCode.CANCELLED, "the caller left")
    except Exception as error:
        _abort(call, _internal(call), bug=error)


def status_of(error: GramletError, request_id: str) -> Status:
    """The google.rpc.Status of an error, with its details."""
    status = Status(code=error.code, message=str(error)[:_MESSAGE_LENGTH])
    for detail in _details(error, request_id):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: GramletError, request_id: str) -> Iterator[Message]:
    yield ErrorInfo(reason=reason_of(type(error)), domain=DOMAIN)
    # An error of another server brings the id under which that server logged it.
    yield RequestInfo(request_id=request_id, serving_data=error.request_id)
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=error.message[:_MESSAGE_LENGTH])
        yield BadRequest(field_violations=[violation])
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        yield RetryInfo(retry_delay=delay)


def _internal(call: Call) -> InternalError:
    return InternalError(f"internal error; the server's log has it under request id {call.request_id}")


def _abort(call: Call, error: GramletError, bug: Exception | None = None) -> Never:
    call.error = error
    status = rpc_status.to_status(status_of(error, call.request_id))
    call.log(status.code, bug)
    # The details are sent as trailing metadata, and setting that replaces what was set before.
    metadata = (*status.trailing_metadata, (REQUEST_ID, call.request_id))
    call.context.set_trailing_metadata((*metadata, *(_ELSEWHERE if isinstance(error, OtherWeights) else ())))
    abort(call.context, status.code, status.details)


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> Never:
    """Ends a call for which an exception is being handled.

    The call and gRPC refer to the exception, and its traceback refers to them. Without the traceback the call leaves no
    cycle: what it holds is freed at once, and the garbage collector, for which all threads wait, has less to do.
    """
    error = sys.exception()
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
    context.abort(code, message)

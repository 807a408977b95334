"""Everything that can go wrong, at either end of the wire.

GramletError
├── InvalidInput          INVALID_ARGUMENT     the request is at fault: `field` says where
├── NotFound              NOT_FOUND
├── AlreadyExists         ALREADY_EXISTS
├── FailedPrecondition    FAILED_PRECONDITION  right request, wrong state: other weights, a run owned elsewhere
├── Unauthenticated       UNAUTHENTICATED
├── PermissionDenied      PERMISSION_DENIED
├── Overloaded            RESOURCE_EXHAUSTED   try again after `retry_after` seconds
├── Unavailable           UNAVAILABLE          nobody answers, or the server is going away
├── DeadlineExceeded      DEADLINE_EXCEEDED
├── Cancelled             CANCELLED
├── Aborted               ABORTED              lost a race: another writer was first
├── Unimplemented         UNIMPLEMENTED        the server does not offer this call
└── InternalError         INTERNAL             a bug in gramlet

The server raises these in its domain code, the wire carries code, message and details, and the SDK raises the same
class again: a caller of the in-process engine and a caller three hops away see one error.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class GramletError(Exception):
    """Base of every error of gramlet.

    Attributes:
        message: What is wrong and how to mend it, in one line.
        code: The gRPC status code of the class.
        field: The field of the request that is at fault, such as `pictures[3].encoded`; empty if none is.
        retry_after: Seconds after which the same call may succeed, where the server said so.
        request_id: The id under which the server logged the call, where there was one.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidInput(GramletError):
    """The request is at fault. Sending it again changes nothing."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(GramletError):
    """There is no such run, head, map or file."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(GramletError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(GramletError):
    """The request is right but the state is not: other weights, for instance."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unauthenticated(GramletError):
    """The server wants a token that was not sent, or not this one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(GramletError):
    """The server knows the caller and refuses."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Overloaded(GramletError):
    """A queue is full. Nothing was done; try again after `retry_after` seconds."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(GramletError):
    """Nobody answers at the address, or the server is shutting down."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(GramletError):
    """The caller's time was up."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(GramletError):
    """The caller cancelled."""

    code = grpc.StatusCode.CANCELLED


class Aborted(GramletError):
    """Another writer was first."""

    code = grpc.StatusCode.ABORTED


class Unimplemented(GramletError):
    """The server does not offer this call: another service, or an older release."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(GramletError):
    """A bug in gramlet. The request id finds the traceback in the server's log."""

    code = grpc.StatusCode.INTERNAL


BY_CODE: dict[grpc.StatusCode, type[GramletError]] = {
    error.code: error
    for error in (
        InvalidInput,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Unauthenticated,
        PermissionDenied,
        Overloaded,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Aborted,
        Unimplemented,
        InternalError,
    )
}

"""Everything that can go wrong, at either end of the wire.

GramletError
├── InvalidInput          INVALID_ARGUMENT     the request is at fault: `field` says where
├── NotFound              NOT_FOUND
├── AlreadyExists         ALREADY_EXISTS
├── FailedPrecondition    FAILED_PRECONDITION  right request, wrong state: other weights, a closed client
├── Unauthenticated       UNAUTHENTICATED
├── PermissionDenied      PERMISSION_DENIED
├── Overloaded            RESOURCE_EXHAUSTED   try again after `retry_after` seconds
├── Unavailable           UNAVAILABLE          no server answers, or the server is shutting down
├── DeadlineExceeded      DEADLINE_EXCEEDED
├── Cancelled             CANCELLED
├── Aborted               ABORTED              lost a race: another writer was first
├── Unimplemented         UNIMPLEMENTED        the server does not offer this call
└── InternalError         INTERNAL             a bug in gramlet

The server raises these in its domain code, the status of the call carries code, message and details, and the SDK raises
the same class again (`gramlet.transport.failures`): a caller in the same process and a caller three hops away see one
error.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The status codes of gRPC under their usual names and numbers (google.rpc.Code)."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class GramletError(Exception):
    """Base of every error of gramlet.

    Attributes:
        message: What is wrong and how to correct it, in one line.
        code: The gRPC status code of the class.
        field: The field of the request that is at fault, such as `pictures[3].encoded`; empty if none is.
        retry_after: Seconds after which the same call may succeed, where the server said so.
        request_id: The id under which the server logged the call, where there was one.
    """

    code: ClassVar[Code] = Code.UNKNOWN

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

    code = Code.INVALID_ARGUMENT


class NotFound(GramletError):
    """There is no such run, head, map or file."""

    code = Code.NOT_FOUND


class AlreadyExists(GramletError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(GramletError):
    """The request is right but the state is not: other weights, or a client that is closed."""

    code = Code.FAILED_PRECONDITION


class Unauthenticated(GramletError):
    """The server wants a token that was not sent, or not this one."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(GramletError):
    """The server knows the caller and refuses."""

    code = Code.PERMISSION_DENIED


class Overloaded(GramletError):
    """A queue is full. Nothing was done; try again after `retry_after` seconds."""

    code = Code.RESOURCE_EXHAUSTED


class Unavailable(GramletError):
    """No server answers at the address, or the server is shutting down."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(GramletError):
    """The call took longer than its timeout."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(GramletError):
    """The caller cancelled."""

    code = Code.CANCELLED


class Aborted(GramletError):
    """Another writer was first."""

    code = Code.ABORTED


class Unimplemented(GramletError):
    """The server does not offer this call: another service, or an older release."""

    code = Code.UNIMPLEMENTED


class InternalError(GramletError):
    """A bug in gramlet. The request id finds the traceback in the server's log."""

    code = Code.INTERNAL

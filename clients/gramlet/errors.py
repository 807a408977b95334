"""Everything that can go wrong, at either end of the wire.

GramletError
├── InvalidInput          INVALID_ARGUMENT     the request is at fault: `field` says where
│   └── InvalidCall                            a TypeError too: no such argument, one that is missing, a copied client
├── NotFound              NOT_FOUND
├── AlreadyExists         ALREADY_EXISTS
├── FailedPrecondition    FAILED_PRECONDITION  right request, wrong state: a closed client, a run that is done
│   └── OtherWeights                           no network with the weights that are wanted
├── Unauthenticated       UNAUTHENTICATED
├── PermissionDenied      PERMISSION_DENIED
├── Overloaded            RESOURCE_EXHAUSTED   try again after `retry_after` seconds
├── Unavailable           UNAVAILABLE          no server answers, or the server is shutting down
├── DeadlineExceeded      DEADLINE_EXCEEDED
├── Cancelled             CANCELLED
├── Aborted               ABORTED              lost a race: another writer was first
├── Unimplemented         UNIMPLEMENTED        the server does not offer this call
├── DataLoss              DATA_LOSS            what the server has stored is damaged
└── InternalError         INTERNAL             a bug in gramlet

The server raises these in its domain code, the status of the call carries code, message and details, and the SDK raises
the same class again (`gramlet.transport.failures`): a caller in the same process and a caller three hops away see one
error.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar

_SHOWN_CHARACTERS = 300
_LIKENESS = 0.65  # of 0 to 1, of a name that may be meant
_CONTROLS = {"Cc", "Zl", "Zp"}  # control, separators of lines and paragraphs
_NOT_PRINTED = _CONTROLS | {"Cf", "Cs"}  # format, surrogate
_JOINERS = {"\u200c", "\u200d"}  # parts of words and of emoji


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
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def as_utf8(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are not UTF-8 become escapes such as \\xe9."""
    return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def plain(text: str) -> str:
    """Text that a server takes as a name or a label: also control characters and line breaks become escapes."""
    return "".join(_escaped(c) if is_control(c) else c for c in as_utf8(text))


def is_control(character: str) -> bool:
    """Whether a character is a control character, NUL included, or ends a line or a paragraph."""
    return unicodedata.category(character) in _CONTROLS


def printable(text: str) -> str:
    """Text for a line of a terminal: control characters, such as those of colors, and line breaks become escapes."""
    return "".join(_escaped(c) if unicodedata.category(c) in _NOT_PRINTED and c not in _JOINERS else c for c in text)


def shown(value: Any) -> str:
    """A value in an error: text as it is, other values as Python writes them; short, on one line."""
    try:
        text = value if isinstance(value, str) else reprlib.repr(value)
    except Exception:  # such as a number of more digits than Python writes
        return f"a value of type {type(value).__name__}"
    return printable(text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}...")


def quoted(text: str) -> str:
    """Text of a caller in quotes, for a sentence. Escapes in it, such as those of `as_utf8`, stay as they are."""
    return f"'{shown(text)}'"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 mask`, `2 masks`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """`: did you mean 'layer1'?`, or nothing where no known name is like the wrong one."""
    near = difflib.get_close_matches(wrong, list(known), 1, _LIKENESS) if isinstance(wrong, str) else []
    return f": did you mean {near[0]!r}?" if near else ""


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # PEP 383: a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if 0xD800 <= number <= 0xDFFF else character.encode("unicode_escape").decode()


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


def reason_of(kind: type[GramletError]) -> str:
    """The name of an error in google.rpc.ErrorInfo: `INVALID_INPUT` of InvalidInput."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


class InvalidInput(GramletError):
    """The request is at fault. Sending it again changes nothing."""

    code = Code.INVALID_ARGUMENT


class InvalidCall(InvalidInput, TypeError):
    """Something that Python answers with a TypeError.

    A method was called with an argument that it does not have, or without one that it needs; or a client, or what a
    client returned, was pickled or copied.
    """


class NotFound(GramletError):
    """There is no such run, head, map or file."""

    code = Code.NOT_FOUND


class AlreadyExists(GramletError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(GramletError):
    """The request is right but the state is not: other weights, or a client that is closed."""

    code = Code.FAILED_PRECONDITION


class OtherWeights(FailedPrecondition):
    """The network has other weights than the caller wants. Nothing was done; another replica may have them."""


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


class DataLoss(GramletError):
    """What the server has stored is damaged: its operator has to restore or delete it."""

    code = Code.DATA_LOSS


class InternalError(GramletError):
    """A bug in gramlet. The request id finds the traceback in the server's log."""

    code = Code.INTERNAL


BY_CODE: Mapping[Code, type[GramletError]] = {kind.code: kind for kind in GramletError.__subclasses__()}
"""The error of each status code: every class directly below GramletError has a code of its own."""


def error_class(number: int) -> type[GramletError]:
    """The error for a status code that is given as its number; InternalError for any that is not in the table."""
    return next((kind for code, kind in BY_CODE.items() if code == number), InternalError)

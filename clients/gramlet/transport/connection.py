"""What the synchronous and the asynchronous connection have in common, and the attempts of one call."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, cast

import grpc

from gramlet.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    GramletError,
    InternalError,
    InvalidCall,
    InvalidInput,
    OtherWeights,
    shown,
)
from gramlet.inputs.values import seconds
from gramlet.transport.channel import (
    ON_BEHALF_OF,
    REQUEST_ID,
    Endpoint,
    Metadata,
    Target,
    on_behalf_of,
    request_id,
)
from gramlet.transport.failures import FailedCall, decode_rpc_error, shows_a_server
from gramlet.transport.fields import keyword_of
from gramlet.transport.retry import RetryPolicy
from gramlet.transport.rpc import Message, Rpc

_REPETITIONS = 250_000
"""More than the iterations that a run repeats after its server was lost, and than the signs of a run of a month."""

LOOK_SECONDS = 1.0
"""How long to look for servers that are not ready."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Alone:
    """Lets one thread or task at a time use something that has a state, and refuses a second one.

    The same one may begin again. It does when Ctrl-C has come before the end of its use could be noted, or after its
    begin was: what it then closes has to close.

    Args:
        what: What it uses, and what to do instead, for the error.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._user: object = None

    def __enter__(self) -> None:
        user = _current_task() or threading.current_thread()
        with self._lock:
            if self._user not in (None, user):
                raise FailedPrecondition(f"another thread or task is using {self._what}")
            self._user = user

    def __exit__(self, *_: object) -> None:
        self._user = None


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


EVENTS = "these events: let one read them, and hand them on by a queue"
"""What `Alone` says of an iterator."""


class OfOneProcess:
    """Base of what holds a connection, which no other process can have: pickling and copying it are refused.

    So multiprocessing, joblib and the workers of data loaders say what to do, where they would name a lock of gRPC.
    """

    def __getstate__(self) -> Any:
        """Refuses.

        Raises:
            InvalidCall: Always. It is a TypeError, as Python raises for what cannot be pickled.
        """
        raise InvalidCall(
            "a client, or what it returned to be read later, cannot be pickled or copied, since it holds a connection:"
            " make a client in each process"
        )


class Contact:
    """Whether a server has ever answered this client. Shared by all calls of a client."""

    def __init__(self) -> None:
        self.made = False


class Attempts:
    """The attempts of one call: counts them, knows the deadline, and decides by the policy."""

    def __init__(
        self,
        policy: RetryPolicy,
        contact: Contact,
        timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._contact = contact
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._lost_since: float | None = None
        self._failures = 0
        self._answered_in_vain = False
        self._fruitless = 0
        self._elsewhere = 0
        self._repeated = 0

    def remaining(self, otherwise: float | None = None) -> float | None:
        """Seconds until the deadline, for the next attempt; `otherwise` without one.

        Raises:
            DeadlineExceeded: There are none left.
        """
        if self._deadline is None:
            return otherwise
        remaining = self._deadline - self._clock()
        if remaining <= 0:
            raise DeadlineExceeded("the timeout is over: allow more, or ask for less")
        return remaining

    def answered(self, *, new: bool = True, queued: bool = False) -> None:
        """The server sent something.

        Args:
            new: It brought the call forward.
            queued: The call waits for its turn, so it is not to blame if the server is lost.

        Raises:
            InternalError: The server sends more and more that is not new.
        """
        self._contact.made = True
        self._lost_since = None
        self._answered_in_vain = not (new or queued)
        self._repeated = 0 if new else self._repeated + 1
        if self._repeated > _REPETITIONS:
            raise InternalError(f"the server has sent {_REPETITIONS:,} messages with nothing new in them")
        if new:
            self._failures = self._fruitless = self._elsewhere = 0

    def delay_after(self, error: GramletError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            GramletError: The error itself, where another attempt is pointless or patience is over.
        """
        now = self._clock()
        self._failures += 1
        self._elsewhere += isinstance(error, OtherWeights)
        # A request that kills every server it reaches must end, however fast the servers come back.
        self._fruitless += self._answered_in_vain
        self._answered_in_vain = False
        self._contact.made = self._contact.made or bool(error.request_id)
        if self._lost_since is None:
            self._lost_since = now
        delay = self._policy.delay(
            error,
            attempt=self._failures,
            elapsed=now - self._lost_since,
            remaining=None if self._deadline is None else self._deadline - now,
            contacted=self._contact.made,
            elsewhere=self._elsewhere,
        )
        if delay is None or self._fruitless > self._policy.fruitless:
            raise error from None
        return delay


class CallContext:
    """The request id and the name of the current context, for all that follows from one call.

    An iterator makes its calls while it is read, and by then the context may have others.

    Raises:
        InvalidInput: One of them cannot be sent.
    """

    def __init__(self) -> None:
        _request_id()
        _name()
        self._request_id, self._name = request_id.get(), on_behalf_of.get()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Has them as they were at the call."""
        for_id, for_name = request_id.set(self._request_id), on_behalf_of.set(self._name)
        try:
            yield
        finally:
            with suppress(ValueError):  # a reader that was dropped ends in another context
                on_behalf_of.reset(for_name)
                request_id.reset(for_id)


def call_metadata(token: str | None) -> Metadata:
    """The token, if any, and the request id and the name of the current context.

    Raises:
        InvalidInput: One of them cannot be sent.
    """
    found = {
        "authorization": f"Bearer {token}" if token else "",
        REQUEST_ID: _request_id(),
        ON_BEHALF_OF: _name(),
    }
    return tuple((name, value) for name, value in found.items() if value)


def _request_id() -> str:
    value = request_id.get()
    if value != "" and not (isinstance(value, str) and _REQUEST_ID.fullmatch(value)):
        raise InvalidInput(f"must be 1 to 128 visible ASCII characters, not {shown(value)}", field="request_id")
    return value


def _name() -> str:
    value = on_behalf_of.get()
    if value is None:
        return ""
    if not (isinstance(value, str) and _NAME.fullmatch(value)):
        kind = "must be 1 to 64 letters, digits, '-' or '_', or None for the token's own name"
        raise InvalidInput(f"{kind}, not {shown(value) or 'empty'}", field="on_behalf_of")
    return value


class BaseConnection(OfOneProcess):
    """A channel to an endpoint, and the methods of its services. Attribute `address`: where the server is.

    Raises:
        InvalidInput: The address cannot be understood, or the TLS files do not go together.
        NotFound: A TLS file does not exist.
        Unavailable: A name in a list of addresses is not known.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = endpoint.address
        self._token = endpoint.token
        self._speaks_tls = bool(endpoint.tls)
        self._target = Target.of(endpoint)
        self._contact = Contact()
        self._stubs: dict[Callable[[Any], Any], Any] = {}

    @property
    def channel(self) -> Any:
        """The open channel."""
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        raise NotImplementedError

    def unary(self, rpc: Rpc, request: Message, attempts: Attempts, metadata: Metadata = ()) -> Any:
        """Calls until the call succeeds, or the attempts are used up.

        Raises:
            GramletError: The last failure.
        """
        raise NotImplementedError

    def attempts(self, policy: RetryPolicy, timeout: float | None) -> Attempts:
        """The attempts of a new call.

        Raises:
            FailedPrecondition: The connection is closed.
        """
        self.check_open()
        return Attempts(policy, self._contact, timeout)

    def check_open(self) -> None:
        """Refuses every use of a closed connection.

        Raises:
            FailedPrecondition: The connection is closed.
        """
        if self.is_closed:
            raise FailedPrecondition(f"this client of {self.address} is closed: make a new one")

    @property
    def _looks_for_servers(self) -> bool:
        """Whether to ask if a server is there, before the next attempt. Of several, gRPC reports only one failure.

        One server may refuse connections while another one, which is worth waiting for, still loads.
        """
        return self._target.watched and not self._contact.made

    def _method(self, rpc: Rpc) -> Callable[..., Any]:
        channel = self.channel
        if rpc.stub not in self._stubs:
            self._stubs[rpc.stub] = rpc.stub(channel)
        method: Callable[..., Any] = getattr(self._stubs[rpc.stub], rpc.method)
        return method

    def _metadata(self, more: Metadata = ()) -> Metadata:
        return (*call_metadata(self._token), *more)

    def _failure(self, failed: grpc.RpcError, rpc: Rpc) -> GramletError:
        # Closing the connection ends its calls in several ways; all of them are the caller's doing.
        self.check_open()
        call = cast(FailedCall, failed)
        self._contact.made = self._contact.made or shows_a_server(call)
        error = decode_rpc_error(call, self.address, rpc.name, tls=self._speaks_tls)
        error.field = keyword_of(error.field, rpc)
        return error


C = TypeVar("C", bound=BaseConnection)


class Caller(OfOneProcess, Generic[C]):
    """Makes calls over a connection, with a timeout and patience of its own."""

    _connection: C
    _timeout: float | None
    _policy: RetryPolicy
    _weights_digest: str

    def _attempts(self, timeout: float | None) -> Attempts:
        chosen = self._timeout if timeout is None else seconds(timeout, "timeout")
        return self._connection.attempts(self._policy, chosen)

    def _unary(self, rpc: Rpc, request: Message, timeout: float | None) -> Any:
        """The reply; the asynchronous client must await it."""
        return self._connection.unary(rpc, request, self._attempts(timeout))

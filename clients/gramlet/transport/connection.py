"""What the synchronous and the asynchronous connection have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc

from gramlet.errors import FailedPrecondition, GramletError
from gramlet.transport.channel import REQUEST_ID, Endpoint, Metadata, Target, request_id
from gramlet.transport.failures import FailedCall, decode_rpc_error
from gramlet.transport.retry import Attempts, Contact, RetryPolicy
from gramlet.transport.rpc import Rpc


def call_metadata(token: str | None) -> Metadata:
    """The token, if any, and the request id of the current context."""
    found = {"authorization": f"Bearer {token}" if token else "", REQUEST_ID: request_id.get()}
    return tuple((name, value) for name, value in found.items() if value)


class BaseConnection:
    """A channel to an endpoint, and the methods of its services. Attribute `address`: where the server is.

    Raises:
        InvalidInput: The address cannot be understood, or the TLS files do not go together.
        NotFound: A TLS file does not exist.
        Unavailable: A name in a list of addresses is not known.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = endpoint.address
        self._token = endpoint.token
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

    def _method(self, rpc: Rpc) -> Callable[..., Any]:
        channel = self.channel
        if rpc.stub not in self._stubs:
            self._stubs[rpc.stub] = rpc.stub(channel)
        method: Callable[..., Any] = getattr(self._stubs[rpc.stub], rpc.method)
        return method

    def _metadata(self, more: Metadata = ()) -> Metadata:
        return (*call_metadata(self._token), *more)

    def _failure(self, failed: grpc.RpcError) -> GramletError:
        # Closing the connection ends its calls in several ways; all of them are the caller's doing.
        self.check_open()
        return decode_rpc_error(cast(FailedCall, failed), self.address)

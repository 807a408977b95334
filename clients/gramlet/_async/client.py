"""The client: its options, and the state of the server. Each service has a module beside this one with its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from gramlet._async.embed import AsyncEmbedCalls
from gramlet._async.feature import AsyncFeatureCalls
from gramlet._async.runs import AsyncRunCalls
from gramlet._async.stylize import AsyncStylizeCalls
from gramlet._async.sweep import AsyncSweepCalls
from gramlet._async.train import AsyncTrainCalls
from gramlet.embed.map_wire import LIST_MAPS, encode_list_maps
from gramlet.errors import GramletError, PermissionDenied
from gramlet.feature.wire import GET_MODEL, decode_model, encode_get_model
from gramlet.health import EMBED, FEATURE, SERVICES, STYLIZE, TRAIN, Health, ServerStatus, health_by_service
from gramlet.inputs.values import digest_or_any, seconds
from gramlet.signatures import checks_calls
from gramlet.stylize.wire import GET_STATUS, decode_status, encode_get_status
from gramlet.train.head_wire import LIST_HEADS, encode_list_heads
from gramlet.transport.aio import AsyncConnection, gather
from gramlet.transport.channel import Endpoint, chosen_address, chosen_token
from gramlet.transport.connection import Attempts
from gramlet.transport.health import CHECK, check_metadata, decode_health, encode_check
from gramlet.transport.retry import AT_ONCE, make_policy
from gramlet.transport.rpc import Message, Rpc
from gramlet.transport.tls import Tls

_CHEAPEST: dict[str, tuple[Rpc, Callable[[], Message]]] = {
    FEATURE: (GET_MODEL, encode_get_model),
    STYLIZE: (GET_STATUS, encode_get_status),
    TRAIN: (LIST_HEADS, lambda: encode_list_heads("")),
    EMBED: (LIST_MAPS, encode_list_maps),
}
"""A call of each service that does little."""
_WITH_STATE = FEATURE, STYLIZE
"""Services of which that call says how busy they are."""


@checks_calls
class AsyncClient(
    AsyncFeatureCalls, AsyncStylizeCalls, AsyncSweepCalls, AsyncTrainCalls, AsyncEmbedCalls, AsyncRunCalls
):
    """A gramlet server, or several of one kind.

        async with gramlet.AsyncClient("localhost:50051") as client:
            model = await client.model()

    Pictures are given as paths, bytes, PIL pictures or arrays everywhere. Failures are `gramlet.GramletError`s. A call
    that finds its server lost or busy is made again where that is safe, for `patience` seconds. A client belongs to the
    event loop in which it is first used.

    Args:
        address: `host:port`, `dns:///name:port`, or several addresses with commas between them. Calls are spread over
            the servers that a name or a list stands for; the names in a list are looked up once, now. Default: what
            the environment variable GRAMLET_SERVER names, or localhost:50051.
        token: Sent with every call. Use TLS with it. Default: that of the environment variable GRAMLET_TOKEN, if any;
            empty is none.
        tls: TLS with these files; True trusts the system's authorities; None is plaintext.
        timeout: Seconds that a call may take, repetitions included; None is no limit. Calls can have their own.
        patience: Seconds to wait for a lost server.
        first_contact: The same for a server that has never answered, where the address is likely wrong.
        weights_digest: The only network that may do what this client asks for, as `model()` reports it; None: any. Of
            several replicas, calls go on at one that has these weights; where there is none, they raise OtherWeights.

    Raises:
        InvalidInput: The address, the TLS files or the digest are wrong.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: Tls | bool | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
        first_contact: float = 2.0,
        weights_digest: str | None = None,
    ) -> None:
        self._connection = AsyncConnection(Endpoint(chosen_address(address), chosen_token(token), tls))
        self._timeout = seconds(timeout, "timeout")
        self._policy = make_policy(patience=patience, first_contact=first_contact)
        self._weights_digest = digest_or_any(weights_digest, "weights_digest")

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    def with_options(
        self,
        *,
        timeout: float | None = None,
        patience: float | None = None,
        first_contact: float | None = None,
        weights_digest: str | None = None,
    ) -> Self:
        """The same connection with another timeout or patience, or for another network; None leaves a value as it is.

        An empty digest stands for any network.
        """
        other = object.__new__(type(self))
        other._connection = self._connection
        other._timeout = self._timeout if timeout is None else seconds(timeout, "timeout")
        other._policy = make_policy(self._policy, patience=patience, first_contact=first_contact)
        wanted = digest_or_any(weights_digest, "weights_digest")
        other._weights_digest = self._weights_digest if weights_digest is None else wanted
        return other

    async def close(self) -> None:
        """Ends every call and closes the connection. Calls after that raise FailedPrecondition."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """The services that the server offers, their health, and how busy they are.

        Raises:
            Unavailable: No server answers.
        """
        asking = self.with_options(timeout=timeout, patience=AT_ONCE.patience)
        attempts = [asking._attempts(None) for _ in SERVICES]  # whose time runs from now on, even one after the other
        checks = zip(SERVICES, attempts, strict=True)
        answers = await gather(*[asking._health(service, each) for service, each in checks])
        health = health_by_service(dict(zip(SERVICES, answers, strict=True)))
        seen = {service: await asking._seen(service) for service in _WITH_STATE if health[service] is Health.SERVING}
        refusing = [service for service in SERVICES if health[service] is Health.NOT_SERVING]
        if None in seen.values():  # the token is not for all services: for which others?
            refusing += [service for service in SERVICES if health[service] is Health.SERVING and not seen.get(service)]
        model = decode_model(seen[FEATURE]) if seen.get(FEATURE) else None
        stylize = decode_status(seen[STYLIZE]) if seen.get(STYLIZE) else None
        reasons = await gather(*[asking._reason(service) for service in refusing])
        known = {service: reason for service, reason in zip(refusing, reasons, strict=True) if reason}
        return ServerStatus(self.address, health, model, stylize, known)

    async def _seen(self, service: str) -> Any:
        """The state of a service that serves; None if the token is not for it."""
        rpc, request = _CHEAPEST[service]
        try:
            return await self._unary(rpc, request(), None)
        except PermissionDenied:
            return None

    async def _reason(self, service: str) -> str:
        """Why a service does not serve: how it refuses its cheapest call."""
        rpc, request = _CHEAPEST[service]
        try:
            await self._unary(rpc, request(), None)
        except GramletError as error:
            return error.message
        return ""  # it serves by now

    async def _health(self, service: str, attempts: Attempts) -> Health | GramletError:
        metadata = check_metadata(service)
        try:
            return decode_health(await self._connection.unary(CHECK, encode_check(service), attempts, metadata))
        except GramletError as error:
            return error

"""Where a server is and how to speak to it: addresses, TLS, tokens, limits and balancing for gRPC.

One HTTP/2 connection stays with one replica for as long as it lives. To spread calls over replicas, give several
addresses or a `dns:///` name with several records (every channel balances them round robin), or one proxy.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import sys
import warnings
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import grpc.aio

from gramlet.errors import InvalidInput, Unavailable, shown
from gramlet.transport.tls import Tls, credentials_of

Metadata = tuple[tuple[str, str], ...]

REQUEST_ID = "x-request-id"

request_id: ContextVar[str] = ContextVar("gramlet_request_id", default="")
"""The id under which servers log the calls of this context: 1 to 128 visible ASCII characters. If it is empty, the
server chooses one for every call. A server passes its callers' ids on to the servers that it calls itself."""

ON_BEHALF_OF = "x-gramlet-on-behalf-of"

on_behalf_of: ContextVar[str | None] = ContextVar("gramlet_on_behalf_of", default=None)
"""The name for which the calls of this context are made: it owns what they make, and its limits count. 1 to 64 letters,
digits, "-" or "_". Servers accept it with tokens of the scope `on-behalf`. None is the token's own; an empty name is
refused. What counts is the name when a method is called, however late its iterator is read; a coroutine calls when it
is awaited."""

DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_PORT = 50051
MESSAGE_BYTES = 64 * 1024 * 1024

_CONFIG = "grpc.service_config"
_KEEPALIVE_MILLISECONDS = 30_000
_KEEPALIVE_TIMEOUT_MILLISECONDS = 10_000
_RECONNECT_MILLISECONDS = 100, 2_000  # first and longest wait between two attempts to connect
_CONNECT_MILLISECONDS = 5_000  # an attempt; something else than a server may accept it, and then say nothing

_PROXY, _NO_PROXY = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")  # in gRPC's order
_TARGET_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:")
_WEB_SCHEMES = ("http:", "https:", "grpc:", "grpcs:")

_TOKEN = re.compile(r"[\x21-\x7e]*")
_HOST = re.compile(r"[^\s\[\]/@?#\\,:]+")

# Unary calls that may be made twice. gRPC repeats them itself, at once and on another replica if there is one;
# `gramlet.transport.retry` repeats them after longer failures.
_IDEMPOTENT = {
    "gramlet.feature.v1.FeatureService": ("GetModel", "Extract"),
    "gramlet.stylize.v1.StylizeService": ("GetStatus",),
    "gramlet.train.v1.TrainService": ("Predict", "GetHead", "ListHeads"),
    "gramlet.embed.v1.EmbedService": ("GetMap", "ListMaps"),
    "gramlet.run.v1.RunService": ("ListRuns", "GetRun", "StopRun"),
}


def chosen_address(address: str | None) -> str:
    """The address of a server: the given one, that of GRAMLET_SERVER, or this machine's."""
    return os.environ.get("GRAMLET_SERVER") or DEFAULT_ADDRESS if address is None else address


def chosen_token(token: str | None) -> str | None:
    """The token to send: the given one, or that of GRAMLET_TOKEN. An empty one is none.

    Raises:
        InvalidInput: The variable holds something else than a token.
    """
    if token is not None:
        return token
    token = os.environ.get("GRAMLET_TOKEN", "").strip()
    if not _TOKEN.fullmatch(token):
        raise InvalidInput("a token is text of ASCII characters without spaces and line breaks", field="GRAMLET_TOKEN")
    return token or None


@dataclass(frozen=True)
class Endpoint:
    """A server and how to speak to it.

    Attributes:
        address: `host:port`, `dns:///name:port`, several addresses with commas between them, or another gRPC target.
        token: Sent with every call as `authorization: Bearer TOKEN`.
        tls: TLS with these files; True for the system's authorities; None speaks plaintext.
    """

    address: str = DEFAULT_ADDRESS
    token: str | None = None
    tls: Tls | bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not self.address.strip() or not self.address.isprintable():
            raise InvalidInput(f"give an address such as localhost:50051, not {shown(self.address)}", field="address")
        if isinstance(self.token, str):
            object.__setattr__(self, "token", self.token.strip())  # a file's line break is no part of it
        if self.token is not None and not (isinstance(self.token, str) and _TOKEN.fullmatch(self.token)):
            # The token itself is never shown.
            raise InvalidInput("a token is text of ASCII characters without spaces and line breaks", field="token")
        if not isinstance(self.tls, Tls | bool | None):
            raise InvalidInput(f"give Tls(...), True or None, not {shown(self.tls)}", field="tls")
        if self.address.startswith(_WEB_SCHEMES):
            raise InvalidInput(f"{self.address} is a URL: give host:port, and tls= for TLS", field="address")
        if self.token and not self.tls and not is_loopback(self.address):
            warnings.warn(f"a token travels to {self.address} unprotected: use TLS", UserWarning, stacklevel=3)


@dataclass(frozen=True)
class Target:
    """An endpoint in gRPC's words: names in a list are looked up, and TLS files are read.

    Attributes:
        name: For gRPC.
        options: Of a channel.
        credentials: None for plaintext.
        watched: gRPC watches the health of the servers, and treats those that are not ready as lost.
    """

    name: str
    options: list[tuple[str, Any]]
    credentials: grpc.ChannelCredentials | None
    watched: bool = False

    @classmethod
    def of(cls, endpoint: Endpoint) -> Target:
        """What gRPC needs to know about this endpoint.

        Raises:
            InvalidInput: The address cannot be understood, or the TLS files do not go together.
            NotFound: A TLS file does not exist.
            Unavailable: A name in a list of addresses is not known.
        """
        credentials = credentials_of(endpoint.tls) if endpoint.tls else None
        watched = "," in endpoint.address or endpoint.address.startswith("dns:")
        return cls(_target(endpoint.address), _options(endpoint.address, watched), credentials, watched)

    @property
    def unwatched(self) -> Target:
        """The same servers, those included that say they are not ready."""
        options = [*(pair for pair in self.options if pair[0] != _CONFIG), (_CONFIG, _service_config(watched=False))]
        return Target(self.name, options, self.credentials)

    def open(self) -> grpc.Channel:
        """A channel, which connects at its first call."""
        _adapt_to_gevent()
        if self.credentials:
            return grpc.secure_channel(self.name, self.credentials, options=self.options)
        return grpc.insecure_channel(self.name, options=self.options)

    def open_async(self) -> grpc.aio.Channel:
        """A channel for asyncio; call this in its event loop."""
        if self.credentials:
            return grpc.aio.secure_channel(self.name, self.credentials, options=self.options)
        return grpc.aio.insecure_channel(self.name, options=self.options)


@lru_cache(maxsize=1)
def _adapt_to_gevent() -> None:
    """Lets gRPC wait in gevent's way, if gevent has patched threads. Otherwise the first stream would never return."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from grpc.experimental import gevent

        gevent.init_gevent()


def with_port(address: str) -> str:
    """The address with the port that is tried where it names none, for messages."""
    if address.startswith(_TARGET_SCHEMES):
        return address
    pairs = [_split(part) for part in _parts(address)]
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs)


def is_loopback(address: str) -> bool:
    """Whether every part of the address stays on this machine."""
    return all(_is_loopback(part) for part in _parts(address))


class Proxy(NamedTuple):
    """A proxy, and the variable that names it."""

    variable: str
    url: str


def proxy_of(address: str) -> Proxy | None:
    """The proxy through which gRPC reaches an address, by the variables that gRPC reads; without its password."""
    if is_loopback(address) or address.startswith(("unix:", "unix-abstract:")):
        return None
    for variable in _PROXY:
        if url := os.environ.get(variable):
            excepted = (os.environ.get(_NO_PROXY[0]) or os.environ.get(_NO_PROXY[1], "")).split(",")
            host = _split(_parts(address)[0].removeprefix("dns:///"))[0]
            if any(host.endswith(name.strip()) for name in excepted if name.strip()):
                return None
            parts = urlsplit(url)
            return Proxy(variable, parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    return None


def _is_loopback(part: str) -> bool:
    if part.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:///", "ipv4:", "ipv6:"):
        part = part.removeprefix(scheme)
    host = _split(part)[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _parts(address: str) -> list[str]:
    return [part.strip() for part in address.split(",") if part.strip()]


def _target(address: str) -> str:
    """The gRPC target of an address. Names in a list are looked up once, here: gRPC takes only numbers in a list."""
    if address.startswith(_TARGET_SCHEMES):
        _check_target(address)
        return address
    parts = _parts(address)
    if len(parts) == 1:
        host, port = _split(parts[0])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    numbers = [number for part in parts for number in _resolve(*_split(part))]
    four = [f"{host}:{port}" for host, port in numbers if ":" not in host]
    if four:
        return "ipv4:" + ",".join(dict.fromkeys(four))
    return "ipv6:" + ",".join(dict.fromkeys(f"[{host}]:{port}" for host, port in numbers))


def _split(part: str) -> tuple[str, int]:
    host, colon, port = part.rpartition(":")
    if not colon or part.endswith("]") or (host.count(":") and not host.startswith("[")):
        host, port = part, str(DEFAULT_PORT)  # no port, or a bare IPv6 address
    if host.startswith("[") and host.endswith("]"):
        host, is_host = host[1:-1], _is_ipv6(host[1:-1])
    else:
        is_host = _is_ipv6(host) if ":" in host else bool(_HOST.fullmatch(host))
    if not is_host or not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65536:
        raise InvalidInput(f"{shown(part)} is not an address: give host:port, or [IPv6]:port", field="address")
    return host, int(port)


def _check_target(target: str) -> None:
    """Refuses a target that gRPC would take, and fail with later."""
    if target.startswith("dns:///"):
        _split(target.removeprefix("dns:///"))
    elif target.startswith(("ipv4:", "ipv6:")):
        for part in _parts(target[len("ipv4:") :]):
            try:
                ipaddress.ip_address(_split(part)[0])
            except ValueError:
                message = f"{shown(part)} is not a number and a port: names go without {target[:5]}"
                raise InvalidInput(message, field="address") from None


def _is_ipv6(host: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def _resolve(host: str, port: int) -> list[tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"no address for {host}: {error.strerror}") from None
    return [(str(entry[4][0]), port) for entry in found]


def _options(address: str, watched: bool) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MILLISECONDS),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),  # which is its name for the time of an attempt
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MILLISECONDS[0]),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS[1]),
        (_CONFIG, _service_config(watched=watched)),
        ("grpc.primary_user_agent", f"gramlet-python/{version('gramlet')}"),
        # Otherwise the channels of one process share connections, even where they must not: two clients, two replicas.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if is_loopback(address):
        options.append(("grpc.enable_http_proxy", 0))
    parts = _parts(address)
    if len(parts) > 1 and not address.startswith(_TARGET_SCHEMES):
        # Certificates are checked against this name, and proxies see it, instead of the whole list.
        options.append(("grpc.default_authority", parts[0]))
    return options


def _service_config(*, watched: bool) -> str:
    """How calls are spread and repeated. With `watched`, gRPC skips replicas that are loading or draining."""
    names = [{"service": service, "method": method} for service, methods in _IDEMPOTENT.items() for method in methods]
    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": retry}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.5},
    }
    if watched:
        # A single server answers itself that it is loading or draining, with a better message.
        config["healthCheckConfig"] = {"serviceName": ""}
    return json.dumps(config)

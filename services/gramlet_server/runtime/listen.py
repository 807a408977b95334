"""How a server listens: its address, TLS, and the options of its connections."""

from __future__ import annotations

import errno
import logging
import socket

import grpc
from gramlet.errors import FailedPrecondition

from gramlet_server.runtime.config import ServerSettings, format_address
from gramlet_server.runtime.tls import CertificateFiles, server_credentials

_log = logging.getLogger(__name__)


def listen(server: grpc.Server, settings: ServerSettings) -> int:
    """Lets a server listen; returns its port.

    Raises:
        FailedPrecondition: The address is taken, or not of this machine.
        InvalidInput: The certificates cannot be used.
    """
    if settings.exposed:
        _log.warning("%s is open to everybody who can reach it: it has neither TLS nor a token", settings.address)
    elif settings.lets_everybody_in:
        message = "%s has TLS, but lets everybody in: add --token-file, or --tls-client-ca for certificates of clients"
        _log.warning(message, settings.address)
    elif settings.sends_tokens_in_plaintext:
        _log.warning("%s has tokens without TLS: they can be read on the way, unless a proxy adds it", settings.address)
    if not settings.shares_port:
        check_free(settings.host, settings.port)
    try:
        if settings.tls_cert and settings.tls_key:
            files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            return server.add_secure_port(settings.address, server_credentials(files))
        return server.add_insecure_port(settings.address)
    except RuntimeError as error:
        raise FailedPrecondition(f"cannot listen on {settings.address}: {error}") from None


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for processes that share it, without listening itself.

    Raises:
        FailedPrecondition: The address is taken, or not of this machine.
    """
    check_free(host, port)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind, protocol)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """gRPC's options for a server with these settings."""
    options = {
        # Usually a taken port is an error, not a second server that gets every other connection.
        "grpc.so_reuseport": int(settings.shares_port),
        "grpc.max_receive_message_length": settings.max_message_bytes,
        "grpc.max_send_message_length": settings.max_message_bytes,
        "grpc.max_concurrent_streams": settings.max_connection_streams,
        "grpc.keepalive_time_ms": _milliseconds(settings.keepalive_seconds),
        "grpc.keepalive_timeout_ms": _milliseconds(settings.keepalive_timeout_seconds),
        "grpc.keepalive_permit_without_calls": 1,
        # Clients may ping as well. gRPC's default of five minutes would close their connections for too many pings.
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    }
    if settings.max_connection_age_seconds:
        options["grpc.max_connection_age_ms"] = _milliseconds(settings.max_connection_age_seconds)
    if settings.max_connection_age_grace_seconds:
        options["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.max_connection_age_grace_seconds)
    return list(options.items())


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 2**31 - 1)


def check_free(host: str, port: int, flag: str = "--port") -> None:
    """Binds an address once: gRPC only reports that it cannot, not why.

    Raises:
        FailedPrecondition: The address is taken, or not of this machine.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        # A name may have an IPv6 address on a machine without IPv6. Its other address is enough for gRPC.
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            where = format_address(host, port)
            wrong = "host" if isinstance(error, socket.gaierror) else flag
            raise FailedPrecondition(f"cannot listen on {where}: {error.strerror}; choose another {wrong}") from None

"""The files of TLS, checked before gRPC has them: it says on stderr only that it cannot use them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import grpc

from gramlet.errors import InvalidInput, NotFound, shown
from gramlet.inputs.files import open_file
from gramlet.signatures import checks_calls


@checks_calls
@dataclass(frozen=True)
class Tls:
    """TLS files, PEM. Without `ca` the system's authorities are trusted; `cert` with `key` proves who the client is."""

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


def credentials_of(tls: Tls | bool) -> grpc.ChannelCredentials:
    """What gRPC needs for TLS.

    Raises:
        InvalidInput: A file is not PEM, or the certificate and the key do not go together.
        NotFound: A file does not exist.
    """
    files = tls if isinstance(tls, Tls) else Tls()
    if (files.cert is None) != (files.key is None):
        missing = "cert" if files.cert is None else "key"
        raise InvalidInput("a client certificate needs its key, and a key its certificate", field=f"tls.{missing}")
    ca, cert, key = _read(files.ca, "ca"), _read(files.cert, "cert"), _read(files.key, "key")
    _check(files, ca)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _check(files: Tls, ca: bytes | None) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files.ca is not None and ca is not None:
        try:
            context.load_verify_locations(cadata=ca.decode())
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(files.ca, error, "ca") from None
    if files.cert is not None:
        try:
            context.load_cert_chain(files.cert, files.key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(files.cert, error, "cert") from None


def _unusable(path: str | os.PathLike[str], error: Exception, name: str) -> InvalidInput:
    reason = getattr(error, "reason", None) or "no PEM"
    what = "no certificate" if name == "ca" else "no certificate with its key"
    return InvalidInput(f"{shown(os.fsdecode(path))}: {what} in PEM form ({shown(reason)})", field=f"tls.{name}")


def _read(path: str | os.PathLike[str] | None, name: str) -> bytes | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise InvalidInput(f"a TLS file is given as its path, not {shown(path)}", field=f"tls.{name}")
    try:
        with open_file(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"cannot read {shown(os.fsdecode(path))}: {reason}", field=f"tls.{name}") from None

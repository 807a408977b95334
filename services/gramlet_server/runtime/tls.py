"""TLS and mutual TLS. Certificates are read again when their files change, so a renewal needs no restart."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from gramlet.errors import InvalidInput

State = tuple[tuple[int, int], ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files: the server's certificate chain, its key, and, for mutual TLS, the authority that signs clients."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[State, grpc.ServerCertificateConfiguration]:
        """Reads the files; returns their state, which changes when they do, and gRPC's configuration.

        Raises:
            InvalidInput: A file is missing, is not PEM, or the key is not the certificate's.
        """
        try:
            state = self.state()
            # gRPC would notice a wrong file only at the first handshake, and give no reason.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
            return state, grpc.ssl_server_certificate_configuration(
                [(self.key.read_bytes(), self.certificate.read_bytes())],
                root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            )
        except (OSError, ValueError) as error:
            message = f"cannot use {self.certificate} with {self.key}: {error}"
            raise InvalidInput(message, field="--tls-cert") from None

    def state(self) -> State:
        """The inodes and modification times of the files."""
        stats = [os.stat(path) for path in (self.certificate, self.key, self.client_ca) if path]
        return tuple((stat.st_ino, stat.st_mtime_ns) for stat in stats)


def _no_password() -> str:
    raise ValueError("the key is encrypted; gramlet-server reads only plain keys")


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Credentials that are updated when their files change. Clients must show a certificate if `client_ca` is given.

    Raises:
        InvalidInput: The files cannot be used.
    """
    in_use, first = files.read()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before every handshake; None keeps the certificate in use."""
        nonlocal in_use
        try:
            if files.state() == in_use:
                return None
            in_use, configuration = files.read()
        except (OSError, InvalidInput) as error:
            # In the middle of a renewal: the old certificate stays in use until the new files fit together.
            _log.warning("keeping the certificate in use: %s", error)
            return None
        _log.info("certificate read again from %s", files.certificate)
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        first,
        changed,  # type: ignore[arg-type]  # None is allowed, but not in the stubs
        require_client_authentication=files.client_ca is not None,
    )

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from gramlet.errors import InvalidInput
from gramlet_server.runtime.tls import CertificateFiles


class Pki:
    """An authority, and certificates of it as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, host: str = "localhost", authority: trustme.CA | None = None) -> tuple[Path, Path]:
        """Files of a new certificate and its key, put in place of older ones at once, as a renewal does."""
        issued = (authority or self.authority).issue_cert(host)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pems = b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes()
        for path, pem in zip(paths, pems, strict=True):
            path.with_suffix(".new").write_bytes(pem)
            os.replace(path.with_suffix(".new"), path)
        return paths


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@contextmanager
def channel_to(running: Any, ca: Path, client: tuple[Path, Path] | None = None) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        private_key=client[1].read_bytes() if client else None,
        certificate_chain=client[0].read_bytes() if client else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{running.server.port}", credentials, options) as channel:
        yield channel


def echo(channel: grpc.Channel) -> bytes:
    reply: bytes = channel.unary_unary("/test.Echo/unary_unary")(b"hello", timeout=30)
    return reply


def is_refused(channel: grpc.Channel) -> bool:
    with pytest.raises(grpc.RpcError) as failure:
        echo(channel)
    return bool(failure.value.code() is grpc.StatusCode.UNAVAILABLE)


def test_calls_travel_over_tls_and_plaintext_is_refused(serving: Any, pki: Pki) -> None:
    certificate, key = pki.issue("server")
    with serving(tls_cert=certificate, tls_key=key) as running:
        with channel_to(running, pki.ca) as channel:
            assert echo(channel) == b"hello"
        assert is_refused(running.channel)


def test_mutual_tls_wants_a_certificate_of_its_authority(serving: Any, pki: Pki) -> None:
    certificate, key = pki.issue("server")
    with serving(tls_cert=certificate, tls_key=key, tls_client_ca=pki.ca) as running:
        with channel_to(running, pki.ca, pki.issue("client", "caller")) as channel:
            assert echo(channel) == b"hello"
        with channel_to(running, pki.ca) as channel:
            assert is_refused(channel)
        with channel_to(running, pki.ca, pki.issue("stranger", "caller", trustme.CA())) as channel:
            assert is_refused(channel)


def test_a_renewed_certificate_is_used_without_a_restart(serving: Any, pki: Pki) -> None:
    certificate, key = pki.issue("server")
    with serving(tls_cert=certificate, tls_key=key) as running:
        with channel_to(running, pki.ca) as channel:
            assert echo(channel) == b"hello"
        renewed = Pki(pki.folder)
        renewed.issue("server")
        with channel_to(running, renewed.ca) as channel:
            assert echo(channel) == b"hello"


def test_a_broken_renewal_keeps_the_old_certificate(serving: Any, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = pki.issue("server")
    with serving(tls_cert=certificate, tls_key=key) as running:
        certificate.write_text("half a certif")
        with caplog.at_level(logging.WARNING), channel_to(running, pki.ca) as channel:
            assert echo(channel) == b"hello"
    assert "keeping the certificate in use" in caplog.text


def test_files_that_cannot_be_used_are_named(pki: Pki) -> None:
    certificate, key = pki.issue("server")
    _, other_key = pki.issue("other")
    for files in [
        CertificateFiles(pki.folder / "missing.pem", key),
        CertificateFiles(certificate, other_key),
        CertificateFiles(key, key),
        CertificateFiles(certificate, key, client_ca=key),
    ]:
        with pytest.raises(InvalidInput, match=str(files.certificate)):
            files.read()

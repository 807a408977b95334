from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gramlet
import pytest
from gramlet.errors import InvalidInput, NotFound, Unavailable
from gramlet.transport.channel import Endpoint, _target, is_loopback, proxy_of
from gramlet.transport.connection import call_metadata
from gramlet.transport.failures import _nobody_answers

from tests.clients.servers import free_port


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("localhost:5000", "localhost:5000"),
        ("localhost", "localhost:50051"),
        ("[::1]:5000", "[::1]:5000"),
        ("::1", "[::1]:50051"),
        ("dns:///features:50051", "dns:///features:50051"),
        ("unix:/run/gramlet.sock", "unix:/run/gramlet.sock"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("10.0.0.1:1, 10.0.0.1:1,10.0.0.2", "ipv4:10.0.0.1:1,10.0.0.2:50051"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_addresses_become_what_grpc_understands(address: str, target: str) -> None:
    assert _target(address) == target


@pytest.mark.parametrize(
    ("environment", "address", "expected"),
    [
        ({"http_proxy": "http://me:secret@proxy:3128"}, "host:1", ("http_proxy", "http://proxy:3128")),
        ({"http_proxy": "http://a:1", "grpc_proxy": "http://b:2"}, "dns:///host:1", ("grpc_proxy", "http://b:2")),
        ({"http_proxy": "http://a:1", "no_proxy": "example.org, internal"}, "gpu.internal:1", None),
        (
            {"http_proxy": "http://a:1", "no_grpc_proxy": "other", "no_proxy": "host"},
            "host",
            ("http_proxy", "http://a:1"),
        ),
        ({"http_proxy": "http://a:1"}, "localhost:1", None),
        ({"http_proxy": "http://a:1"}, "unix:/run/gramlet.sock", None),
        ({}, "host:1", None),
    ],
)
def test_the_proxy_that_grpc_takes_is_known(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], address: str, expected: Any
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(address) == expected


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    reason = r"no way to some-host:1 through the proxy http://127\.0\.0\.1:\d+ \(Connection refused\), which http_proxy"
    with gramlet.Client("some-host:1", patience=0) as client, pytest.raises(Unavailable, match=reason):
        client.model()


both_clients = pytest.mark.parametrize("client", [gramlet.Client, gramlet.AsyncClient])


@both_clients
@pytest.mark.parametrize(
    "address",
    [
        *("", " ", "http://localhost:1", "localhost:", ":1", "localhost:x", "localhost:1,localhost:70000", "a b:1"),
        *(
            "[::1",
            "::1]",
            "[::1]]:1",
            "host]:1",
            "[host]:1",
            "ho/st:1",
            "dns:///host]:1",
            "ipv4:host:1",
            "ipv4:1.2.3.400:1",
        ),
    ],
)
def test_a_text_that_is_not_an_address_is_refused_before_any_network(client: Any, address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client(address)
    assert caught.value.field == "address"


@both_clients
def test_a_list_of_names_that_nobody_knows_is_refused(client: Any) -> None:
    with pytest.raises(gramlet.Unavailable, match="no-such-host"):
        client("no-such-host.invalid:1,localhost:2")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("localhost:1", True),
        ("127.0.0.1", True),
        ("[::1]:1,localhost:2", True),
        ("unix:/run/x", True),
        ("10.0.0.1:1", False),
        ("localhost:1,10.0.0.1:1", False),
        ("dns:///features:1", False),
        ("dns:///localhost:1", True),
    ],
)
def test_loopback_is_told_from_the_network(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_a_token_may_have_the_line_break_of_its_file_and_no_other() -> None:
    assert ("authorization", "Bearer secret") in call_metadata(Endpoint(token="secret\n").token)
    for wrong in ("se cret", "a\nb", "a\0b", "gehëim"):
        with pytest.raises(InvalidInput, match="token is text of ASCII characters without"):
            Endpoint(token=wrong)


def test_a_token_over_plaintext_is_warned_about_unless_it_stays_here() -> None:
    with pytest.warns(UserWarning, match="unprotected: use TLS"):
        Endpoint("10.0.0.1:1", token="secret")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Endpoint("localhost:1", token="secret")
        Endpoint("10.0.0.1:1", token="secret", tls=True)


@both_clients
def test_tls_files_are_read_before_any_network(client: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.pem"):
        client(tls=gramlet.Tls(ca=tmp_path / "nowhere.pem"))
    with pytest.raises(InvalidInput, match="needs its key"):
        client(tls=gramlet.Tls(cert=tmp_path / "cert.pem"))


@both_clients
@pytest.mark.parametrize("name", ["ca", "cert"])
def test_tls_files_that_are_no_pem_are_refused_here_and_not_by_grpc_on_stderr(
    client: Any, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    files = {"ca": {"ca": junk}, "cert": {"cert": junk, "key": junk}}[name]
    with pytest.raises(InvalidInput, match=r"junk\.pem: no certificate.* in PEM form") as caught:
        client(tls=gramlet.Tls(**files))
    assert caught.value.field == f"tls.{name}"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "DNS resolution failed for host:1: UNKNOWN: errors resolving host: [Domain name not found]",
            "(Domain name",
        ),
        ("failed to connect to all addresses; last error: UNKNOWN: Socket closed", "one that wants TLS"),
        ("failed to connect: handshake: Hostname Verification Check failed.", "its certificate is for another name"),
    ],
)
def test_what_grpc_says_of_a_server_that_is_not_reached_is_said_in_words_of_the_caller(said: str, message: str) -> None:
    shown = _nobody_answers(said, "host:1")
    assert message in shown
    assert "]" not in shown


@pytest.mark.parametrize(
    "reason",
    ["tls handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER", "connect: Connection refused (111)"],
    ids=["answered", "refused"],
)
def test_tls_with_a_plain_server_is_named_whichever_address_grpc_reports(reason: str) -> None:
    said = f"failed to connect to all addresses; last error: UNKNOWN: ipv6:[::1]:50051: {reason}"
    assert "leave out tls=, or --tls, if it speaks plaintext" in _nobody_answers(said, "localhost:50051", tls=True)

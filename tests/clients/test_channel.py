from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gramlet
import pytest
from gramlet.errors import InvalidInput, NotFound
from gramlet.transport.channel import Endpoint, _target, is_loopback


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


both_clients = pytest.mark.parametrize("client", [gramlet.Client, gramlet.AsyncClient])


@both_clients
@pytest.mark.parametrize(
    "address", ["", " ", "http://localhost:1", "localhost:", ":1", "localhost:x", "localhost:1,localhost:70000"]
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

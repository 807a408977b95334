from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gramlet
import pytest
from gramlet.errors import InvalidInput, NotFound
from gramlet.feature.v1 import feature_pb2
from gramlet.transport.channel import Endpoint, _target, is_loopback

from tests.clients.servers import FEATURE, Script, serving


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
    "address", ["", " ", "http://localhost:1", "localhost:", ":1", "localhost:x", "localhost:1,localhost:70000"]
)
def test_what_is_no_address_is_refused_before_any_network(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        gramlet.Client(address)
    assert caught.value.field == "address"


def test_a_list_of_names_that_nobody_knows_is_refused() -> None:
    with pytest.raises(gramlet.Unavailable, match="no-such-host"):
        gramlet.Client("no-such-host.invalid:1,localhost:2")


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


def test_tls_files_are_read_before_any_network(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.pem"):
        gramlet.Client(tls=gramlet.Tls(ca=tmp_path / "nowhere.pem"))
    with pytest.raises(InvalidInput, match="needs its key"):
        gramlet.Client(tls=gramlet.Tls(cert=tmp_path / "cert.pem"))


def answering(name: str) -> Script:
    return Script(GetModel=[lambda *_: feature_pb2.GetModelResponse(backbone=name)])


def test_calls_are_spread_over_several_addresses() -> None:
    with (
        serving({FEATURE: answering("one")}) as one,
        serving({FEATURE: answering("two")}) as two,
        gramlet.Client(f"127.0.0.1:{one.port},127.0.0.1:{two.port}") as client,
    ):
        answers = [client.model().backbone for _ in range(12)]
    assert set(answers) == {"one", "two"}
    assert abs(answers.count("one") - answers.count("two")) <= 4  # the second connection may be ready a little later


def test_a_dead_replica_costs_no_call() -> None:
    with serving({FEATURE: answering("one")}) as one:
        with serving({FEATURE: answering("two")}) as two:
            client = gramlet.Client(f"127.0.0.1:{one.port},127.0.0.1:{two.port}")
            while client.model().backbone != "two":
                pass
        assert [client.model().backbone for _ in range(10)] == ["one"] * 10
        client.close()


def test_calls_tell_who_makes_them() -> None:
    agents: list[str] = []

    def answer(request: Any, context: Any) -> feature_pb2.GetModelResponse:
        agents.append(dict(context.invocation_metadata())["user-agent"])
        return feature_pb2.GetModelResponse()

    with serving({FEATURE: Script(GetModel=[answer])}) as server, gramlet.Client(f"127.0.0.1:{server.port}") as client:
        client.model()
    assert agents[0].startswith("gramlet-python/0.1.0")

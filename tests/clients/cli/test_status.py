"""`gramlet status`: services, network and load; and waiting for a server."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from gramlet.errors import Unavailable
from gramlet.stylize.v1 import stylize_pb2

from tests.clients.cli.commands import Run, events
from tests.clients.servers import STYLIZE, Script, serving


def test_status_shows_services_network_and_load(gramlet: Run) -> None:
    code, said, _ = gramlet("status")
    assert code == 0
    for word in ("feature", "stylize", "serving", "not offered", "resnet50", "random:0", "classic", "queued"):
        assert word in said
    digest = json.loads(gramlet("status", "--json")[1])["model"]["weights_digest"]
    assert f"({digest})" in said  # where there is no terminal, nothing is folded
    code, said, _ = gramlet("status", "--json")
    status = events(said)[0]
    assert status["services"] == {
        "feature": "serving",
        "stylize": "serving",
        "train": "not offered",
        "embed": "not offered",
    }
    assert status["model"]["backbone"] == "resnet50"


def test_status_waits_until_every_service_serves(gramlet: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []

    def lack(report: Any) -> None:
        report(Unavailable("the store fails"))
        reports.append(report)

    script = Script(GetStatus=[lambda *_: stylize_pb2.GetStatusResponse()])
    with serving({STYLIZE: script}, on_readiness=lack) as server:
        address = f"127.0.0.1:{server.port}"
        code, said, _ = gramlet("status", "--server", address)
        assert code == 1
        assert "not serving" in said
        assert "the store fails" in said
        assert gramlet("status", "--server", address, "--wait", "0")[0] == 1
        monkeypatch.setattr("gramlet.cli.status.time.sleep", lambda _: reports[0](None))
        assert gramlet("status", "--server", address, "--wait")[0] == 0


def test_the_wait_for_something_that_accepts_and_says_nothing_ends(gramlet: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts for it
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        code, _, noted = gramlet("status", "--wait", 1, "--server", address)
    assert (code, noted) == (1, f"gramlet: no answer from {address} in 1 s\n")

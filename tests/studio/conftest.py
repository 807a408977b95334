"""A gramlet server with random weights and a studio, each in a process of its own, and pictures to give them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, GramletServer
from tests.embed.browser import Page, chromium
from tests.pictures.files import write_two_classes

SIZE = {"size": 64, "iterations": 8}


@dataclass(frozen=True)
class StudioProcess:
    """A studio that runs: its address, its folder, its process, and calls of its backend."""

    url: str
    data: Path
    pid: int

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The reply to a request of the studio's own page: JSON, or bytes. Errors of HTTP are raised."""
        given = {"origin": self.url, "content-type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data, given, method=method)
        with urllib.request.urlopen(request, timeout=120) as reply:
            content = reply.read()
            return json.loads(content) if reply.headers.get_content_type() == "application/json" else content

    def sample_order(self, **settings: Any) -> dict[str, Any]:
        """An order of two of the samples."""
        samples = self.call("GET", "/samples")["samples"]
        content = next(each["id"] for each in samples if each["use"] == "content")
        style = next(each["id"] for each in samples if each["use"] == "style")
        return {"content": content, "styles": [{"picture": style, "weight": 1}], "settings": {**SIZE, **settings}}

    def events(self, kind: str, run_id: str, last_id: str = "") -> list[tuple[str, dict[str, Any]]]:
        """The events of a run until its end, each with its id."""
        headers = {"last-event-id": last_id} if last_id else {}
        text = self.call("GET", f"/runs/{kind}/{run_id}/events", headers=headers).decode()
        found = []
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in fields:
                found.append((fields.get("id", ""), json.loads(fields["data"])))
        return found


@contextmanager
def studio_for(server: str, data: Path, *flags: str) -> Iterator[StudioProcess]:
    """A studio for the server at this address."""
    command = [sys.executable, "-m", "gramlet.cli", "studio", "--json", "--port", "0", "--server", server, *flags]
    with subprocess.Popen([*command, "--data", data], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield StudioProcess(json.loads(process.stdout.readline())["url"].rstrip("/"), data, process.pid)
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("studio-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def server(cluster: Cluster) -> GramletServer:
    server = cluster.server("all", "--weights=random:0", f"--store={cluster.folder / 'store'}")
    server.wait_until_ready()
    return server


@pytest.fixture(scope="package")
def studio(server: GramletServer, cluster: Cluster) -> Iterator[StudioProcess]:
    with studio_for(server.address, cluster.folder / "data") as studio:
        yield studio


@pytest.fixture(scope="package")
def browser() -> Iterator[Page]:
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    with chromium(offline=False) as page:
        yield page


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve pictures, a file that is none, and a name that is an attack."""
    folder = tmp_path_factory.mktemp("pictures")
    write_two_classes(folder, 12, (64, 64))
    hostile = "<img src=x onerror=document.title=1>.png"
    (folder / "red" / "red0.png").rename(folder / "red" / hostile)
    (folder / "notes.txt").write_text("not a picture")
    return folder

"""A gramlet server that is killed under a running stylization: the page says so, and goes on by itself.

The server has a page of its own (`--studio`) as well, which ends with it.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, GramletServer, wait_until
from tests.embed.browser import Page
from tests.studio.conftest import StudioProcess, studio_for
from tests.studio.test_page import at, order_samples, run_of

ITERATIONS = 40
LEASE_SECONDS = 2


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[GramletServer]:
    # The device takes 50 ms for a step, so that the run is under way when its server is killed.
    server = cluster.server(
        *("all", "--weights=random:0", f"--store={cluster.folder / 'killed'}", "--state-seconds=0.2"),
        *(f"--lease-seconds={LEASE_SECONDS}", "--studio", "--studio-port=0"),
        environment={"GRAMLET_STUDIO_DATA": str(cluster.folder / "beside")},
        seconds_per_picture=0.05,
    )
    server.wait_until_ready()
    yield server
    if server.process and server.process.poll() is None:
        server.stop()


def pages(server: GramletServer) -> list[str]:
    """The addresses of the pages that the server has named, of all its processes."""
    return re.findall(r"the studio is at (\S+)", server.log.read_text())


def is_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}api/status", timeout=30) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


def test_a_killed_server_is_waited_for_and_the_picture_is_the_undisturbed_one(
    browser: Page, server: GramletServer, cluster: Cluster
) -> None:
    with studio_for(server.address, cluster.folder / "killed-data") as studio:
        page = at(browser, studio, "/stylize")
        order_samples(page, iterations=ITERATIONS)
        page.click("#start")
        page.until("document.querySelector('.stage')?.dataset.state === 'running'")
        page.until("/iteration [1-9]|Done/.test(document.getElementById('words').textContent)")
        run_id = run_of(page)
        server.kill()
        page.until("!document.getElementById('banner').hidden")
        assert "does not answer" in page.run("return document.getElementById('banner').textContent")
        server.start()
        server.wait_until_ready()
        page.until("document.getElementById('banner').hidden")
        disturbed = losses(studio, run_id)
        page.until("document.querySelector('.stage').dataset.state === 'succeeded'")
        order = studio.call("GET", f"/runs/stylize/{run_id}")["order"]
        again = studio.call("POST", "/stylizations", order)["run"]
        undisturbed = losses(studio, again)
        assert list(undisturbed) == list(range(1, ITERATIONS + 1))
        assert disturbed.items() <= undisturbed.items()
        assert list(disturbed) == sorted(disturbed)
        pictures = [studio.call("GET", f"/runs/stylize/{each}/pictures/result") for each in (run_id, again)]
        assert pictures[0] == pictures[1]
        page.visit("about:blank")  # so that the page does not ask a studio that is gone
        assert [error for error in page.errors() if "503" not in error] == []


def losses(studio: StudioProcess, run_id: str) -> dict[int, float]:
    """The loss of each iteration that the page hears of; none comes twice."""
    iterations = [event for _, event in studio.events("stylize", run_id) if event["event"] == "iteration"]
    found = {event["iteration"]: event["loss"] for event in iterations}
    assert len(found) == len(iterations)
    return found


def test_the_page_beside_a_server_ends_with_it(server: GramletServer) -> None:
    wait_until(lambda: len(pages(server)) == 2)  # the server was killed once
    killed, now = pages(server)
    wait_until(lambda: not is_served(killed))
    assert is_served(now)
    assert server.stop() == 0
    assert not is_served(now)

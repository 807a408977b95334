"""A stylization in processes of its own, and all that may happen to them while it runs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gramlet import Client
from gramlet.stylize.types import Adjusted, Checkpoint, Iteration, Recovered, RecoveryReason, Result, StylizeEvent
from gramlet.types import Pixels
from PIL import Image

from tests.ctrl_c import GRAMLET
from tests.e2e.cluster import Cluster, GramletServer

ITERATIONS = 24
# Slow enough that what is done to a run in its middle is done in its middle.
SECONDS_PER_PICTURE = 0.1


@pytest.fixture(scope="module")
def feature(cluster: Cluster) -> Iterator[GramletServer]:
    server = cluster.features(seconds_per_picture=SECONDS_PER_PICTURE)
    server.wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stylize(cluster: Cluster, feature: GramletServer) -> Iterator[GramletServer]:
    server = cluster.server(
        "stylize", f"--features={feature.address}", f"--store={cluster.folder / 'survives'}", "--state-seconds=0.5"
    )
    server.wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def content() -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def style() -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (56, 64, 3), dtype=np.uint8)


Run = Callable[..., list[StylizeEvent]]


@pytest.fixture(scope="module")
def run(stylize: GramletServer, content: Pixels, style: Pixels) -> Run:
    """Runs a stylization to its end; `during` is called with every event."""

    def events(during: Callable[[StylizeEvent], None] = lambda _: None) -> list[StylizeEvent]:
        seen: list[StylizeEvent] = []
        with Client(stylize.address) as client:
            for event in client.stylize(content, style, size=64, iterations=ITERATIONS):
                seen.append(event)
                during(event)
        return seen

    return events


@pytest.fixture(scope="module")
def undisturbed(run: Run) -> list[StylizeEvent]:
    return run()


def losses(events: list[StylizeEvent]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Iteration)]


def png(events: list[StylizeEvent]) -> bytes:
    assert isinstance(events[-1], Result)
    return events[-1].png


def at(iteration: int, act: Callable[[], None]) -> Callable[[StylizeEvent], None]:
    def during(event: StylizeEvent) -> None:
        if isinstance(event, Iteration) and event.iteration == iteration:
            act()

    return during


def test_two_processes_have_the_losses_of_one(
    cluster: Cluster, undisturbed: list[StylizeEvent], content: Pixels, style: Pixels
) -> None:
    both = cluster.server("feature", "stylize", "--weights=random:0", f"--store={cluster.folder / 'alone'}")
    both.wait_until_ready()
    with Client(both.address) as client:
        alone = list(client.stylize(content, style, size=64, iterations=ITERATIONS))
    both.stop()
    assert losses(undisturbed) == pytest.approx(losses(alone), rel=1e-4)


def test_a_killed_feature_service_costs_a_run_nothing(
    run: Run, undisturbed: list[StylizeEvent], feature: GramletServer
) -> None:
    def kill_and_start() -> None:
        feature.kill()
        feature.start()

    events = run(at(7, kill_and_start))
    assert losses(events) == losses(undisturbed)
    assert png(events) == png(undisturbed)
    assert RecoveryReason.RECONNECTED in [event.reason for event in events if isinstance(event, Recovered)]


def test_a_killed_stylize_service_costs_a_run_nothing(
    run: Run, undisturbed: list[StylizeEvent], stylize: GramletServer
) -> None:
    def kill_and_start() -> None:
        stylize.kill()
        stylize.start()

    events = run(at(13, kill_and_start))
    assert losses(events) == losses(undisturbed)
    assert png(events) == png(undisturbed)


def test_a_changed_run_survives_a_kill_with_its_weights(stylize: GramletServer, content: Pixels, style: Pixels) -> None:
    def changed(run_id: str, during: Callable[[StylizeEvent], None] = lambda _: None) -> list[StylizeEvent]:
        """The events after the change, which is asked for where nobody runs the run, so that it counts from there."""
        seen = []
        with Client(stylize.address) as client:
            with client.stylize(content, style, size=64, iterations=16, run_id=run_id) as first:
                next(event for event in first if isinstance(event, Checkpoint))
            client.adjust(run_id, content_weight=9.0)
            for event in client.resume(run_id):
                seen.append(event)
                during(event)
        return seen

    def kill_and_start() -> None:
        stylize.kill()
        stylize.start()

    whole, killed = changed("changed"), changed("changed-and-killed", at(9, kill_and_start))
    assert [event.iteration for event in killed if isinstance(event, Adjusted)] == [5]
    assert losses(killed) == losses(whole)
    assert png(killed) == png(whole)


def test_the_command_line_resumes_by_itself(
    undisturbed: list[StylizeEvent], stylize: GramletServer, content: Pixels, style: Pixels, tmp_path: Path
) -> None:
    with command(stylize, content, style, tmp_path, "--json") as process:
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "iteration" and events[-1]["iteration"] == 9:
                stylize.stop(signal.SIGKILL)
                stylize.start()
        assert process.wait(60) == 0
    iterations = [event for event in events if event["event"] == "iteration"]
    assert [event["iteration"] for event in iterations] == list(range(1, ITERATIONS + 1))
    assert [event["loss"] for event in iterations] == pytest.approx(losses(undisturbed))
    assert (tmp_path / "out.png").read_bytes() == png(undisturbed)


def test_an_interrupted_client_frees_the_device_within_an_iteration(
    stylize: GramletServer, feature: GramletServer, content: Pixels, style: Pixels, tmp_path: Path
) -> None:
    with command(stylize, content, style, tmp_path, "--json", iterations=5000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "iteration":
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    # One iteration takes 0.1 s of the device; the calls' ends travel for a moment.
    time.sleep(1.0)
    evaluations = feature.metric("gramlet_gradient_evaluations_total")
    time.sleep(1.0)
    assert feature.metric("gramlet_gradient_evaluations_total") == evaluations
    assert stylize.metric("gramlet_runs", service="stylize", state="running") == 0
    assert not (tmp_path / "out.png").exists()


def test_a_run_is_handed_on_when_its_server_leaves_in_peace(
    run: Run, undisturbed: list[StylizeEvent], stylize: GramletServer
) -> None:
    def leave() -> None:
        assert stylize.stop(signal.SIGTERM) == 0
        stylize.start()

    events = run(at(11, leave))
    assert losses(events) == losses(undisturbed)
    assert png(events) == png(undisturbed)


def command(
    server: GramletServer, content: Pixels, style: Pixels, folder: Path, *flags: str, iterations: int = ITERATIONS
) -> subprocess.Popen[str]:
    """`gramlet stylize`, started."""
    Image.fromarray(content).save(folder / "content.png")
    Image.fromarray(style).save(folder / "style.png")
    paths = [str(folder / "content.png"), str(folder / "style.png"), "-o", str(folder / "out.png")]
    sizes = ["--size", "64", "--iterations", str(iterations), "--server", server.address]
    return subprocess.Popen([*GRAMLET, "stylize", *paths, *sizes, *flags], stdout=subprocess.PIPE, text=True)

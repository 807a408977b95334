"""A stylization in processes of its own, and all that may happen to them while it runs.

Two FeatureServices and a StylizeService are killed and started again. Whatever happens, the run takes the steps that it
takes in one process, bit for bit, and its caller sees every iteration once.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gramlet import Client
from gramlet.feature.descent_types import DescentEnding, DescentStart, DescentState
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Iteration,
    Preview,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    Stylization,
    StylizeEvent,
    StylizeSettings,
)
from gramlet.types import Limits, Pixels
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.plan import Position
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.stylization import Control, stylize
from PIL import Image

from tests.ctrl_c import GRAMLET
from tests.e2e.cluster import Cluster, GramletServer, ready

ITERATIONS = 24
# Slow enough that what is done to a run in its middle is done in its middle.
SECONDS_PER_PICTURE = 0.1
STATE_SECONDS = 0.5
SETTINGS = StylizeSettings(size=64, iterations=ITERATIONS)
HEAVIER = Adjustment(content_weight=9.0)

Run = Callable[..., list[StylizeEvent]]


@pytest.fixture(scope="module")
def features(cluster: Cluster) -> Iterator[list[GramletServer]]:
    servers = [cluster.features(seconds_per_picture=SECONDS_PER_PICTURE) for _ in range(2)]
    with ready(*servers):
        yield servers


@pytest.fixture(scope="module")
def service(cluster: Cluster, features: list[GramletServer]) -> Iterator[GramletServer]:
    addresses = ",".join(server.address for server in features)
    store = cluster.folder / "survives"
    server = cluster.server(
        "stylize", f"--features={addresses}", f"--store={store}", f"--state-seconds={STATE_SECONDS}"
    )
    with ready(server):
        yield server


@pytest.fixture(scope="module")
def run(service: GramletServer, content: Pixels, style: Pixels) -> Run:
    """Runs a stylization to its end; `during` is called with every event."""

    def events(during: Callable[[StylizeEvent], None] = lambda _: None, **options: int) -> list[StylizeEvent]:
        seen: list[StylizeEvent] = []
        with Client(service.address) as client:
            for event in client.stylize(content, style, size=64, iterations=ITERATIONS, **options):
                seen.append(event)
                during(event)
        return seen

    return events


@pytest.fixture(scope="module")
def in_one_process(engine: Engine, content: Pixels, style: Pixels) -> list[StylizeEvent]:
    """The same run, undisturbed, in the process of the tests."""
    order = Stylization(content, (PictureStyle(style),), SETTINGS)
    return list(stylize(prepare_stylization(order, engine, Limits()), engine))


def losses(events: Sequence[StylizeEvent]) -> list[tuple[int, float]]:
    """The loss of each iteration: the later one, where a change of weights made the run do an iteration again."""
    return list({event.iteration: event.loss for event in events if isinstance(event, Iteration)}.items())


def png(events: Sequence[StylizeEvent]) -> bytes:
    assert isinstance(events[-1], Result)
    return events[-1].png


def assert_same(events: Sequence[StylizeEvent], expected: Sequence[StylizeEvent]) -> None:
    assert losses(events) == losses(expected)
    assert png(events) == png(expected)


def at(*iterations: int, do: Callable[[], None]) -> Callable[[StylizeEvent], None]:
    def during(event: StylizeEvent) -> None:
        if isinstance(event, Iteration) and event.iteration in iterations:
            do()

    return during


def kill_and_start(*servers: GramletServer) -> None:
    for server in servers:
        server.kill()
    for server in servers:
        server.start()


def test_three_processes_take_the_steps_of_one(run: Run, in_one_process: list[StylizeEvent]) -> None:
    assert_same(run(), in_one_process)


def test_killed_feature_services_cost_a_run_nothing(
    run: Run, in_one_process: list[StylizeEvent], features: list[GramletServer]
) -> None:
    events = run(at(7, 15, do=lambda: kill_and_start(*features)))
    assert_same(events, in_one_process)
    assert RecoveryReason.RECONNECTED in [event.reason for event in events if isinstance(event, Recovered)]


def test_a_killed_stylize_service_costs_a_run_nothing(
    run: Run, in_one_process: list[StylizeEvent], service: GramletServer
) -> None:
    assert_same(run(at(5, 13, do=lambda: kill_and_start(service))), in_one_process)


def test_previews_and_other_callers_change_nothing_either(
    run: Run, in_one_process: list[StylizeEvent], features: list[GramletServer], service: GramletServer, content: Pixels
) -> None:
    ended = threading.Event()

    def others() -> None:
        with Client(",".join(server.address for server in features)) as client:
            while not ended.is_set():
                client.features(content, stages=["layer1"], gram=True)

    servers = itertools.cycle([features[0], service, features[1]])
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(others)
        events = run(at(6, 12, 18, do=lambda: kill_and_start(next(servers))), preview_every=1)
        ended.set()
        calls.result()
    assert_same(events, in_one_process)
    previews = [event.iteration for event in events if isinstance(event, Preview)]
    assert previews == sorted(set(previews))
    assert previews[-1] == ITERATIONS


def test_weights_that_change_during_a_kill_count_from_one_iteration_on(
    engine: Engine, service: GramletServer, features: list[GramletServer], content: Pixels, style: Pixels
) -> None:
    settings = StylizeSettings(size=64, iterations=16, scales=1)
    for servers in (features, [service], [*features, service]):
        events = []
        is_adjusted = False
        with Client(service.address) as client:
            for event in client.stylize(content, style, size=64, iterations=16, scales=1):
                events.append(event)
                if isinstance(event, Iteration) and event.iteration == 6 and not is_adjusted:
                    is_adjusted = True
                    client.adjust(event.run_id, content_weight=9.0)
                    kill_and_start(*servers)  # the change is stored, and hardly applied
        [adjusted] = [event for event in events if isinstance(event, Adjusted)]
        assert adjusted.settings.content_weight == 9.0
        assert_same(events, adjusted_at(adjusted.iteration, engine, content, style, settings))


def adjusted_at(
    iteration: int, engine: Engine, content: Pixels, style: Pixels, settings: StylizeSettings
) -> list[StylizeEvent]:
    """A run in this process that is adjusted after exactly that iteration."""
    prepared = prepare_stylization(Stylization(content, (PictureStyle(style),), settings), engine, Limits())
    start = DescentStart(
        objective=prepared.objective(),
        settings=prepared.descent_settings,
        iterations=iteration,
        ending=DescentEnding.STATE,
    )
    with engine.descend(start) as descent:
        *_, state = descent
    assert isinstance(state, DescentState)
    position = Position(settings=prepared.settings, iteration=iteration, state=state.data)
    control = Control(adjustments=lambda applied, last: () if applied else (HEAVIER,))
    before = [event for event in stylize(prepared, engine) if event.iteration <= iteration]
    return [*before, *stylize(prepared, engine, control, position)]


def test_a_killed_run_goes_on_at_its_newest_checkpoint(service: GramletServer, content: Pixels, style: Pixels) -> None:
    with Client(service.address, patience=0.0) as client:
        # Many iterations: a state waits until it is cheap for the time so far.
        events = client.stylize(content, style, size=64, iterations=300, run_id="checkpointed")
        checkpoints = (event for event in events if isinstance(event, Checkpoint))
        newest = [next(checkpoints), next(checkpoints)][-1]
        kill_and_start(service)
    service.wait_until_ready()
    with Client(service.address) as client:
        # The lost process holds its lease for a while: until then the run is watched.
        started = next(event for event in client.resume("checkpointed") if isinstance(event, Started))
    assert started.iteration >= newest.iteration


def test_a_run_whose_service_is_killed_every_few_seconds_gets_on(
    cluster: Cluster, features: list[GramletServer], content: Pixels, style: Pixels
) -> None:
    """With the default time between checkpoints, 10 s: more than the 6 s that the device needs for this run."""
    addresses = ",".join(server.address for server in features)
    service = cluster.server("stylize", f"--features={addresses}", f"--store={cluster.folder / 'killed'}")
    service.wait_until_ready()
    checkpoints = []
    with Client(service.address) as client:
        for event in client.stylize(content, style, size=64, iterations=60, scales=1):
            if isinstance(event, Checkpoint):  # the first of each attempt
                checkpoints.append(event.iteration)
                kill_and_start(service)
    service.stop()
    assert isinstance(event, Result)
    assert len(checkpoints) >= 2
    assert checkpoints == sorted(set(checkpoints))


def test_the_command_line_resumes_by_itself(
    in_one_process: list[StylizeEvent], service: GramletServer, content: Pixels, style: Pixels, tmp_path: Path
) -> None:
    with command(service, content, style, tmp_path, "--json") as process:
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "iteration" and events[-1]["iteration"] == 9:
                kill_and_start(service)
        assert process.wait(60) == 0
    iterations = [(event["iteration"], event["loss"]) for event in events if event["event"] == "iteration"]
    assert iterations == losses(in_one_process)
    assert (tmp_path / "out.png").read_bytes() == png(in_one_process)


def test_an_interrupted_client_frees_the_device_within_an_iteration(
    service: GramletServer, features: list[GramletServer], content: Pixels, style: Pixels, tmp_path: Path
) -> None:
    with command(service, content, style, tmp_path, "--json", iterations=5000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "iteration":
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    # One iteration takes 0.1 s of the device; the calls' ends travel for a moment.
    time.sleep(1.0)
    worked = [server.metric("gramlet_device_seconds_total", kind="descent") for server in features]
    time.sleep(1.0)
    assert [server.metric("gramlet_device_seconds_total", kind="descent") for server in features] == worked
    assert service.metric("gramlet_runs", service="stylize", state="running") == 0
    assert not (tmp_path / "out.png").exists()


def test_a_run_is_handed_on_when_its_servers_leave_in_peace(
    run: Run, in_one_process: list[StylizeEvent], service: GramletServer, features: list[GramletServer]
) -> None:
    servers = itertools.cycle([service, *features])

    def leave() -> None:
        server = next(servers)
        assert server.stop(signal.SIGTERM) == 0
        server.start()

    assert_same(run(at(4, 11, 17, do=leave)), in_one_process)


def command(
    server: GramletServer, content: Pixels, style: Pixels, folder: Path, *flags: str, iterations: int = ITERATIONS
) -> subprocess.Popen[str]:
    """`gramlet stylize`, started."""
    Image.fromarray(content).save(folder / "content.png")
    Image.fromarray(style).save(folder / "style.png")
    paths = [str(folder / "content.png"), str(folder / "style.png"), "-o", str(folder / "out.png")]
    sizes = ["--size", "64", "--iterations", str(iterations), "--server", server.address]
    return subprocess.Popen([*GRAMLET, "stylize", *paths, *sizes, *flags], stdout=subprocess.PIPE, text=True)

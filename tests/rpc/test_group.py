"""`gramlet-server feature --workers N`: several processes on one port are one server to callers and operators."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from gramlet import Client
from gramlet.feature.types import Features
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.cluster import wait_until

COMMAND = [sys.executable, "-m", "gramlet_server", "feature", "--weights=random:0", "--port=0", "--metrics-port=0"]


class Group:
    """The server, and what it said."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        found = re.search(r" on (\S+) with 2 processes, metrics on (\S+)$", self.line)
        assert found, self.line
        self.address, self.metrics_address = found[1], found[2]

    def children(self) -> set[int]:
        """The processes of the group."""
        tasks = f"/proc/{self.process.pid}/task"
        found: set[int] = set()
        for task in os.listdir(tasks):
            # A thread may have ended meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError), open(f"{tasks}/{task}/children") as file:
                found |= {int(child) for child in file.read().split()}
        return found

    def metric(self, name: str) -> dict[str, float]:
        """The sums of a metric by worker."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            samples = [sample for family in families for sample in family.samples if sample.name == name]
        sums: dict[str, float] = {}
        for sample in samples:
            worker = sample.labels.get("worker", "")
            sums[worker] = sums.get(worker, 0) + sample.value
        return sums


@pytest.fixture
def group() -> Iterator[Group]:
    started = Group("--workers=2")
    with started.process:
        yield started
        started.process.kill()


def call(address: str) -> None:
    with Client(address, patience=60) as client:
        picture = np.zeros((32, 32, 3), np.uint8)
        assert isinstance(client.features(picture, stages=["conv1"], pooled=True), Features)


def test_a_group_is_one_server(group: Group) -> None:
    first = group.children()
    assert len(first) == 2
    for _ in range(8):  # each by a connection of its own
        call(group.address)
    assert sum(group.metric("gramlet_requests_total").values()) >= 8
    assert set(group.metric("process_start_time_seconds")) == {"0", "1"}

    killed = min(first)
    os.kill(killed, signal.SIGKILL)
    for _ in range(4):
        call(group.address)
    wait_until(lambda: len(group.children()) == 2 and len(group.metric("process_start_time_seconds")) == 2, 60)
    assert killed not in group.children()
    assert group.metric("gramlet_worker_restarts_total") == {"": 1}

    last = group.children()
    group.process.send_signal(signal.SIGTERM)
    assert group.process.wait(60) == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in last)


def test_callers_see_no_more_than_a_retry_when_processes_are_killed(group: Group) -> None:
    answers = [0] * 4
    is_over = threading.Event()

    def keep_calling(number: int) -> None:
        with Client(group.address, patience=60) as client:  # a connection of its own, with one of the processes
            while not is_over.is_set():
                picture = np.full((32, 32, 3), 2 + answers[number] % 250, np.uint8)
                assert isinstance(client.features(picture, stages=["conv1"], pooled=True), Features)
                answers[number] += 1

    with ThreadPoolExecutor(len(answers)) as pool:
        callers = [pool.submit(keep_calling, number) for number in range(len(answers))]
        try:
            for killed in sorted(group.children()):
                await_answers(answers, callers)
                os.kill(killed, signal.SIGKILL)
                await_answers(answers, callers)
                wait_until(partial(has_two_besides, group, killed), what="another process")
        finally:
            is_over.set()
    for caller in callers:
        caller.result()


def has_two_besides(group: Group, killed: int) -> bool:
    return len(group.children() - {killed}) == 2


def await_answers(answers: list[int], callers: list[Future[None]]) -> None:
    """Waits until every caller has made two more calls, or one has failed."""
    before = list(answers)
    wait_until(
        lambda: all(now >= old + 2 for now, old in zip(answers, before, strict=True)) or any(map(Future.done, callers)),
        what="more answers",
    )


def test_a_group_ends_when_its_first_process_is_killed(group: Group) -> None:
    children = group.children()
    group.process.kill()
    group.process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in children), 60)


def test_a_group_whose_processes_cannot_start_says_so_and_ends() -> None:
    command = [*COMMAND, "--workers=2", "--weights=/nowhere.pth"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 1
    assert "/nowhere.pth" in ended.stderr


def test_only_feature_is_served_by_several_processes() -> None:
    command = [sys.executable, "-m", "gramlet_server", "all", "--workers=2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "--workers" in ended.stderr


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one whose parent has yet to look at it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

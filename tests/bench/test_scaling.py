"""The simulation of autoscaling: the autoscaler is Kubernetes', and the manifests' numbers hold the waiting time."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from tests.bench.autoscaler import Autoscaler, Policy, policies
from tests.bench.scaling import LOADS, Device, Stylization, simulate

POLICY = Policy(
    "any", 10, least=2, most=8, growth=1, growth_seconds=60, shrink=1, shrink_seconds=120, stabilization=600
)
CROWD = {"begin": 12.5 * 3600, "end": 14 * 3600}


def test_it_grows_by_a_doubling_a_minute_and_shrinks_one_by_one():
    scaler = Autoscaler(POLICY)
    assert scaler.replicas(0, [10.5, 9.5], 0) == 2
    assert scaler.replicas(15, [100.0, 100.0], 0) == 4
    assert scaler.replicas(30, [100.0, 100.0], 2) == 4
    assert scaler.replicas(90, [100.0] * 4, 0) == 8
    assert scaler.replicas(105, [0.0] * 8, 0) == 8
    assert scaler.replicas(660, [0.0] * 8, 0) == 8
    assert scaler.replicas(705, [0.0] * 8, 0) == 7
    assert scaler.replicas(720, [0.0] * 7, 0) == 7
    assert scaler.replicas(840, [0.0] * 7, 0) == 6


def test_replicas_that_start_count_as_idle_before_more_are_started():
    assert Autoscaler(POLICY).replicas(0, [20.0, 20.0], 2) == 4
    assert Autoscaler(POLICY).replicas(0, [25.0, 25.0], 2) == 5


def test_a_device_divides_its_time_among_its_descents():
    device = Device(0.0, running_limit=2, queue_limit=1)
    first, second, third = (Stylization(0.0, deque([seconds]), seconds) for seconds in (2.0, 3.0, 1.0))
    for each in (first, second, third):
        device.add(each)
    assert (device.is_full, device.backlog_seconds, device.queue_length) == (True, 6.0, 1)
    assert device.advance(3.9) == []
    assert device.advance(4.0) == [first]
    assert device.backlog_seconds == pytest.approx(2.0)
    assert device.advance(6.0) == [second, third]
    assert device.busy == pytest.approx(6.0)


@pytest.mark.parametrize(("overlay", "median", "most"), [("gpu", 5, 60), ("base", 60, 300)])
def test_the_manifests_hold_the_waiting_time_of_a_crowd(overlay: str, median: float, most: float):
    """Seconds, on the simulated clock: twice as many callers come for ten minutes, and replicas take one to start."""
    outcome = simulate(LOADS[overlay], policies(overlay), **CROWD)
    assert outcome.wait(0.5) < median
    assert outcome.wait(0.99) < most
    assert outcome.refusals == 0
    assert outcome.most_replicas > policies(overlay)["feature"].least
    assert outcome == simulate(LOADS[overlay], policies(overlay), **CROWD)


def test_the_number_of_waiting_pictures_did_not():
    scaled = policies("gpu")
    scaled["feature"] = replace(scaled["feature"], metric="gramlet_queue_length", target=16)
    outcome = simulate(LOADS["gpu"], scaled, **CROWD)
    assert outcome.most_replicas == scaled["feature"].least
    assert outcome.wait(0.99) > 60

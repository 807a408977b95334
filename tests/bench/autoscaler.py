"""Kubernetes' HorizontalPodAutoscaler, as far as the manifests of docker/k8s use it; for bench_scaling.py."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "docker/k8s"
SYNC_SECONDS = 15.0
"""How often it looks, by default."""
TOLERANCE = 0.1
"""The difference of the ratio to the target from 1 within which it does nothing."""


@dataclass(frozen=True)
class Policy:
    """A HorizontalPodAutoscaler with one metric of pods and an average as its target.

    Attributes:
        metric: The name of the metric.
        target: Its mean over the pods that is wanted.
        least, most: Replicas.
        growth: By how much the replicas may grow within `growth_seconds`, as a share of those there were.
        shrink: How many replicas may go within `shrink_seconds`.
        stabilization: Seconds for which the largest number that was wanted stays.
    """

    metric: str
    target: float
    least: int
    most: int
    growth: float
    growth_seconds: float
    shrink: int
    shrink_seconds: float
    stabilization: float


def policies(overlay: str) -> dict[str, Policy]:
    """The autoscalers of the manifests, by the name of what they scale."""
    found: dict[str, dict[str, Any]] = {}
    for file in (K8S / "base/autoscaling.yaml", K8S / overlay / "feature.yaml"):
        for each in yaml.safe_load_all(file.read_text()):
            if each["kind"] == "HorizontalPodAutoscaler":
                # A patch replaces the fields that it has; lists as a whole.
                found[each["metadata"]["name"]] = found.get(each["metadata"]["name"], {}) | each["spec"]
    return {name: _policy(spec) for name, spec in found.items()}


def _policy(spec: dict[str, Any]) -> Policy:
    [metric] = spec["metrics"]
    [up], [down] = (spec["behavior"][direction]["policies"] for direction in ("scaleUp", "scaleDown"))
    assert (up["type"], down["type"]) == ("Percent", "Pods")
    return Policy(
        metric=metric["pods"]["metric"]["name"],
        target=float(metric["pods"]["target"]["averageValue"]),
        least=spec["minReplicas"],
        most=spec["maxReplicas"],
        growth=up["value"] / 100,
        growth_seconds=up["periodSeconds"],
        shrink=down["value"],
        shrink_seconds=down["periodSeconds"],
        stabilization=spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"],
    )


class Autoscaler:
    """Kubernetes' algorithm: the number of replicas from the metric of each pod.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._wanted: deque[tuple[float, int]] = deque()
        self._counts: deque[tuple[float, int]] = deque()

    def replicas(self, now: float, metrics: list[float], starting: int) -> int:
        """How many there should be.

        Args:
            now: Seconds.
            metrics: Of each pod that is ready.
            starting: Pods that have no metric yet.
        """
        policy, current = self._policy, len(metrics) + starting
        wanted = min(policy.most, max(policy.least, self._recommended(metrics, starting)))
        self._wanted.append((now, wanted))
        self._counts.append((now, current))
        _forget(self._wanted, now - policy.stabilization)
        _forget(self._counts, now - max(policy.growth_seconds, policy.shrink_seconds))
        if wanted > current:
            lowest = min(count for at, count in self._counts if at >= now - policy.growth_seconds)
            return max(current, min(wanted, math.ceil(lowest * (1 + policy.growth))))
        wanted = min(current, max(count for _, count in self._wanted))
        highest = max(count for at, count in self._counts if at >= now - policy.shrink_seconds)
        return min(current, max(wanted, highest - policy.shrink))

    def _recommended(self, metrics: list[float], starting: int) -> int:
        current, target = len(metrics) + starting, self._policy.target
        if not metrics:
            return current
        ratio = sum(metrics) / len(metrics) / target
        if abs(ratio - 1) <= TOLERANCE:
            return current
        if starting:
            # A pod without a metric counts as idle before more are started, and as busy before some are stopped.
            assumed = 0.0 if ratio > 1 else target
            with_starting = (sum(metrics) + starting * assumed) / current / target
            if abs(with_starting - 1) <= TOLERANCE or (with_starting > 1) != (ratio > 1):
                return current
            return math.ceil(with_starting * current)
        return math.ceil(ratio * len(metrics))


def _forget(entries: deque[tuple[float, int]], before: float) -> None:
    while entries and entries[0][0] < before:
        entries.popleft()

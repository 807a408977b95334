"""A model of replicas that are scaled: what comes in a day, devices that share their time, and an autoscaler.

bench_scaling.py runs it with the policies of the manifests.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tests.bench.autoscaler import SYNC_SECONDS, Autoscaler, Policy

DAY = 24 * 3600.0


SCRAPE_SECONDS = 5.0


MEAN_SECONDS = 30.0
"""Prometheus: docker/k8s/metrics."""


RETRY_SECONDS = 5.0
"""When a caller comes back whom a full queue has refused."""


@dataclass(frozen=True)
class Load:
    """What comes, and what devices take for it.

    Attributes:
        kinds: Device seconds of the descents of a stylization, one for each scale; and how many are of this kind.
        busiest: Device seconds a second that come in the busiest hour: so many devices are needed.
        running: Descents that share a device.
        queued: Descents that wait for one; more are refused.
    """

    kinds: tuple[tuple[tuple[float, ...], float], ...]
    busiest: float
    running: int
    queued: int = 64

    @property
    def rate(self) -> float:
        """Stylizations a second in the busiest hour."""
        return self.busiest / sum(share * sum(seconds) for seconds, share in self.kinds)


# `default` at 512 px has 160, 120, 80 and 40 iterations at 64, 128, 256 and 512 px; `classic` 300 at one scale. On the
# GPU: seconds an iteration as issue 12 has them for a prototype on an H100, in tf32. On two cores: as RESULTS.md.
LOADS = {
    "gpu": Load(
        kinds=(((0.32, 0.24, 0.22, 0.22), 0.7), ((1.05,), 0.2), ((0.32, 0.34, 0.43, 1.0), 0.1)), busiest=2.5, running=16
    ),
    "base": Load(kinds=(((5.0, 10.0, 24.0, 48.0), 0.8), ((60.0,), 0.2)), busiest=5.0, running=2),
}


def load_curve(second: float) -> float:
    """Arrivals at a time of the day, as a share of the busiest hour's."""
    hour = second / 3600 % 24
    busy = math.exp(-(((hour - 11) / 2.5) ** 2)) + 0.8 * math.exp(-(((hour - 20) / 2) ** 2))
    crowd = 2.0 if 13 <= hour < 13 + 1 / 6 else 1.0
    return crowd * (0.08 + 0.92 * min(1.0, busy))


@dataclass(eq=False)
class Stylization:
    """One picture.

    Attributes:
        came: When.
        rest: Device seconds of the descents that are still to come, the one under way included.
        alone: Device seconds of all.
    """

    came: float
    rest: deque[float]
    alone: float


@dataclass(eq=False)
class Device:
    """A replica of FeatureService. Its descents get equal shares of its time.

    Attributes:
        ready: When it has started.
        value: The metric as the autoscaler sees it.
        busy: Seconds in which it worked.
    """

    ready: float
    running_limit: int
    queue_limit: int
    value: float = 0.0
    busy: float = 0.0
    _samples: deque[float] = field(default_factory=lambda: deque(maxlen=round(MEAN_SECONDS / SCRAPE_SECONDS)))
    _running: list[tuple[float, int, Stylization]] = field(default_factory=list)  # by the share at which they end
    _waiting: deque[Stylization] = field(default_factory=deque)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _share: float = 0.0  # seconds that each descent got which was there from the beginning
    _now: float = 0.0

    @property
    def open(self) -> int:
        """Descents that it has."""
        return len(self._running) + len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether it refuses more."""
        return self.open >= self.running_limit + self.queue_limit

    @property
    def backlog_seconds(self) -> float:
        """gramlet_device_backlog_seconds."""
        return sum(end - self._share for end, _, _ in self._running) + sum(each.rest[0] for each in self._waiting)

    @property
    def queue_length(self) -> float:
        """gramlet_queue_length: of all running descents but one, a turn waits."""
        return max(0, len(self._running) - 1)

    def add(self, stylization: Stylization) -> None:
        """Takes the next descent of a stylization."""
        self._waiting.append(stylization)
        self._fill()

    def next_end(self) -> float:
        """When the next descent ends, if none is added."""
        return self._now + (self._running[0][0] - self._share) * len(self._running) if self._running else math.inf

    def advance(self, until: float) -> list[Stylization]:
        """Works until a time; returns whose descents have ended."""
        ended = []
        while (end := self.next_end()) <= until:
            self._work(end)
            ended.append(heapq.heappop(self._running)[2])
            self._fill()
        self._work(until)
        return ended

    def sample(self, value: float) -> None:
        """Notes the metric."""
        self._samples.append(value)
        self.value = sum(self._samples) / len(self._samples)

    def drain(self) -> list[Stylization]:
        """Hands out its descents, with what is left of them."""
        for end, _, stylization in self._running:
            stylization.rest[0] = end - self._share
        return [*(stylization for _, _, stylization in sorted(self._running)), *self._waiting]

    def _work(self, until: float) -> None:
        if self._running:
            self._share += (until - self._now) / len(self._running)
            self.busy += until - self._now
        self._now = until

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.running_limit:
            stylization = self._waiting.popleft()
            heapq.heappush(self._running, (self._share + stylization.rest[0], next(self._numbers), stylization))


@dataclass(frozen=True)
class Outcome:
    """What a day came to.

    Attributes:
        waits: Seconds that each stylization waited, sorted.
        refusals: How often a full queue has refused a descent.
        replica_seconds: Of FeatureService.
        busy_seconds: In which they worked.
        most_replicas: Of FeatureService.
        most_relays: Replicas of StylizeService.
        most_runs: Runs at one of those.
    """

    waits: list[float]
    refusals: int
    replica_seconds: float
    busy_seconds: float
    most_replicas: int
    most_relays: int
    most_runs: int

    def wait(self, share: float) -> float:
        """Seconds within which this share of the stylizations has waited."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


def arrivals(load: Load, begin: float, end: float, seed: int) -> Iterator[Stylization]:
    """Stylizations as they come: a Poisson process whose rate is the load curve's (by thinning)."""
    random = np.random.default_rng(seed)
    shares = [share for _, share in load.kinds]
    highest = 2 * load.rate
    now = begin
    while (now := now + random.exponential(1 / highest)) < end:
        if random.random() * highest < load.rate * load_curve(now):
            seconds = load.kinds[random.choice(len(shares), p=shares)][0]
            yield Stylization(now, deque(seconds), sum(seconds))


class Cluster:
    """The replicas, and what happens between them.

    Args:
        load: What comes.
        scaled: The policies of `feature` and `stylize`.
        start_up: Seconds until a new FeatureService is ready.
        begin: The time.
    """

    def __init__(self, load: Load, scaled: dict[str, Policy], start_up: float, begin: float) -> None:
        self._load, self._start_up = load, start_up
        self._scalers = {name: Autoscaler(policy) for name, policy in scaled.items()}
        self._read = METRICS[scaled["feature"].metric]
        self._devices = [self._device(begin) for _ in range(scaled["feature"].least)]
        self._relays = [begin] * scaled["stylize"].least  # when each StylizeService is ready
        self._runs = 0
        self._refused: list[tuple[float, int, Stylization]] = []
        self._numbers = itertools.count()
        self._waits: list[float] = []
        self._refusals = self._most_replicas = self._most_relays = self._most_runs = 0
        self._replica_seconds = self._gone_busy = 0.0

    def come(self, stylization: Stylization) -> None:
        """A new stylization."""
        self._runs += 1
        self._send(stylization, stylization.came)

    def advance(self, until: float) -> None:
        """Goes on to a time, one end of a descent after the other."""
        while True:
            at = min(device.next_end() for device in self._devices)
            at = min(at, self._refused[0][0] if self._refused else math.inf, until)
            for stylization in [each for device in self._devices for each in device.advance(at)]:
                self._ended(stylization, at)
            while self._refused and self._refused[0][0] <= at:
                self._send(heapq.heappop(self._refused)[2], at)
            if at == until:
                return

    def scrape(self) -> None:
        """What Prometheus does."""
        for device in self._devices:
            device.sample(self._read(device))
        self._replica_seconds += SCRAPE_SECONDS * len(self._devices)

    def scale(self, now: float) -> None:
        """What the autoscalers do. The youngest replica goes first, and its descents go on elsewhere."""
        ready = [device.value for device in self._devices if device.ready <= now]
        wanted = self._scalers["feature"].replicas(now, ready, len(self._devices) - len(ready))
        gone, self._devices = self._devices[wanted:], self._devices[:wanted]
        self._devices += [self._device(now + self._start_up) for _ in range(wanted - len(self._devices))]
        for device in gone:
            self._gone_busy += device.busy
            for stylization in device.drain():
                self._send(stylization, now)
        # StylizeServices start faster, and Envoy gives each as many runs as the others.
        relays = sum(at <= now for at in self._relays)
        self._most_runs = max(self._most_runs, math.ceil(self._runs / relays))
        wanted = self._scalers["stylize"].replicas(now, [self._runs / relays] * relays, len(self._relays) - relays)
        self._relays = self._relays[:wanted] + [now + self._start_up / 4] * (wanted - len(self._relays))
        self._most_replicas = max(self._most_replicas, len(self._devices))
        self._most_relays = max(self._most_relays, len(self._relays))

    def outcome(self) -> Outcome:
        """What it came to, so far."""
        return Outcome(
            waits=sorted(self._waits),
            refusals=self._refusals,
            replica_seconds=self._replica_seconds,
            busy_seconds=self._gone_busy + sum(device.busy for device in self._devices),
            most_replicas=self._most_replicas,
            most_relays=self._most_relays,
            most_runs=self._most_runs,
        )

    def _device(self, ready: float) -> Device:
        return Device(ready, self._load.running, self._load.queued)

    def _send(self, stylization: Stylization, now: float) -> None:
        # Envoy's full scan: the replica with the fewest open calls, of those that are ready.
        device = min((each for each in self._devices if each.ready <= now), key=lambda each: each.open)
        if device.is_full:
            self._refusals += 1
            heapq.heappush(self._refused, (now + RETRY_SECONDS, next(self._numbers), stylization))
            return
        device.advance(now)
        device.add(stylization)

    def _ended(self, stylization: Stylization, now: float) -> None:
        stylization.rest.popleft()
        if stylization.rest:
            self._send(stylization, now)
            return
        self._runs -= 1
        self._waits.append(max(0.0, now - stylization.came - stylization.alone))


def simulate(
    load: Load,
    scaled: dict[str, Policy],
    *,
    begin: float = 0.0,
    end: float = DAY,
    start_up: float = 60.0,
    seed: int = 0,
) -> Outcome:
    """A part of a day, in seconds after midnight."""
    cluster = Cluster(load, scaled, start_up, begin)
    coming = arrivals(load, begin, end, seed)
    next_one = next(coming, None)
    for tick in range(int((end - begin) / SCRAPE_SECONDS)):
        now = begin + tick * SCRAPE_SECONDS
        while next_one is not None and next_one.came <= now:
            cluster.advance(next_one.came)
            cluster.come(next_one)
            next_one = next(coming, None)
        cluster.advance(now)
        cluster.scrape()
        if tick % round(SYNC_SECONDS / SCRAPE_SECONDS) == 0:
            cluster.scale(now)
    return cluster.outcome()


METRICS: dict[str, Callable[[Device], float]] = {
    "gramlet_device_backlog_seconds": lambda device: device.backlog_seconds,
    "gramlet_queue_length": lambda device: device.queue_length,
}

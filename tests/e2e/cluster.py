"""A gramlet cluster of real processes on loopback: servers, Envoy with docker/envoy.yaml, SeaweedFS.

For the tests of this folder and for tests/bench/bench_scale.py. Every process is stopped when its `with` block ends.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

BIN = Path(sys.executable).parent
SLOW_SERVER = Path(__file__).with_name("slow_server.py")
DOCKER = Path(__file__).parents[2] / "docker"
SERVICES = ("feature", "stylize", "train", "embed")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float = 60.0, what: str = "") -> None:
    """Waits for something that only polling tells."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what or true} was not so after {seconds} s")
        time.sleep(0.05)


@dataclass
class Daemon:
    """One process that can be killed and started again with the same command line. Its output goes to a file."""

    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ended: bool = False

    def start(self) -> None:
        """Starts it, or starts it again. It is not ready yet."""
        if self.ended:
            raise RuntimeError("the cluster is closed")  # a thread of a test that has failed
        with self.log.open("ab") as output:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(self.command, env=environment, stdout=output, stderr=output)

    def wait_until_ready(self, seconds: float = 90.0) -> None:
        """Waits until it answers."""

        def ready() -> bool:
            assert self.process
            assert self.process.poll() is None, f"{self.command}\n{self.log.read_text()[-4000:]}"
            return self.ready()

        wait_until(ready, seconds, f"{self.command}: ready")

    def kill(self) -> None:
        """kill -9."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Sends a signal and waits for the end; returns the exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(seconds)

    @property
    def resident_bytes(self) -> int:
        """Its resident memory now."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    @property
    def processor_seconds(self) -> float:
        """The processor time that it has taken."""
        assert self.process
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class GramletServer(Daemon):
    """A gramlet-server, with its addresses."""

    port: int = 0
    metrics_port: int = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        return metric(f"http://127.0.0.1:{self.metrics_port}/metrics", name, **labels)


def metric(url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels, from a Prometheus endpoint."""
    samples = (s for family in metrics(url) for s in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def metrics(url: str) -> list:  # type: ignore[type-arg]  # prometheus_client has no types
    """All metrics of a Prometheus endpoint."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def is_serving(address: str, service: str = "") -> bool:
    """Whether a server says so."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status
        except grpc.RpcError:
            return False
        return bool(status == health_pb2.HealthCheckResponse.SERVING)


D = TypeVar("D", bound=Daemon)


@contextmanager
def ready(*daemons: D) -> Iterator[list[D]]:
    """The processes, once they all answer. They are stopped at the end."""
    for daemon in daemons:
        daemon.wait_until_ready()
    yield list(daemons)
    for daemon in daemons:
        daemon.stop()


def kill_in_turns(servers: Iterable[GramletServer], seconds: float, done: threading.Event) -> int:
    """Kills one server after another, with so many seconds between them, until `done`; how many were killed."""
    kills = 0
    for server in itertools.cycle(servers):
        if done.wait(seconds):
            break
        server.kill()
        server.start()
        kills += 1
        # The next one only when this one is back: starting takes longer than a few seconds on a busy machine, and with
        # all of them away there would be nothing to fail over to.
        while not (done.is_set() or is_serving(server.address)):
            done.wait(0.2)
    return kills


class Cluster:
    """Makes the processes, and stops them all when it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._exits = ExitStack()
        self._number = 0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def server(
        self, *arguments: str, environment: Mapping[str, str] | None = None, seconds_per_picture: float = 0.0
    ) -> GramletServer:
        """A gramlet-server with these arguments, on ports of its own, started.

        Args:
            arguments: Of the command line.
            environment: Variables beside those of this process.
            seconds_per_picture: The least time that its device takes for a picture.
        """
        port, metrics_port = free_port(), free_port()
        program = [sys.executable, "-m", "gramlet_server"]
        if seconds_per_picture:
            program = [sys.executable, str(SLOW_SERVER), str(seconds_per_picture)]
        command = [*program, *arguments, f"--port={port}", f"--metrics-port={metrics_port}"]
        # Several processes share this machine's few cores: one thread each.
        threads = {"OMP_NUM_THREADS": "1", **(environment or {})}
        return self._started(
            GramletServer(
                command,
                self._log(arguments[0]),
                lambda: is_serving(f"127.0.0.1:{port}"),
                threads,
                port=port,
                metrics_port=metrics_port,
            )
        )

    def features(self, *arguments: str, weights: str = "random:0", seconds_per_picture: float = 0.0) -> GramletServer:
        """A FeatureService without a cache of features: it computes everything, however often it is asked."""
        arguments = (f"--weights={weights}", "--feature-cache-bytes=0", *arguments)
        return self.server("feature", *arguments, seconds_per_picture=seconds_per_picture)

    def envoy(self, **addresses: Sequence[str]) -> Envoy:
        """Envoy in front of the addresses of each service: `envoy(feature=[a, b], stylize=[c])`."""
        ports = {"edge": free_port(), "metrics": free_port(), "admin": free_port()}
        return self.envoy_with(local_configuration(ports, addresses), ports)

    def envoy_with(self, configuration: object, ports: dict[str, int]) -> Envoy:
        """Envoy with a configuration of one's own."""
        config = self.folder / f"envoy-{self._number}.yaml"
        config.write_text(yaml.safe_dump(configuration))
        # Several Envoys on one machine share no memory.
        command = [str(BIN / "envoy"), "--config-path", str(config), "--log-level", "warning", "--use-dynamic-base-id"]
        return self._started(Envoy(command, self._log("envoy"), lambda: True, ports=ports))

    def seaweedfs(self) -> SeaweedFS:
        """An S3 store with docker/seaweedfs.json's credentials."""
        data = self.folder / f"store-{self._number}"
        data.mkdir()
        ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
        # Each listens for gRPC as well, 10000 higher, unless told otherwise.
        others = [f"-{name}.port.grpc={free_port()}" for name in ports]
        command = [
            *(str(BIN / "weed"), "-logtostderr", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            # Its other catalogs would listen on ports of their own choice.
            *("-filer", "-s3", f"-s3.config={DOCKER / 'seaweedfs.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"),
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *others,
        ]
        return self._started(SeaweedFS(command, self._log("weed"), lambda: True, ports=ports))

    def _started(self, daemon):  # type: ignore[no-untyped-def]  # the daemon that it is given
        daemon.start()
        self._exits.callback(_end, daemon)
        return daemon

    def _log(self, name: str) -> Path:
        self._number += 1
        return self.folder / f"{name}-{self._number}.log"


def _end(daemon: Daemon) -> None:
    daemon.ended = True
    if daemon.process and daemon.process.poll() is None:
        daemon.kill()


@dataclass
class Envoy(Daemon):
    """Envoy, with its addresses."""

    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ready = lambda: _answers(f"{self._metrics_address}/ready")

    @property
    def address(self) -> str:
        """Where the services are."""
        return f"127.0.0.1:{self.ports['edge']}"

    @property
    def _metrics_address(self) -> str:
        return f"http://127.0.0.1:{self.ports['metrics']}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        return metric(f"{self._metrics_address}/stats/prometheus", name, **labels)

    def healthy(self, service: str) -> int:
        """Replicas of a service that calls may go to."""
        return int(self.metric("envoy_cluster_membership_healthy", envoy_cluster_name=service))

    def wait_for_replicas(self, **numbers: int) -> None:
        """Waits until it is ready and has found so many healthy replicas: `wait_for_replicas(feature=3)`."""
        self.wait_until_ready()
        for service, number in numbers.items():
            wait_until(lambda: self.healthy(service) == number, 60, f"{number} healthy {service}")  # noqa: B023


def local_configuration(  # type: ignore[type-arg]
    ports: Mapping[str, int], addresses: Mapping[str, Sequence[str]], added: Mapping[str, list] | None = None
) -> dict:
    """docker/envoy.yaml as it is, but for the addresses: loopback ports in place of names and standard ports.

    Args:
        ports: Of each listener, and of `admin`.
        addresses: Of the replicas of each service.
        added: Static resources of a second configuration, merged as Envoy merges --config-yaml.
    """
    config = yaml.safe_load((DOCKER / "envoy.yaml").read_text().replace("/etc/envoy/", f"{DOCKER}/"))
    static = config["static_resources"]
    for kind, more in (added or {}).items():
        static[kind] += more
    where = {listener["name"]: listener["address"]["socket_address"] for listener in static["listeners"]}
    where["admin"] = config["admin"]["address"]["socket_address"]
    for name, port in ports.items():
        where[name].update(address="127.0.0.1", port_value=port)
    own = {name: [f"127.0.0.1:{port}"] for name, port in ports.items()}
    for cluster in static["clusters"]:
        found = own.get(cluster["name"]) or addresses.get(cluster["name"], ())
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [_endpoint(address) for address in found]}]
        if "cluster_type" in cluster:
            # Many addresses, where the original has one name with many addresses.
            del cluster["cluster_type"]
            cluster["type"] = "STATIC"
    return config


def _endpoint(address: str) -> dict:  # type: ignore[type-arg]
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


@dataclass
class SeaweedFS(Daemon):
    """An S3 store."""

    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ready = lambda: _answers(f"http://127.0.0.1:{self.ports['s3']}/healthz")

    @property
    def variables(self) -> dict[str, str]:
        """How a process finds it."""
        [identity] = json.loads((DOCKER / "seaweedfs.json").read_text())["identities"]
        [credentials] = identity["credentials"]
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}",
            "AWS_ACCESS_KEY_ID": credentials["accessKey"],
            "AWS_SECRET_ACCESS_KEY": credentials["secretKey"],
            "AWS_REGION": "us-east-1",
        }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

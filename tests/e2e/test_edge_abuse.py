"""docker/envoy.yaml against callers that abuse it: foreign hosts are refused, abusive connections end, others go on."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from gramlet import Client
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.health import FEATURE

from tests.e2e.cluster import DOCKER, Cluster, Envoy, GramletServer, free_port, local_configuration, wait_until
from tests.e2e.http2 import FLOODS, Connection

MODEL = f"/{FEATURE}/GetModel"
EXTRACT = f"/{FEATURE}/Extract"
WATCH = "/grpc.health.v1.Health/Watch"


def web(edge: Envoy, host: str) -> int:
    """The HTTP status of a call of a page that is served as `host`."""
    connection = http.client.HTTPConnection(*edge.address.split(":"), timeout=30)
    frame = bytes(5)
    headers = {"host": host, "origin": f"http://{host}", "content-type": "application/grpc-web+proto"}
    connection.request("POST", MODEL, frame, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:50051", "localhost.evil.example", "127.0.0.1.evil.example", "gramlet.evil"]
)
def test_a_page_of_another_host_is_refused(edge: Envoy, host: str) -> None:
    assert web(edge, host) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:50051", "127.0.0.1:1", "[::1]:50051", "envoy", "gramlet:50051"]
)
def test_our_own_hosts_are_answered(edge: Envoy, host: str) -> None:
    assert web(edge, host) == 200


def test_grpc_says_what_to_do_about_a_foreign_host(edge: Envoy) -> None:
    options = [("grpc.default_authority", "gramlet.example.org")]
    with grpc.insecure_channel(edge.address, options=options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            feature_pb2_grpc.FeatureServiceStub(channel).GetModel(feature_pb2.GetModelRequest(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "hosts.yaml" in caught.value.details()


def test_a_page_may_ask_whether_it_may_call(edge: Envoy) -> None:
    connection = http.client.HTTPConnection(*edge.address.split(":"), timeout=30)
    asked = {"origin": "http://localhost:8080", "access-control-request-method": "POST"}
    connection.request("OPTIONS", MODEL, headers=asked)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "http://localhost:8080")
    connection.close()


NO_GRPC = {
    "text": ("POST", {"content-type": "text/plain"}),
    "no content type": ("POST", {}),
    "a page": ("GET", {}),
    "wide headers": ("POST", {"content-type": "application/grpc-web+proto", "x-wide": "x" * 12_000}),
    "a wrong deadline": ("POST", {"content-type": "application/grpc-web+proto", "grpc-timeout": "soon"}),
    "a wrong encoding": ("POST", {"content-type": "application/grpc-web+proto", "grpc-encoding": "none-such"}),
}


@pytest.mark.parametrize("kind", NO_GRPC)
def test_a_request_that_is_no_grpc_does_not_put_a_replica_aside(edge: Envoy, kind: str) -> None:
    method, headers = NO_GRPC[kind]
    ejections = "envoy_cluster_outlier_detection_ejections_enforced_total"
    before = edge.metric(ejections)
    statuses = set()
    with good_calls(edge.address) as call:
        for _ in range(20):
            connection = http.client.HTTPConnection(*edge.address.split(":"), timeout=30)
            connection.request(method, MODEL, b"no message" if method == "POST" else None, headers)
            statuses.add(connection.getresponse().status)
            connection.close()
        call()
    assert edge.metric(ejections) == before
    assert 503 not in statuses


@contextmanager
def good_calls(address: str) -> Iterator[Callable[[], None]]:
    """Makes a call that must succeed at once, on a connection of its own."""
    with Client(address, patience=0.0) as client:

        def call() -> None:
            assert client.model().backbone == "resnet50"

        call()
        yield call


def test_a_connection_that_only_resets_is_closed(edge: Envoy) -> None:
    with Connection(edge.address) as abuser, good_calls(edge.address) as call:
        for _ in range(100):
            if not abuser.send(b"".join(abuser.call(EXTRACT, reset=True) for _ in range(50))):
                break
            call()
        wait_until(abuser.ended.is_set, what="the end of the connection")
        call()


@pytest.mark.parametrize("kind", sorted(FLOODS.keys() - {"unknown"}))
def test_a_flood_of_frames_ends_its_connection(edge: Envoy, kind: str) -> None:
    with Connection(edge.address) as abuser, good_calls(edge.address) as call:
        for _ in range(2000):
            if not abuser.send(FLOODS[kind] * 1000):
                break
        assert abuser.ended.is_set()
        call()


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("way", ["straight", "envoy"])
def test_good_callers_are_answered_beside_a_flood_of_frames(
    edge: Envoy, replicas: list[GramletServer], kind: str, way: str
) -> None:
    address = edge.address if way == "envoy" else replicas[0].address
    with Connection(address) as abuser, good_calls(address) as call:
        for _ in range(50):
            abuser.send(FLOODS[kind] * 1000)
            call()


def test_a_connection_that_reads_nothing_is_closed(edge: Envoy) -> None:
    with Connection(edge.address, reads=False) as abuser, good_calls(edge.address) as call:
        for _ in range(200):
            if not abuser.send(b"".join(abuser.ping() for _ in range(10_000))):
                break
            call()
        assert abuser.ended.is_set()
        call()


def test_silent_streams_and_watches_that_take_nothing_leave_others_unharmed(edge: Envoy) -> None:
    with good_calls(edge.address) as call:
        with ExitStack() as opened:
            for _ in range(4):
                abuser = opened.enter_context(Connection(edge.address, window=0))
                abuser.send(b"".join(abuser.call(EXTRACT) + abuser.call(WATCH, ends=True) for _ in range(100)))
                call()
        call()


def test_full_memory_refuses_requests_and_envoy_goes_on(cluster: Cluster, replicas: list[GramletServer]) -> None:
    ports = {"edge": free_port(), "metrics": free_port(), "admin": free_port()}
    config = local_configuration(ports, {"feature": [replicas[0].address]})
    [heap] = [each for each in config["overload_manager"]["resource_monitors"] if "fixed_heap" in each["name"]]
    heap["typed_config"]["max_heap_size_bytes"] = 1  # it is always too full
    envoy = cluster.envoy_with(config, ports)
    with grpc.insecure_channel(envoy.address) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)

        def is_refused() -> bool:
            try:
                stub.GetModel(feature_pb2.GetModelRequest(), timeout=2)
            except grpc.RpcError as error:
                return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return False

        wait_until(is_refused, what="the refusal")
    assert envoy.process is not None
    assert envoy.process.poll() is None
    envoy.stop()


def test_the_hosts_of_the_overlay_are_those_of_the_base_and_one_more() -> None:
    base, outside = (DOCKER / f"k8s/{name}/hosts.yaml" for name in ("base", "outside"))
    names = [
        {line.split("exact: ")[1].split(",")[0] for line in file.read_text().splitlines() if "exact: " in line}
        for file in (base, outside)
    ]
    assert names[1] - names[0] == {"gramlet.example.org"}
    assert names[0] < names[1]

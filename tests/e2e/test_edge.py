"""docker/envoy.yaml in a real Envoy, before real servers."""

from __future__ import annotations

import json
import re
import struct
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
import yaml
from gramlet import Client, Tls
from gramlet.errors import Unavailable
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.health import FEATURE, STYLIZE, TRAIN, Health
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.e2e.cluster import DOCKER, Cluster, Envoy, GramletServer, free_port, local_configuration, wait_until

OVERFLOW = "envoy_cluster_upstream_rq_active_overflow_total"  # the parser adds the _total


def test_every_service_is_found_through_one_address(edge: Envoy, replicas: list[GramletServer], cluster: Cluster):
    stylize = cluster.server("stylize", f"--features={edge.address}", f"--store={cluster.folder / 'found'}")
    stylize.wait_until_ready()
    both = cluster.envoy(feature=[replicas[0].address], stylize=[stylize.address])
    both.wait_for_replicas(feature=1, stylize=1)
    with Client(both.address) as client:
        status = client.status()
    assert status.health[FEATURE] is status.health[STYLIZE] is Health.SERVING
    assert status.health[TRAIN] is Health.UNREACHABLE  # Envoy knows the service, and no replica of it
    assert status.model is not None
    assert status.stylize is not None
    both.stop()
    stylize.stop()


def test_browsers_speak_grpc_web_with_it(edge: Envoy):
    """HTTP/1.1, as gRPC-Web has it: a frame of the message, then a frame of the trailers."""
    message = feature_pb2.GetModelRequest().SerializeToString()
    request = urllib.request.Request(
        f"http://{edge.address}/{FEATURE}/GetModel",
        data=struct.pack(">BI", 0, len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "http://localhost:8080"},
    )
    with urllib.request.urlopen(request) as answer:
        body, headers = answer.read(), answer.headers
    flag, length = struct.unpack(">BI", body[:5])
    model = feature_pb2.GetModelResponse.FromString(body[5 : 5 + length])
    assert (flag, model.backbone) == (0, "resnet50")
    assert b"grpc-status:0" in body[5 + length :].replace(b" ", b"")
    assert headers["access-control-allow-origin"] == "http://localhost:8080"
    assert "grpc-status-details-bin" in headers["access-control-expose-headers"]


def test_nobody_healthy_is_unavailable_at_once(cluster: Cluster):
    envoy = cluster.envoy(feature=[f"127.0.0.1:{free_port()}"])
    envoy.wait_until_ready()
    with Client(envoy.address, patience=0.0) as client, pytest.raises(Unavailable, match="no healthy upstream"):
        client.model()
    envoy.stop()


@contextmanager
def sick_replica() -> Iterator[str]:
    """A FeatureService that says it is well and fails its calls."""

    class Sick(feature_pb2_grpc.FeatureServiceServicer):
        def GetModel(self, request: feature_pb2.GetModelRequest, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sick")

    server = grpc.server(futures.ThreadPoolExecutor(8))
    feature_pb2_grpc.add_FeatureServiceServicer_to_server(Sick(), server)
    well = health.HealthServicer()
    well.set(FEATURE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(well, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_a_replica_that_fails_its_calls_is_put_aside_and_no_caller_notices(
    cluster: Cluster, replicas: list[GramletServer]
):
    with sick_replica() as sick:
        envoy = cluster.envoy(feature=[replicas[0].address, sick])
        envoy.wait_for_replicas(feature=2)
        with Client(envoy.address, patience=0.0) as client:
            for _ in range(40):
                client.model()
        ejections = "envoy_cluster_outlier_detection_ejections_enforced_total"
        wait_until(lambda: envoy.metric(ejections, envoy_cluster_name="feature") >= 1)
        envoy.stop()


def test_a_full_circuit_breaker_is_unavailable_and_waited_out(cluster: Cluster, replicas: list[GramletServer]):
    ports = {"edge": free_port(), "metrics": free_port(), "admin": free_port()}
    config = local_configuration(ports, {"feature": [replicas[0].address]})
    [feature] = [c for c in config["static_resources"]["clusters"] if c["name"] == "feature"]
    feature["circuit_breakers"]["thresholds"][0]["max_requests"] = 1
    envoy = cluster.envoy_with(config, ports)
    envoy.wait_for_replicas(feature=1)
    with grpc.insecure_channel(envoy.address) as channel, Client(envoy.address) as client:
        more = futures.Future[feature_pb2.ExtractStreamRequest]()
        stream = feature_pb2_grpc.FeatureServiceStub(channel).ExtractStream(iter(more.result, None))
        wait_until(lambda: envoy.metric("envoy_cluster_upstream_rq_active", envoy_cluster_name="feature") == 1)
        with pytest.raises(Unavailable, match="overflow"):
            client.with_options(patience=0.0).model()
        with futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.model)
            wait_until(lambda: envoy.metric(OVERFLOW) >= 2)
            stream.cancel()
            assert waiting.result().backbone == "resnet50"
        more.cancel()
    envoy.stop()


def test_tls_at_the_edge_as_kubernetes_adds_it(cluster: Cluster, replicas: list[GramletServer], tmp_path: Path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "tls.crt", append=True)
    certificate = (DOCKER / "k8s/tls/certificate.yaml").read_text().replace("/secrets/tls", str(tmp_path))
    (tmp_path / "certificate.yaml").write_text(certificate)
    listener = (DOCKER / "k8s/tls/listener.yaml").read_text().replace("/etc/envoy-tls", str(tmp_path))
    added = yaml.safe_load(listener)["static_resources"]

    ports = {"edge": free_port(), "metrics": free_port(), "admin": free_port(), "tls": free_port()}
    config = local_configuration(ports, {"feature": [replicas[0].address]}, added)
    envoy = cluster.envoy_with(config, ports)
    envoy.wait_for_replicas(feature=1)
    with Client(f"localhost:{ports['tls']}", tls=Tls(ca=tmp_path / "ca.pem")) as client:
        assert client.model().backbone == "resnet50"
    envoy.stop()


def test_the_board_shows_metrics_that_exist(edge: Envoy, replicas: list[GramletServer]):
    """Every metric of the Grafana board is one that a server or Envoy really has."""
    with Client(edge.address) as client:
        client.model()
    board = json.loads((DOCKER / "observability/grafana/boards/gramlet.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked = {name for query in queries for name in re.findall(r"\b(?:gramlet|envoy|process)_\w+\b", query)}
    asked.remove("envoy_cluster_name")  # a label
    names = exposed(f"http://127.0.0.1:{replicas[0].metrics_port}/metrics")
    names |= exposed(f"http://127.0.0.1:{edge.ports['metrics']}/stats/prometheus")
    assert asked - names == set()
    assert len(asked) > 10


def exposed(url: str) -> set[str]:
    """The metrics of an endpoint by the names Prometheus keeps them under, with or without samples yet."""
    with urllib.request.urlopen(url) as answer:
        types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", answer.read().decode(), re.MULTILINE))
    histograms = {name for name, kind in types.items() if kind == "histogram"}
    return {*types, *(f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count"))}

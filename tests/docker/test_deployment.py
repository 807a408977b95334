"""What docker/ says to itself and to the servers: variables, ports, times and names that have to agree."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gramlet.health import SERVICES
from gramlet.transport.channel import _IDEMPOTENT
from gramlet_server.runtime.config import ServerSettings, Settings
from gramlet_server.runtime.metrics import Metrics

from tests.docker.image_builder import instructions, stages

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
KUBECTL = Path(sys.executable).parent / "kubectl"
SETTINGS = {
    f"GRAMLET_{setting.name.upper()}"
    for group in dataclasses.fields(Settings)
    for setting in dataclasses.fields(type(group.default))
    if "parse" in setting.metadata
}
NAMES = ("feature", "stylize", "train", "embed")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module", params=["base", "gpu", "outside"])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """All objects of an overlay, as kubectl renders them."""
    if not KUBECTL.exists():
        pytest.skip("kubectl is absent")
    overlay = DOCKER / "k8s" / request.param
    rendered = subprocess.run([KUBECTL, "kustomize", overlay], check=True, capture_output=True)
    return list(yaml.safe_load_all(rendered.stdout))


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"
    }


def variables(objects: list[dict[str, Any]], pod: dict[str, Any]) -> dict[str, str]:
    """What a pod's container finds in its environment, as far as it is written here."""
    maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    [container] = pod["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]
    return found | {one["name"]: one.get("value", "") for one in container.get("env", ())}


def test_every_variable_of_a_server_is_one_that_it_reads(compose: dict[str, Any], objects: list[dict[str, Any]]):
    image = re.findall(r"\b(GRAMLET_\w+)=", (DOCKER / "Dockerfile").read_text())
    composed = [name for service in compose.values() for name in service.get("environment", ())]
    deployed = [name for pod in pods(objects).values() for name in variables(objects, pod)]
    used = {name for name in (*image, *composed, *deployed) if name.startswith("GRAMLET_")}
    assert used - SETTINGS == set()


def test_a_server_has_the_time_to_drain(compose: dict[str, Any], objects: list[dict[str, Any]]):
    drain = ServerSettings.drain_seconds
    for name in NAMES:
        delay = float(compose[name]["environment"]["GRAMLET_DRAIN_DELAY_SECONDS"])
        assert float(compose[name]["stop_grace_period"].removesuffix("s")) > delay + drain + 5
    for name, pod in pods(objects).items():
        if name in NAMES:
            found = variables(objects, pod)
            needed = float(found["GRAMLET_DRAIN_DELAY_SECONDS"]) + float(found["GRAMLET_DRAIN_SECONDS"])
            before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > before + needed + 5


def test_compose_builds_targets_and_mounts_files_that_exist(compose: dict[str, Any]):
    _, targets = stages(instructions((DOCKER / "Dockerfile").read_text()))
    volumes = yaml.safe_load((DOCKER / "compose.yaml").read_text())["volumes"]
    for service in compose.values():
        assert service.get("build", {}).get("target", "all") in targets
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert source in volumes or (DOCKER / source).exists()


def test_pods_are_as_locked_up_as_kubernetes_can(objects: list[dict[str, Any]]):
    for pod in pods(objects).values():
        assert pod["securityContext"]["runAsNonRoot"]
        # Or the Service `gramlet` puts GRAMLET_PORT=tcp://... into every pod.
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()
            assert {"readinessProbe", "livenessProbe"} <= container.keys()


def test_what_selects_pods_finds_them(objects: list[dict[str, Any]]):
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in objects if each["kind"] == "Deployment"]
    for each in objects:
        selector = each.get("spec", {}).get("selector", {})
        wanted = selector.get("matchLabels", selector)
        if each["kind"] in ("Service", "PodDisruptionBudget", "Deployment"):
            assert any(wanted.items() <= found.items() for found in labels), each["metadata"]["name"]


def test_what_autoscaling_goes_by_is_exported_and_adapted(objects: list[dict[str, Any]]):
    scalers = [each["spec"] for each in objects if each["kind"] == "HorizontalPodAutoscaler"]
    wanted = {metric["pods"]["metric"]["name"] for spec in scalers for metric in spec["metrics"]}
    rules = yaml.safe_load((DOCKER / "k8s/metrics/adapter-config.yaml").read_text())["rules"]
    series = [rule["seriesQuery"].partition("{")[0] for rule in rules]
    exported = Metrics().registry._names_to_collectors
    assert set(series) <= exported.keys()
    adapted = {rule.get("name", {}).get("as", name) for rule, name in zip(rules, series, strict=True)}
    assert wanted == adapted
    # A Deployment that is scaled says nothing of its replicas, or each `kubectl apply` would reset them.
    scaled = {spec["scaleTargetRef"]["name"] for spec in scalers}
    for each in objects:
        if each["kind"] == "Deployment" and each["metadata"]["name"] in NAMES:
            assert ("replicas" in each["spec"]) == (each["metadata"]["name"] not in scaled)


def test_envoy_routes_every_service_to_its_own_replicas():
    config = yaml.safe_load((DOCKER / "envoy.yaml").read_text())["static_resources"]
    checked = {
        check["grpc_health_check"]["service_name"]: cluster["name"]
        for cluster in config["clusters"]
        for check in cluster.get("health_checks", ())
    }
    assert set(checked) == set(SERVICES)
    [edge] = [listener for listener in config["listeners"] if listener["name"] == "edge"]
    manager = edge["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    routes = [route for route in host["routes"] if "route" in route]  # Envoy answers the others itself
    prefixes = {route["match"].get("prefix"): route["route"]["cluster"] for route in routes}
    assert {f"/{service}/": name for service, name in checked.items()}.items() <= prefixes.items()
    for route in routes:
        # An endless stream is cut by nobody but its caller's own deadline.
        assert route["route"]["timeout"] == "0s"


def test_envoy_and_the_sdk_repeat_the_same_calls():
    envoy = (DOCKER / "envoy.yaml").read_text().replace("\\\\", "")
    routes = re.findall(r'regex: "/(gramlet\.\S+?)/\(?([\w|]+)\)?"', envoy)
    assert {service: tuple(names.split("|")) for service, names in routes} == _IDEMPOTENT

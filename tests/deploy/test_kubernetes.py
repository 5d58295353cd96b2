"""The manifests of deploy/kubernetes, as far as they can be judged without a cluster."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adlatus import __version__
from adlatus.cli import _parser
from adlatus.settings import Settings
from tests.deploy.compose import ROOT, Json
from tests.deploy.schemas import Schemas
from tests.deploy.test_compose import STOPPING_S

FOLDER = ROOT / "deploy" / "kubernetes"
NOT_OURS = ("AWS_", "DOCKER_")


def manifests() -> Iterator[tuple[Path, Json]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text("utf-8")):
            yield path, manifest


MANIFESTS = [manifest for _, manifest in manifests()]
WORKLOADS = [manifest for manifest in MANIFESTS if manifest["kind"] in ("Deployment", "Job")]
LASTING = [manifest for manifest in WORKLOADS if manifest["kind"] == "Deployment"]


def named(*kinds: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in MANIFESTS if manifest["kind"] in kinds}


def pod(workload: Json) -> Json:
    spec: Json = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Json) -> Json:
    [only] = pod(workload)["containers"]
    found: Json = only
    return found


def sources(workload: Json) -> dict[str, bool]:
    """The config maps and secrets that its settings come from, and whether they may be absent."""
    entries: list[Any] = [next(iter(entry.values())) for entry in container(workload)["envFrom"]]
    return {entry["name"]: entry.get("optional", False) for entry in entries}


def by_name(workload: Json) -> str:
    name: str = workload["metadata"]["name"]
    return name


each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=by_name)
each_deployment = pytest.mark.parametrize("workload", LASTING, ids=by_name)


@pytest.mark.slow
def test_every_object_is_what_kubernetes_wants(schemas: Schemas) -> None:
    for path, manifest in manifests():
        problems = [error.message for error in schemas.of_kubernetes(manifest).iter_errors(manifest)]
        assert problems == [], path
    misspelt = {**LASTING[0], "spec": {**LASTING[0]["spec"], "replica": 2}}
    assert not schemas.of_kubernetes(misspelt).is_valid(misspelt)


def test_every_object_is_in_the_namespace() -> None:
    assert named("Namespace") == {"adlatus"}
    others = [manifest["metadata"] for manifest in MANIFESTS if manifest["kind"] != "Namespace"]
    assert {metadata["namespace"] for metadata in others} == {"adlatus"}


@each_workload
def test_it_is_this_version_and_its_command_is_one(workload: Json) -> None:
    assert container(workload)["image"] == f"adlatus:{__version__}"
    assert _parser().parse_args(container(workload)["args"])


@each_workload
def test_it_has_as_few_rights_as_it_can_do_with(workload: Json) -> None:
    context = pod(workload)["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(workload)["automountServiceAccountToken"] is False
    assert "memory" in container(workload)["resources"]["limits"]
    assert {"cpu", "memory"} <= set(container(workload)["resources"]["requests"])


@each_workload
def test_the_name_of_the_service_is_not_taken_for_a_setting(workload: Json) -> None:
    assert "port" in Settings.model_fields
    assert "adlatus" in named("Service")
    assert pod(workload)["enableServiceLinks"] is False


@each_workload
def test_what_it_reads_is_there(workload: Json) -> None:
    assert set(sources(workload)) <= named("ConfigMap", "Secret")
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    assert {mount["name"] for mount in container(workload)["volumeMounts"]} == set(volumes)
    secrets = {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume}
    assert secrets <= named("Secret")
    assert "/tmp" in {mount["mountPath"] for mount in container(workload)["volumeMounts"]}


@each_deployment
def test_its_pods_are_chosen_by_their_labels(workload: Json) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    [budget] = [
        each for each in MANIFESTS if each["kind"] == "PodDisruptionBudget" and by_name(each) == by_name(workload)
    ]
    assert budget["spec"]["selector"]["matchLabels"] == labels


@each_deployment
def test_it_is_asked_whether_it_lives_and_is_ready(workload: Json) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    asked = {name: container(workload)[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert [probe["path"] for probe in asked.values()] == ["/healthz", "/healthz", "/readyz"]
    bind = settings()["ADLATUS_ADMIN_BIND"]
    assert {f"0.0.0.0:{ports[probe['port']]}" for probe in asked.values()} == {bind}


@each_deployment
def test_there_is_time_to_stop(workload: Json) -> None:
    before_s = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod(workload)["terminationGracePeriodSeconds"] >= before_s + STOPPING_S


def settings() -> dict[str, str]:
    [settings] = [manifest["data"] for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"]
    found: dict[str, str] = settings
    return found


def test_every_setting_is_one() -> None:
    keys = set(settings())
    for manifest in MANIFESTS:
        if manifest["kind"] == "Secret":
            keys |= {key for key in manifest["stringData"] if re.fullmatch("[A-Z_]+", key)}
    for workload in WORKLOADS:
        keys |= {entry["name"] for entry in container(workload).get("env", [])}
    ours = {key for key in keys if not key.startswith(NOT_OURS)}
    assert {key.removeprefix("ADLATUS_").lower() for key in ours} <= set(Settings.model_fields)


def test_only_who_executes_code_reaches_the_engine_and_only_who_serves_knows_the_keys() -> None:
    reading = {name: {by_name(one) for one in WORKLOADS if name in sources(one)} for name in named("Secret")}
    assert reading["adlatus-engine"] == {"adlatus-worker-runs"}
    assert reading["adlatus-keys"] == {"adlatus-server"}
    [worker] = [one for one in WORKLOADS if by_name(one) == "adlatus-worker-runs"]
    assert sources(worker)["adlatus-engine"], "without an engine the rest is to work"
    assert list(sources(worker)).index("adlatus-engine") > list(sources(worker)).index("adlatus")  # the last one counts


def test_servers_are_reached_by_their_ports_alone() -> None:
    ports = {port["name"] for workload in LASTING for port in container(workload)["ports"]}
    policies = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "NetworkPolicy"]
    admitted = {port["port"] for policy in policies for rule in policy["ingress"] for port in rule["ports"]}
    assert admitted == ports == {"http", "admin"}
    assert [policy["podSelector"] for policy in policies if "Egress" in policy["policyTypes"]] == [{}]

"""The files that start several replicas: what they set exists, and who is told to stop has the time that it needs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from handlers import ROUTES
from server import CLOSE_SECONDS
from settings import Settings

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy/kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()

COMPOSE = ["compose.yaml", "deploy/compose.replicas.yaml"]

VERSIONS = ["1.31", "1.34", "1.37"]
"""Of Kubernetes, oldest to newest, whose schemas the files are held against."""

SETTINGS = {name.upper() for name in Settings.model_fields}

Mapping = dict[str, Any]


def parsed(name: str | Path) -> Mapping:
    return dict(yaml.safe_load((ROOT / name).read_text()))


def replicas(compose: Mapping) -> dict[str, Mapping]:
    """The services that are Parley."""
    return {name: service for name, service in compose["services"].items() if name.startswith("parley")}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


def drain(environment: Mapping) -> float:
    """Seconds between SIGTERM and the end of the process, at most."""
    return float(environment.get("DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default)) + CLOSE_SECONDS


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration[:-1])


# --- Compose


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_sets_what_there_is(name: str) -> None:
    compose = parsed(name)
    assert replicas(compose)
    for service in replicas(compose).values():
        assert set(service["environment"]) <= SETTINGS
    build = next(iter(replicas(compose).values()))["build"]
    if isinstance(build, dict):
        assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
        assert (ROOT / build["args"]["REQUIREMENTS"]).exists()


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_gives_the_drain_its_time(name: str) -> None:
    for service in replicas(parsed(name)).values():
        assert seconds(service["stop_grace_period"]) > drain(service["environment"])


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_gives_no_rights(name: str) -> None:
    for service in replicas(parsed(name)).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    published = [port for service in parsed(name)["services"].values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_comes_closed(name: str) -> None:
    for service in replicas(parsed(name)).values():
        assert service["environment"]["AUTH"] == "${AUTH:-keys}"
    assert "python /app/server.py keys add me" in (ROOT / name).read_text()


def test_kubernetes_comes_closed() -> None:
    assert parsed(KUBERNETES / "configmap.yaml")["data"]["AUTH"] == "keys"


def test_compose_takes_passwords_from_outside() -> None:
    values = [value for value in strings(parsed("deploy/compose.replicas.yaml")["services"]) if "$" in value]
    names = {name for value in values for name in re.findall(r"\$\{(\w+)", value)}
    assert names == {"POSTGRES_PASSWORD", "PORT", "AUTH"}
    assert [value for value in values if re.search(r"PASSWORD(?!:\?)", value)] == []  # unset, it stops the start
    for service in replicas(parsed("deploy/compose.replicas.yaml")).values():
        assert ":${POSTGRES_PASSWORD:?" in service["environment"]["DATABASE_URL"]


def test_nginx_knows_every_replica() -> None:
    compose = parsed("deploy/compose.replicas.yaml")
    config = (ROOT / "deploy/compose.nginx.conf").read_text()
    expected = {f"{name}:{service['environment']['PORT']}" for name, service in replicas(compose).items()}
    assert set(re.findall(r"^ *server ([\w-]+:\d+)", config, re.MULTILINE)) == expected
    [volume] = [volume for volume in compose["services"]["nginx"]["volumes"] if "nginx" in volume]
    assert volume.startswith("./compose.nginx.conf:")
    [listens] = re.findall(r"listen (\d+);", config)
    assert compose["services"]["nginx"]["ports"][0].endswith(f":{listens}")


# --- Kubernetes


def manifests() -> list[Path]:
    return sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_manifest_is_as_the_schema_says(path: Path, version: str) -> None:
    kubernetes_validate.validate(parsed(path), version, strict=True)


def test_schema_finds_a_wrong_manifest() -> None:
    """The check can fail: by a name that does not exist, too."""
    wrong = parsed(KUBERNETES / "deployment.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kustomization_has_every_manifest() -> None:
    """But for the example."""
    resources = parsed(KUBERNETES / "kustomization.yaml")["resources"]
    assert sorted([*resources, "ingress.yaml"]) == [path.name for path in manifests()]
    assert "Secret" not in [parsed(path)["kind"] for path in manifests()]


def pod() -> tuple[Mapping, Mapping]:
    """The deployment's pod, and its one container."""
    spec = parsed(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container


def test_pod_has_the_settings_that_there_are_and_time_for_its_drain() -> None:
    spec, container = pod()
    config = parsed(KUBERNETES / "configmap.yaml")
    assert set(config["data"]) <= SETTINGS
    sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
    assert sources == [config["metadata"]["name"], "parley"]
    wait = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert spec["terminationGracePeriodSeconds"] > wait + drain(config["data"])
    assert container["ports"][0]["containerPort"] == int(config["data"]["PORT"])


def test_pod_is_who_the_image_says_and_may_nothing() -> None:
    spec, container = pod()
    [user] = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == tuple(map(int, user))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/data"}


def test_probes_ask_what_there_is() -> None:
    _, container = pod()
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert asked == {"startup": "/health", "readiness": "/ready", "liveness": "/health"}
    assert set(asked.values()) <= {route.path for route in ROUTES}  # type: ignore[attr-defined]


def test_everything_selects_the_pods_of_the_deployment() -> None:
    deployment = parsed(KUBERNETES / "deployment.yaml")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = parsed(KUBERNETES / "poddisruptionbudget.yaml")["spec"]
    service = parsed(KUBERNETES / "service.yaml")["spec"]
    spread = [constraint["labelSelector"] for constraint in pod()[0]["topologySpreadConstraints"]]
    selectors = [deployment["selector"], budget["selector"], *spread]
    assert [selector["matchLabels"] for selector in selectors] == [labels] * 4
    assert service["selector"] == labels
    assert service["ports"][0]["targetPort"] == pod()[1]["ports"][0]["name"]
    backend = parsed(KUBERNETES / "ingress.yaml")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"]) == ("parley", service["ports"][0]["name"])

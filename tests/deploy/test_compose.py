"""docker-compose.yml and .env.example, as far as they can be judged without starting anything."""

import json
import os
import re
import shlex
import shutil
import subprocess
from importlib.metadata import version
from typing import Any

import pytest

from adlatus import __version__
from adlatus.backends import postgres_cluster
from adlatus.cli import _parser
from adlatus.settings import Settings
from adlatus.worker import GRACE_S
from tests.conftest import missing
from tests.deploy import compose
from tests.deploy.compose import EXAMPLE, FILE, ROOT, Json, MissingValueError
from tests.deploy.schemas import Schemas

OURS = {"server", "worker-runs", "worker-ingestion", "migrate", "sandbox-image"}
ONCE = {"migrate", "sandbox-image"}
NEEDED = ("ADLATUS_API_KEYS", "POSTGRES_PASSWORD", "QDRANT_API_KEY")
STOPPING_S = 2 * GRACE_S + 10
"""What work gets to end, what connections get after it, and room for closing all that is open."""


@pytest.fixture
def content() -> Json:
    """The file, with the values of a person who has filled in what has to be."""
    return compose.read({**compose.example(), **dict.fromkeys(NEEDED, "secret")})


@pytest.fixture
def services(content: Json) -> Json:
    found: Json = content["services"]
    return found


@pytest.mark.slow
def test_the_file_is_what_the_specification_wants(content: Json, schemas: Schemas) -> None:
    problems = [error.message for error in schemas.of_compose().iter_errors(content)]
    assert problems == []
    content["services"]["server"]["restarts"] = "always"
    assert not schemas.of_compose().is_valid(content)


def test_compose_itself_reads_the_file_as_it_is_meant(services: Json) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        missing("compose", "docker has no compose here")
    command = [docker, "compose", "--file", str(FILE), "--env-file", str(EXAMPLE), "config", "--format", "json"]
    values = os.environ | dict.fromkeys(NEEDED, "secret")
    done = subprocess.run([*command, "--no-env-resolution"], env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {name for name in services if name != "s3"}


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_secret_nothing_starts(name: str) -> None:
    assert compose.example()[name] == "", "an example of a secret would be used"
    values = {other: "secret" for other in NEEDED if other != name}
    with pytest.raises(MissingValueError, match=rf"^{name}: write it into .env"):
        compose.read(values)


def test_the_example_has_every_value_that_matters_and_no_other() -> None:
    named = set(compose.example(comments=True))
    assert compose.referenced() <= named
    others = {name.removeprefix("ADLATUS_").lower() for name in named - compose.referenced()}
    known = set(Settings.model_fields) | {"compose_profiles", "aws_endpoint_url", "aws_region"}
    assert others <= known


def test_every_setting_is_one(services: Json) -> None:
    for name in OURS:
        asked = {key.removeprefix("ADLATUS_").lower() for key in services[name]["environment"]}
        assert asked <= set(Settings.model_fields), name


def test_every_command_is_one(services: Json) -> None:
    for name in OURS:
        assert _parser().parse_args(shlex.split(services[name]["command"])), name


def test_only_who_executes_code_reaches_the_engine(services: Json) -> None:
    reach = {name for name, service in services.items() if "docker.sock" in str(service.get("volumes"))}
    assert reach == {"worker-runs", "sandbox-image"}
    assert all("group_add" not in services[name] for name in services.keys() - reach)
    assert services["server"]["environment"]["ADLATUS_SANDBOX"] == "off"
    assert services["server"]["environment"]["ADLATUS_INGESTION_CONCURRENCY"] == "0"  # it parses nothing
    knowing = {name for name in OURS if services[name]["environment"].get("ADLATUS_API_KEYS")}
    assert knowing == {"server"}


def test_every_container_has_as_few_rights_as_it_can_do_with(services: Json) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"], name
        assert service["read_only"] or name == "s3", name
        assert "cap_add" not in service or name == "s3", name
        assert {"mem_limit", "cpus", "pids_limit", "logging"} <= set(service), name
        assert "privileged" not in service, name
        assert not str(service.get("ports", "")).startswith("['0.0.0.0"), name
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"server"}
    assert services["server"]["ports"] == ["127.0.0.1:8000:8000"]
    inside = {name for name, service in services.items() if service.get("networks") == ["inside"]}
    assert inside == {"postgres", "qdrant", "s3"}


def test_what_lasts_is_started_again_and_watched_and_what_is_done_once_is_not(services: Json) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        watched = service.get("healthcheck", {})
        assert watched == {"disable": True} if name in ONCE else ("test" in watched) != (name in OURS), name


def test_nothing_starts_before_the_database_has_its_schema(services: Json) -> None:
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in OURS - ONCE:
        after = services[name]["depends_on"]
        assert after["migrate"] == {"condition": "service_completed_successfully"}, name
        assert after["qdrant"] == {"condition": "service_healthy"}, name
    assert "sandbox-image" in services["worker-runs"]["depends_on"]


def test_what_is_named_is_there(content: Json) -> None:
    for name, service in content["services"].items():
        assert set(service.get("depends_on", {})) <= set(content["services"]), name
        assert set(service.get("networks", [])) <= set(content["networks"]), name
        mounted = {mount.partition(":")[0] for mount in service.get("volumes", [])}
        assert {source for source in mounted if not source.startswith("/")} <= set(content["volumes"]), name
        if build := service.get("build"):
            assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_there_is_time_to_stop(services: Json) -> None:
    for name in OURS - ONCE:
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= STOPPING_S, name


def test_versions_are_pinned_and_fit_together(services: Json) -> None:
    images = {name: service["image"] for name, service in services.items()}
    assert {images[name] for name in OURS} == {f"adlatus:{__version__}"}
    dockerfile = (ROOT / "docker" / "server.Dockerfile").read_text("utf-8")
    assert f'org.opencontainers.image.version="{__version__}"' in dockerfile
    assert f"--tag adlatus:{__version__} ." in dockerfile
    assert all(re.search(r":v?\d+\.\d+", image) for image in images.values()), images
    assert images["postgres"].startswith(f"postgres:{postgres_cluster.MAJOR}.")
    client: list[str] = version("qdrant-client").split(".")
    assert images["qdrant"].startswith(f"qdrant/qdrant:v{client[0]}.{client[1]}.")


def test_the_store_of_the_profile_is_optional(services: Json) -> None:
    assert services["s3"]["profiles"] == ["s3"]
    s3: Any = services["server"]["depends_on"]["s3"]
    assert s3 == {"condition": "service_healthy", "required": False}
    assert {name for name, service in services.items() if "profiles" in service} == {"s3"}

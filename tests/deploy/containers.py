"""Containers of the image that CI has built, confined as docker-compose.yml says, on the engine of the tests.

That engine has no bridge: containers share the machine's network, and find there what other containers would be.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import docker
from docker.models.containers import Container

from adlatus import __version__
from tests.deploy.compose import ROOT, Json
from tests.runs.transcripts import eventually

IMAGE = "adlatus:ci"
WITHIN_S = 90
GRACE_S = 30
"""What `stop_grace_period` gives; whoever has not ended by then is killed, and its exit code is 137."""


@dataclass(frozen=True)
class Box:
    """A container until its block is left."""

    container: Container

    @property
    def log(self) -> str:
        written: bytes = self.container.logs()
        return written.decode(errors="replace")

    def wait_until_healthy(self) -> None:
        """Wait until the image's health check says so; fails where the container ends instead."""

        def is_healthy() -> bool:
            self.container.reload()
            assert self.container.status == "running", self.log
            healthy: bool = self.container.attrs["State"]["Health"]["Status"] == "healthy"
            return healthy

        eventually(is_healthy, within_s=WITHIN_S, every_s=0.2)

    def ended(self) -> int:
        """The exit code of a container that ends by itself."""
        code: int = self.container.wait(timeout=WITHIN_S)["StatusCode"]
        return code

    def stopped(self) -> int:
        """The exit code after an ordinary stop."""
        self.container.stop(timeout=GRACE_S)
        return self.ended()

    def python(self, code: str) -> str:
        """What Python in the container prints."""
        result = self.container.exec_run(["python3", "-I", "-c", code])
        assert isinstance(result.output, bytes)
        output = result.output.decode()
        assert result.exit_code == 0, output
        return output.strip()


@contextmanager
def started(client: docker.DockerClient, service: Json, volumes: Mapping[str, str], **settings: str) -> Iterator[Box]:
    """A service of the file, in the machine's network, with other settings (`port="1"` is `ADLATUS_PORT=1`).

    `volumes` says which volumes stand for those that the file names.
    """
    assert service["network_mode"] == "none" if "network_mode" in service else "networks" in service
    ours = {f"ADLATUS_{name.upper()}": value for name, value in settings.items()}
    container = client.containers.run(
        IMAGE,
        shlex.split(service["command"]),
        detach=True,
        network_mode="host",
        environment=service.get("environment", {}) | ours,
        volumes=list(_mounted(service.get("volumes", []), volumes)),
        tmpfs=dict(entry.partition(":")[::2] for entry in service["tmpfs"]),
        read_only=service["read_only"],
        cap_drop=service["cap_drop"],
        security_opt=service["security_opt"],
        group_add=service.get("group_add", []),
        mem_limit=service["mem_limit"],
        pids_limit=service["pids_limit"],
        nano_cpus=int(service["cpus"] * 1e9),
        healthcheck={"interval": 1_000_000_000},
        labels={"io.adlatus.tests": str(os.getpid())},
    )
    yield from _lent(container)


@contextmanager
def documented(client: docker.DockerClient, data: str, port: int, key: str) -> Iterator[Box]:
    """The one container of the documentation, by the command that stands there, with another port, key and volume.

    The port is not published but its own, and nothing reaps its orphans: CI's engine has neither bridge nor init.
    """
    text = (ROOT / "docs" / "deployment.md").read_text("utf-8").replace("\\\n", "")
    [command] = re.findall(r"^docker run (.*)$", text, re.M)
    for given, ours in (
        ("--name adlatus --init ", ""),
        ("--env ADLATUS_API_KEYS=sk-choose-your-own", f"--env ADLATUS_API_KEYS={key} --env ADLATUS_PORT={port}"),
        ("--publish 127.0.0.1:8000:8000", "--network host --health-interval 1s"),
        ("--volume adlatus:", f"--volume {data}:"),
        (f"adlatus:{__version__}", IMAGE),
    ):
        assert command.count(given) == 1, given
        command = command.replace(given, ours)
    started = subprocess.run(["docker", "run", *shlex.split(command)], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    yield from _lent(client.containers.get(started.stdout.strip()))


def _lent(container: Container) -> Iterator[Box]:
    try:
        yield Box(container)
    finally:
        container.remove(force=True, v=True)


def _mounted(mounts: list[str], volumes: Mapping[str, str]) -> Iterator[str]:
    for mount in mounts:
        source, _, target = mount.partition(":")
        yield f"{source if source.startswith('/') else volumes[source]}:{target}"


@contextmanager
def volume(client: docker.DockerClient) -> Iterator[str]:
    """The name of an empty volume."""
    made = client.volumes.create()
    try:
        yield made.name
    finally:
        made.remove(force=True)

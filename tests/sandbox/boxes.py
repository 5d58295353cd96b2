"""What an operator sees of sandboxes: containers, processes, control groups. Tests look and kill here, from outside."""

import json
import os
import signal
import subprocess
from pathlib import Path

import docker
import psutil

CGROUPS = Path("/sys/fs/cgroup")


def supervisor_pid(engine: str, box: str) -> int:
    """The process on this machine that is process 1 of a sandbox."""
    if engine == "docker":
        client = docker.from_env()
        try:
            return int(client.containers.get(box).attrs["State"]["Pid"])
        finally:
            client.close()
    [child] = psutil.Process(int(box)).children()
    return child.pid


def processor_s(engine: str, box: str) -> float:
    """Processor time that the living processes of a sandbox have taken."""
    supervisor = psutil.Process(supervisor_pid(engine, box))
    times = [process.cpu_times() for process in (supervisor, *supervisor.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def kill(engine: str, box: str) -> None:
    """End a sandbox as an operator would; it is gone afterwards."""
    if engine == "docker":
        client = docker.from_env()
        try:
            client.containers.get(box).kill()
        finally:
            client.close()
    else:
        supervisor = psutil.Process(supervisor_pid(engine, box))
        os.kill(int(box), signal.SIGKILL)
        # It dies by its parent's death signal, a moment later, in which it would still answer.
        supervisor.wait(30)


def freeze(engine: str, box: str) -> None:
    """Stop the supervisor of a sandbox, so that it answers no more."""
    os.kill(supervisor_pid(engine, box), signal.SIGSTOP)


def left(engine: str, instance: str) -> set[str]:
    """What there is of the sandboxes of an instance: containers, or control groups."""
    if engine == "docker":
        command = [
            "docker",
            "ps",
            "--all",
            "--format",
            "{{.Names}}",
            "--filter",
            f"label=io.adlatus.instance={instance}",
        ]
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return {path.name for path in CGROUPS.glob(f"**/adlatus-sandbox/{instance}.*")}


def running(engine: str, instance: str) -> set[str]:
    """The boxes of an instance in this process."""
    if engine == "docker":
        return left(engine, instance)
    children = [child for child in psutil.Process().children() if child.name() == "bwrap"]
    if os.geteuid() == 0:
        children = [child for child in children if instance in Path(f"/proc/{child.pid}/cgroup").read_text()]
    return {str(child.pid) for child in children}


def inspect(box: str) -> dict[str, object]:
    """`docker inspect` of a container."""
    said = subprocess.run(["docker", "inspect", box], check=True, capture_output=True, text=True).stdout
    [inspected] = json.loads(said)
    return dict(inspected)

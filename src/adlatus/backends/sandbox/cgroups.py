"""Control groups, where we are root and may make them: memory, processes and processor time of a whole sandbox.

Both kinds: one hierarchy for all (version 2), or one for each controller (version 1). Blocks only for moments.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PARENT = "adlatus-sandbox"
_CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000


@dataclass(frozen=True)
class Limits:
    memory_bytes: int
    pids: int
    cpus: float


@dataclass(frozen=True)
class Group:
    """One sandbox's group: a folder, or one for each controller."""

    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Move a process in; what it starts from then on is in as well."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Kill whatever is left in it and remove it."""
        give_up_at = time.monotonic() + 5
        for folder in self.folders:
            while folder.is_dir() and time.monotonic() < give_up_at:
                for pid in _processes(folder):
                    with suppress(ProcessLookupError):
                        os.kill(pid, 9)
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.005)


class Groups:
    """Makes groups whose names begin with `instance`."""

    def __init__(self, parents: Sequence[Path], *, is_unified: bool, instance: str) -> None:
        self._parents = tuple(parents)
        self._is_unified = is_unified
        self._instance = instance

    def make(self, name: str, limits: Limits) -> Group:
        """A group with limits. Raises `OSError`."""
        group = Group(tuple(parent / f"{self._instance}.{name}" for parent in self._parents))
        for folder in group.folders:
            folder.mkdir()
        try:
            for file, value in (_unified(limits) if self._is_unified else _divided(limits)).items():
                for folder in group.folders:
                    if (folder / file).exists():
                        (folder / file).write_text(value)
        except OSError:
            group.remove()
            raise
        return group

    def clean(self) -> int:
        """Remove the groups of the same instance, with the processes that are in them; how many there were."""
        names = {folder.name for parent in self._parents for folder in parent.glob(f"{self._instance}.*")}
        for name in names:
            Group(tuple(parent / name for parent in self._parents)).remove()
        return len(names)


def find_groups(instance: str, root: Path = ROOT) -> Groups | None:
    """Groups of this machine, or None where we may not make any."""
    if os.geteuid() != 0:
        return None
    try:
        if (root / "cgroup.controllers").exists():
            return _find_unified(instance, root)
        parents = [root / controller / PARENT for controller in _CONTROLLERS]
        for parent in parents:
            parent.mkdir(exist_ok=True)
            if not (parent / "cgroup.procs").exists():  # a mere folder
                parent.rmdir()
                return None
    except OSError:
        return None
    return Groups(parents, is_unified=False, instance=instance)


def _find_unified(instance: str, root: Path) -> Groups | None:
    wanted = " ".join(f"+{controller}" for controller in _CONTROLLERS)
    parent = root / PARENT
    (root / "cgroup.subtree_control").write_text(wanted)
    parent.mkdir(exist_ok=True)
    (parent / "cgroup.subtree_control").write_text(wanted)
    return Groups([parent], is_unified=True, instance=instance)


def _unified(limits: Limits) -> dict[str, str]:
    return {
        "memory.max": str(limits.memory_bytes),
        "memory.swap.max": "0",
        "pids.max": str(limits.pids),
        "cpu.max": f"{int(limits.cpus * _PERIOD_US)} {_PERIOD_US}",
    }


def _divided(limits: Limits) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": str(limits.memory_bytes),
        "memory.memsw.limit_in_bytes": str(limits.memory_bytes),
        "pids.max": str(limits.pids),
        "cpu.cfs_period_us": str(_PERIOD_US),
        "cpu.cfs_quota_us": str(int(limits.cpus * _PERIOD_US)),
    }


def _processes(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []

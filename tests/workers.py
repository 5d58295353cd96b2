"""How several processes share the tests (pytest-xdist): who runs what, and where each leaves what it saw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = "tests/sandbox/"
"""A folder whose tests need much of the machine, so that only one worker has them."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # has no types
    """A file's tests stay together, with what they share, and the files in their order."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]


@dataclass(frozen=True)
class Worker:
    """One of the processes: where it leaves what it saw, and how many others there are."""

    seen: Path
    others: int


def worker_of(config: pytest.Config) -> Worker | None:
    """Which worker this process is; `None` if it runs all tests by itself, or only hands them out."""
    given = getattr(config, "workerinput", None)
    if given is None:
        return None
    shared = Path(config.getoption("basetemp")).parent
    return Worker(shared / f"{given['workerid']}.seen", given["workercount"] - 1)

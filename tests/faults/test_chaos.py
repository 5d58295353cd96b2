"""Processes are killed and stopped and the database is restarted under load; no promise to any client is broken.

`ADLATUS_TEST_SEED` repeats the choices of a run that failed, whose seed is in the failure.
"""

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import MACHINE_DATA_DIR, Loop, missing
from tests.faults.chaos.checks import check
from tests.faults.chaos.deployment import Deployment, deployment
from tests.faults.chaos.load import put_under_load
from tests.faults.chaos.troubles import Trouble, Troubles

pytestmark = pytest.mark.slow

IN_FLIGHT = 30


@contextmanager
def told(seed: int, deployed: Deployment, folder: Path) -> Iterator[None]:
    """A failure tells how to make the same choices again, and where the logs are."""
    try:
        yield
    except BaseException as error:
        for member in deployed.members:
            for log in member.logs:
                shutil.copy(log, folder / f"{member.name}-{log.name}")
        error.add_note(f"ADLATUS_TEST_SEED={seed} makes the same choices again. The logs are in {folder}.")
        raise


def survive(loop: Loop, folder: Path, troubles: Troubles) -> None:
    """Everything that must hold holds after these troubles."""
    if shutil.which("bwrap") is None or not any((MACHINE_DATA_DIR / "sandbox").glob("programs-*")):
        missing("bubblewrap", "bwrap is not installed, or `adlatus sandbox prepare` has not run")
    seed = int(os.environ.get("ADLATUS_TEST_SEED") or random.randrange(10**6))
    with deployment(loop) as deployed, told(seed, deployed, folder):
        trouble = Trouble(deployed, random.Random(seed))
        began_at = time.monotonic()
        load = loop.run(put_under_load(deployed, seed, IN_FLIGHT, partial(trouble.make, troubles)), timeout_s=3600)
        loaded_s = time.monotonic() - began_at
        seen = check(deployed, load)
        lost = sum(client.lost for client in load.clients)
        sys.stdout.write(
            f"\n{len(trouble.done)} troubles in {trouble.took_s:.0f} s, all answered after {loaded_s:.0f} s, checked "
            f"after {time.monotonic() - began_at:.0f} s; {lost} requests lost, {len(load.files)} files; {seen}\n"
        )


@pytest.mark.timeout(600)
def test_no_run_is_lost_whatever_is_killed_stopped_or_restarted(loop: Loop, tmp_path: Path) -> None:
    survive(loop, tmp_path, Troubles(kills=20, naps=3, sleeps=2, restarts=1, crashes=1))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_no_run_is_lost_in_two_hundred_kills(loop: Loop, tmp_path: Path) -> None:
    survive(loop, tmp_path, Troubles(kills=200))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_no_run_is_lost_when_processes_sleep_beyond_their_leases(loop: Loop, tmp_path: Path) -> None:
    survive(loop, tmp_path, Troubles(kills=10, naps=20, sleeps=10))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_no_run_is_lost_when_the_database_is_restarted_again_and_again(loop: Loop, tmp_path: Path) -> None:
    survive(loop, tmp_path, Troubles(kills=10, restarts=15, crashes=15))

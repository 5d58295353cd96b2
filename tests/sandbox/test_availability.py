"""How a process comes to sandboxes, under which name it makes them, and what it says where there are none."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adlatus.backends.sandbox import instance
from adlatus.backends.sandbox.availability import Availability, looking
from adlatus.backends.sandbox.picking import OFF
from adlatus.settings import Settings
from tests.conftest import Loop, missing
from tests.faults.processes import prepared_folder

NOT_INSTALLED = "bubblewrap is not installed. On Debian: apt install bubblewrap"
PACE_S = 0.05


def test_processes_that_share_a_data_folder_have_names_of_their_own(tmp_path: Path) -> None:
    with instance.hold(tmp_path) as first:
        with instance.hold(tmp_path) as second:
            assert first != second
        with instance.hold(tmp_path) as third:
            assert third == second
    with instance.hold(tmp_path) as next_start:
        assert next_start == first


def test_a_copy_of_a_data_folder_has_a_name_of_its_own(tmp_path: Path) -> None:
    with instance.hold(tmp_path / "one") as name:
        shutil.copytree(tmp_path / "one", tmp_path / "other")
    with instance.hold(tmp_path / "other") as copied:
        assert copied != name


def test_without_a_data_folder_a_process_has_a_name_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with instance.hold(tmp_path / "file") as one, instance.hold(tmp_path / "file") as other:
        assert one != other


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Those of a server that has the sandboxes of this machine, though not its data folder."""
    with prepared_folder() as folder:
        yield Settings(data_dir=folder, sandbox="bubblewrap")


@asynccontextmanager
async def looked(settings: Settings) -> AsyncIterator[Availability]:
    """What has been found by now."""
    async with looking(settings, PACE_S) as availability:
        await change(availability)
        yield availability


async def change(availability: Availability) -> None:
    async with asyncio.timeout(60):
        await availability.changed.wait()
    availability.changed.clear()


def test_switched_off_is_known_at_once(loop: Loop, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with looking(Settings(data_dir=tmp_path, sandbox="off")) as availability:
            assert (availability.sandboxes, availability.engine, availability.problem) == (None, None, OFF)
        assert not any(tmp_path.iterdir())

    loop.run(scenario())


def test_what_is_missing_is_told(
    loop: Loop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with looked(settings) as availability:
            assert (availability.sandboxes, availability.problem) == (None, NOT_INSTALLED)

    monkeypatch.setenv("PATH", str(tmp_path))
    loop.run(scenario())


def test_sandboxes_are_found_when_they_come_and_told_of_when_they_go(
    loop: Loop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("bwrap"):
        missing("bubblewrap", NOT_INSTALLED)

    async def scenario() -> None:
        with monkeypatch.context() as without:
            without.setenv("PATH", str(tmp_path))
            opening = looked(settings)
            availability = await opening.__aenter__()
        try:
            await change(availability)
            if "adlatus sandbox prepare" in availability.problem:
                missing("bubblewrap", availability.problem)
            assert (availability.engine, availability.problem) == ("bubblewrap", "")
            sandboxes = availability.sandboxes
            with monkeypatch.context() as without:
                without.setenv("PATH", str(tmp_path))
                await change(availability)
                assert (availability.engine, availability.problem) == (None, NOT_INSTALLED)
                assert availability.sandboxes is sandboxes
            await change(availability)
            assert availability.engine == "bubblewrap"
        finally:
            await opening.__aexit__(None, None, None)

    loop.run(scenario())

"""The embedded index keeps what it has acknowledged, whoever is killed, and has one owner."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from adlatus.backends.vectors.edge import EdgeIndex, open_edge
from adlatus.backends.vectors.protocol import Chunk, Search
from adlatus.errors import StartupError, Unavailable
from tests.conftest import Loop
from tests.retrieval.asking import SPACE, chunk

EAST = (1.0, 0.0, 0.0)
WRITER = """
import asyncio, os, sys
from pathlib import Path
from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.protocol import Chunk, Space

SPACE = Space("tests/model", 3)
CHUNKS = [Chunk("vs_1", "file-a", n, "harbour", "english", 0, 7, vectors=[(1.0, 0.0, 0.0)]) for n in range(500)]

async def write():
    async with open_edge(Path(sys.argv[1])) as index:
        await index.upsert(SPACE, CHUNKS)
        await index.delete("vs_1", "file-b")
        print(index.engine_pid, flush=True)
        if sys.argv[2] == "exits":
            os._exit(0)
        await asyncio.sleep(600)

asyncio.run(write())
"""


def _chunks(count: int, store: str = "vs_1") -> list[Chunk]:
    return [chunk(store, n, "harbour", EAST) for n in range(count)]


async def _count(folder: Path) -> int:
    async with open_edge(folder) as index:
        assert len(await index.search(SPACE, Search(["vs_1"], "harbours", EAST, limit=5))) == 5
        return await index.count(SPACE, "vs_1")


def test_chunks_survive_a_restart(loop: Loop, tmp_path: Path) -> None:
    async def write() -> None:
        async with open_edge(tmp_path / "vectors") as index:
            await index.upsert(SPACE, _chunks(100))
            await index.delete("vs_1", "file-b")

    loop.run(write())
    assert loop.run(_count(tmp_path / "vectors")) == 100


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_server_that_ends_without_closing_keeps_what_it_acknowledged(loop: Loop, tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), how]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        engine_pid = int(writer.stdout.readline())
        if how == "is killed":
            writer.kill()
    assert loop.run(_count(tmp_path)) == 500
    assert not psutil.pid_exists(engine_pid) or psutil.Process(engine_pid).status() == psutil.STATUS_ZOMBIE


def test_a_second_owner_is_refused_with_advice(loop: Loop, tmp_path: Path) -> None:
    async def open_twice() -> None:
        async with open_edge(tmp_path) as first:
            await first.upsert(SPACE, _chunks(1))
            with pytest.raises(StartupError, match=rf"process {os.getpid()}\. .*--data-dir.*ADLATUS_QDRANT_URL"):
                async with open_edge(tmp_path):
                    pass
            assert await first.count(SPACE, "vs_1") == 1

    loop.run(open_twice())


def test_an_engine_that_dies_fails_what_it_was_asked_and_comes_back_with_all_it_had(loop: Loop, tmp_path: Path) -> None:
    async def kill() -> int:
        async with open_edge(tmp_path) as index:
            await index.upsert(SPACE, _chunks(50))
            assert index.engine_pid is not None
            os.kill(index.engine_pid, signal.SIGSTOP)
            asked = [asyncio.create_task(index.count(SPACE, "vs_1")) for _ in range(3)]
            await asyncio.sleep(0)
            os.kill(index.engine_pid, signal.SIGKILL)
            for answer in asked:
                with pytest.raises(Unavailable, match="does not answer"):
                    await answer
            counts = await asyncio.gather(*(index.count(SPACE, "vs_1") for _ in range(5)))
            await index.ping()
            return min(counts)

    assert loop.run(kill()) == 50


def test_an_engine_that_is_killed_while_it_is_written_to_has_all_that_was_acknowledged(
    loop: Loop, tmp_path: Path
) -> None:
    async def write(index: EdgeIndex) -> set[str]:
        acknowledged = set()
        for number in range(40):
            with suppress(Unavailable):
                await index.upsert(SPACE, _chunks(20, f"vs_{number}"))
                acknowledged.add(f"vs_{number}")
            if number % 10 == 5 and index.engine_pid:
                os.kill(index.engine_pid, signal.SIGKILL)
        return acknowledged

    async def check() -> None:
        async with open_edge(tmp_path) as index:
            acknowledged = await write(index)
            assert len(acknowledged) >= 30
            assert {await index.count(SPACE, store) for store in acknowledged} == {20}

    loop.run(check())


def test_whoever_gives_up_waiting_disturbs_nobody(loop: Loop, tmp_path: Path) -> None:
    async def cancel() -> None:
        async with open_edge(tmp_path) as index:
            await index.upsert(SPACE, _chunks(5))
            waiting = [asyncio.create_task(index.count(SPACE, "vs_1")) for _ in range(20)]
            await asyncio.sleep(0)
            for task in waiting[::2]:
                task.cancel()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(answer) for answer in answers] == [asyncio.CancelledError, int] * 10
            assert await index.count(SPACE, "vs_1") == 5

    loop.run(cancel())


def test_the_event_loop_goes_on_while_the_engine_works(loop: Loop, tmp_path: Path) -> None:
    async def work() -> None:
        async with open_edge(tmp_path) as index:
            assert index.engine_pid is not None
            os.kill(index.engine_pid, signal.SIGSTOP)  # as if it were in the middle of something long
            working = [asyncio.create_task(index.upsert(SPACE, _chunks(5000))), asyncio.create_task(index.ping())]
            for _ in range(100):
                await asyncio.sleep(0)
            assert not any(task.done() for task in working)
            os.kill(index.engine_pid, signal.SIGCONT)
            await asyncio.gather(*working)

    loop.run(work())


def test_what_a_killed_engine_has_made_half_of_is_cleared_away(loop: Loop, tmp_path: Path) -> None:
    half = tmp_path / f"{SPACE.collection}.unfinished" / "segments"
    half.mkdir(parents=True)

    async def write() -> None:
        async with open_edge(tmp_path) as index:
            assert not half.exists()
            await index.upsert(SPACE, _chunks(5))

    loop.run(write())
    assert loop.run(_count(tmp_path)) == 5


def test_damaged_files_stop_the_start_with_advice(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / SPACE.collection).mkdir()
    (tmp_path / SPACE.collection / "edge_config.json").write_text("{")

    async def open_it() -> None:
        async with open_edge(tmp_path):
            pass

    with pytest.raises(StartupError, match="restore them from a backup"):
        loop.run(open_it())


def test_a_folder_that_cannot_be_made_stops_the_start_with_advice(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def open_it() -> None:
        async with open_edge(tmp_path / "file" / "vectors"):
            pass

    with pytest.raises(StartupError, match="cannot be used"):
        loop.run(open_it())


def test_a_closed_index_says_so(loop: Loop, tmp_path: Path) -> None:
    async def ask_later() -> None:
        async with open_edge(tmp_path) as index:
            pass
        with pytest.raises(Unavailable, match="closed"):
            await index.ping()

    loop.run(ask_later())

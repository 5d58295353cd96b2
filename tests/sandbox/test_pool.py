"""Sandboxes of many threads: apart from one another, as many as allowed, replaced when lost, none left behind."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from adlatus.backends.sandbox.engine import Engine, SandboxUnavailableError
from adlatus.backends.sandbox.events import Kind, Status
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.pool import Limits, Sandboxes
from adlatus.settings import Settings
from tests.conftest import MACHINE_DATA_DIR, Loop
from tests.sandbox import boxes
from tests.sandbox.conftest import Thread, execute, keeping, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def replaces_lost(thread: Thread) -> bool:
    async def replaces() -> bool:
        async with thread.sandboxes.use(thread.id) as sandbox:
            return sandbox.replaces_lost

    return thread.loop.run(replaces())


# --- Apart


def test_threads_do_not_see_each_other(thread: Thread, new_thread: Thread) -> None:
    thread.put(b"secret", "secret.txt")
    thread.run(
        "import subprocess; secret = 'secret'; open('/tmp/secret', 'w'); open('/dev/shm/secret', 'w')\n"
        "subprocess.Popen(['sleep', '1234'])"
    )
    told = new_thread.run(
        "import os\nfrom glob import glob\n"
        "print('secret' in globals(), os.listdir(), glob('/tmp/secret') + glob('/dev/shm/secret'))\n"
        "print(any('1234' in open(path).read() for path in glob('/proc/[0-9]*/cmdline')))"
    )
    assert told.stdout == "False [] []\nFalse\n", told.all
    ours = psutil.Process(boxes.supervisor_pid(thread.sandboxes.engine, thread.box))
    other = psutil.Process(boxes.supervisor_pid(thread.sandboxes.engine, new_thread.box))
    assert ours.uids().real != 0
    if thread.sandboxes.engine == "bubblewrap" and os.geteuid() == 0:
        assert ours.uids().real != other.uids().real


def test_twenty_threads_at_once_have_their_own_answers(loop: Loop, new_engine: Callable[[], Engine]) -> None:
    async def ask(sandboxes: Sandboxes, number: int) -> tuple[str, str]:
        async with sandboxes.use(f"thread-{number}") as sandbox:
            await sandbox.put(str(number).encode(), ["number.txt"])
            await execute(sandbox, f"x = {number}", 60)
        async with sandboxes.use(f"thread-{number}") as sandbox:
            told = await execute(sandbox, "print(x, open('number.txt').read())", 60)
            return told.stdout, sandbox.box

    async def ask_all(sandboxes: Sandboxes) -> list[tuple[str, str]]:
        return await asyncio.gather(*(ask(sandboxes, number) for number in range(20)))

    with keeping(loop, new_engine(), Limits(warm=0)) as sandboxes:
        answers = loop.run(ask_all(sandboxes), 170)
        assert [said for said, _ in answers] == [f"{number} {number}\n" for number in range(20)]
        assert len({box for _, box in answers}) == 20
        assert len(sandboxes.threads) == 20


# --- Lost


def test_a_sandbox_that_is_killed_from_outside_is_lost_and_replaced(thread: Thread) -> None:
    assert thread.run("x = 1; open('a.txt', 'w').write('a')").done.status is Status.OK
    engine, box = thread.sandboxes.engine, thread.box
    killing = threading.Timer(0.5, boxes.kill, (engine, box))
    killing.start()
    told = thread.run("import time\nprint('begun')\ntime.sleep(60)", 60)
    killing.join()
    assert told.done.status is Status.LOST
    assert told.notices == [Kind.LOST]
    assert told.stdout == "begun\n"
    assert thread.id not in thread.sandboxes.threads
    assert replaces_lost(thread)
    assert thread.run("import os; print('x' in globals(), os.listdir())").stdout == "False []\n"
    assert thread.box != box


def test_a_sandbox_that_is_killed_between_calls_is_replaced(thread: Thread) -> None:
    thread.put(b"x", "a.txt")
    box = thread.box
    boxes.kill(thread.sandboxes.engine, box)
    wait_until(lambda: thread.box != box)  # what it was told before may still be answered
    assert replaces_lost(thread)
    assert thread.listed == []
    assert thread.run("1").results == ["1"]


def test_a_supervisor_that_hangs_is_destroyed_by_the_host(thread: Thread) -> None:
    engine, box = thread.sandboxes.engine, thread.box
    freezing = threading.Timer(0.3, boxes.freeze, (engine, box))
    freezing.start()
    began = time.monotonic()
    told = thread.run("while True: pass", 1)
    assert told.done.status is Status.LOST
    assert 10 < time.monotonic() - began < 60
    assert replaces_lost(thread)
    assert thread.run("1").results == ["1"]
    frozen = thread.box
    boxes.freeze(engine, frozen)  # between calls it is found out when it does not answer
    assert thread.run("2").results == ["2"]
    assert thread.box not in {box, frozen}


# --- Not to be had


def test_an_image_that_is_missing_is_named_with_advice(loop: Loop, engine_name: str, tmp_path: Path) -> None:
    missing = {"docker": "The Docker engine has no image nobody/has:this: run `adlatus sandbox prepare`."}
    missing["bubblewrap"] = f"{tmp_path} has no environment for sandboxes: run `adlatus sandbox prepare`."
    settings = Settings(data_dir=tmp_path, sandbox=engine_name, sandbox_image="nobody/has:this")
    with pytest.raises(SandboxUnavailableError, match=missing[engine_name]):
        loop.run(_pick(settings))


async def _pick(settings: Settings) -> None:
    engine = await pick_engine(settings, "test-missing")
    await engine.close()


# --- How many


def test_warm_sandboxes_wait_and_are_replaced_when_taken(loop: Loop, new_engine: Callable[[str], Engine]) -> None:
    instance = f"test-{uuid.uuid4().hex[:12]}"
    with keeping(loop, new_engine(instance), Limits(warm=2)) as sandboxes:
        wait_until(lambda: sandboxes.warm == 2, 60)
        assert not sandboxes.threads
        waiting = boxes.running(sandboxes.engine, instance)
        thread = Thread(loop, sandboxes, "a")
        assert thread.run("1").results == ["1"]
        assert thread.box in waiting
        wait_until(lambda: sandboxes.warm == 2, 60)
        assert not replaces_lost(thread)
        thread.discard()
        assert not sandboxes.threads


def test_warm_sandboxes_that_have_ended_are_not_handed_out(loop: Loop, new_engine: Callable[[str], Engine]) -> None:
    instance = f"test-{uuid.uuid4().hex[:12]}"
    with keeping(loop, new_engine(instance), Limits(warm=1)) as sandboxes:
        wait_until(lambda: sandboxes.warm == 1, 60)
        [box] = boxes.running(sandboxes.engine, instance)
        boxes.kill(sandboxes.engine, box)
        assert Thread(loop, sandboxes, "a").run("1").results == ["1"]


def test_the_one_that_nobody_used_for_longest_makes_room(loop: Loop, new_engine: Callable[[], Engine]) -> None:
    with keeping(loop, new_engine(), Limits(warm=0, sessions=2)) as sandboxes:
        a, b, c = (Thread(loop, sandboxes, name) for name in "abc")
        a.run("1")
        b.run("1")
        a.run("kept = 1")
        c.run("1")
        assert sandboxes.threads == {"a", "c"}
        assert a.run("kept").results == ["1"]
        assert replaces_lost(b)
        assert sandboxes.threads == {"a", "b"}


def test_no_more_than_allowed_execute_at_once(loop: Loop, new_engine: Callable[[], Engine]) -> None:
    most = 0

    async def ask(sandboxes: Sandboxes, number: int) -> None:
        nonlocal most
        async with sandboxes.use(f"thread-{number}") as sandbox:
            most = max(most, len(sandboxes.threads))
            assert (await execute(sandbox, f"{number}")).results == [f"{number}"]

    async def ask_all(sandboxes: Sandboxes) -> None:
        await asyncio.gather(*(ask(sandboxes, number) for number in range(6)))

    with keeping(loop, new_engine(), Limits(warm=0, sessions=2, wait_s=150)) as sandboxes:
        loop.run(ask_all(sandboxes), 150)
        assert most == 2


def test_who_waits_too_long_for_a_place_is_told(loop: Loop, new_engine: Callable[[], Engine]) -> None:
    async def ask(sandboxes: Sandboxes) -> None:
        async with sandboxes.use("a"):
            with pytest.raises(SandboxUnavailableError, match="All 1 sandboxes of this server are executing"):
                async with sandboxes.use("b"):
                    pass
        async with sandboxes.use("b") as sandbox:
            assert (await execute(sandbox, "1")).results == ["1"]

    with keeping(loop, new_engine(), Limits(warm=0, sessions=1, wait_s=0.2)) as sandboxes:
        loop.run(ask(sandboxes))
        assert sandboxes.threads == {"b"}


def test_sandboxes_that_nobody_uses_expire(loop: Loop, new_engine: Callable[[], Engine]) -> None:
    with keeping(loop, new_engine(), Limits(warm=0, idle_s=0.5, turn_s=0.1)) as sandboxes:
        thread = Thread(loop, sandboxes, "a")
        assert thread.run("import time; time.sleep(1); 1").results == ["1"]
        wait_until(lambda: not sandboxes.threads)
        assert not replaces_lost(thread)


# --- None left behind

OWNER = """
import asyncio, sys
from pathlib import Path
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.pool import Limits, keep
from adlatus.settings import Settings

async def main():
    engine = await pick_engine(Settings(data_dir=Path(sys.argv[1]), sandbox=sys.argv[2]), sys.argv[3])
    async with keep(engine, Limits(warm=0)) as sandboxes:
        async with sandboxes.use("a") as first, sandboxes.use("b") as second:
            print(first.box, second.box, flush=True)
            await asyncio.sleep(600)

asyncio.run(main())
"""


def test_what_a_killed_server_left_is_removed_and_nothing_of_others(
    loop: Loop, new_engine: Callable[[str], Engine], engine_name: str, thread: Thread
) -> None:
    assert thread.run("kept = 1").done.status is Status.OK
    instance = f"test-{uuid.uuid4().hex[:12]}"
    new_engine(instance)  # or the test is skipped
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(MACHINE_DATA_DIR), engine_name, instance], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout
        first, second = owner.stdout.readline().split()
        supervisors = [psutil.Process(boxes.supervisor_pid(engine_name, box)) for box in (first, second)]
        if engine_name == "docker":
            boxes.freeze(engine_name, second)  # it would end by itself
    finally:
        owner.kill()
        owner.communicate()
    wait_until(lambda: not supervisors[0].is_running())
    with keeping(loop, new_engine(instance), Limits(warm=0)) as sandboxes:
        wait_until(lambda: not supervisors[1].is_running())
        wait_until(lambda: not boxes.left(engine_name, instance))
        assert Thread(loop, sandboxes, "a").run("1").results == ["1"]
    assert thread.run("kept").results == ["1"]


def test_openings_that_are_cancelled_leave_nothing(loop: Loop, new_engine: Callable[[str], Engine]) -> None:
    instance = f"test-{uuid.uuid4().hex[:12]}"

    async def cancel(sandboxes: Sandboxes, after_s: float) -> None:
        async def use() -> None:
            async with sandboxes.use(f"{after_s}"):
                pass

        using = asyncio.create_task(use())
        await asyncio.sleep(after_s)
        using.cancel()
        await asyncio.wait([using])

    with keeping(loop, new_engine(instance), Limits(warm=0)) as sandboxes:
        for after_s in (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5):
            loop.run(cancel(sandboxes, after_s))
        thread = Thread(loop, sandboxes, "a")
        assert thread.run("1").results == ["1"]
        thread.discard()
        for name in sandboxes.threads:
            Thread(loop, sandboxes, name).discard()
        wait_until(lambda: not boxes.left(sandboxes.engine, instance))


def leak_of(loop: Loop, engine: Engine, instance: str, sessions: int) -> None:
    """Use so many sandboxes, some to a bad end, and look for what they leave."""

    async def use(sandboxes: Sandboxes, number: int) -> None:
        async with sandboxes.use(f"thread-{number}") as sandbox:
            if number % 10 == 0:
                await execute(sandbox, "import os; os.fork(); os.setsid(); os.kill(os.getpid(), 9)", 30)
            elif number % 10 == 1:
                async with aclosing(sandbox.execute("print(1)\nwhile True: pass", timeout_s=60)) as events:
                    await anext(events)
            elif number % 10 == 2:
                boxes.kill(engine.name, sandbox.box)  # which takes a moment
                told = await execute(sandbox, "import time; time.sleep(20)", 30)
                assert told.done.status is Status.LOST
            else:
                assert (await execute(sandbox, "print(1)", 30)).stdout == "1\n"
        await sandboxes.discard(f"thread-{number}")

    async def use_all(sandboxes: Sandboxes, first: int, last: int) -> None:
        await asyncio.gather(*(use(sandboxes, number) for number in range(first, last)))

    loop.run(asyncio.to_thread(int))  # the loop's own threads are there before
    before = open_things()
    with keeping(loop, engine, Limits(warm=0)) as sandboxes:
        for first in range(0, sessions, 5):
            loop.run(use_all(sandboxes, first, first + 5), 120)
        wait_until(lambda: not boxes.left(engine.name, instance))
    for now, then in zip(open_things(), before, strict=True):
        assert now < then + 10  # threads of the loop's executor stay


def open_things() -> tuple[int, int, int]:
    """How many descriptors, threads and children this process has."""
    gc.collect()
    return psutil.Process().num_fds(), threading.active_count(), len(psutil.Process().children(recursive=True))


@pytest.mark.timeout(600)
def test_fifty_sandboxes_leave_nothing_behind(loop: Loop, new_engine: Callable[[str], Engine]) -> None:
    instance = f"test-{uuid.uuid4().hex[:12]}"
    leak_of(loop, new_engine(instance), instance, 50)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_five_hundred_sandboxes_leave_nothing_behind(loop: Loop, new_engine: Callable[[str], Engine]) -> None:
    instance = f"test-{uuid.uuid4().hex[:12]}"
    leak_of(loop, new_engine(instance), instance, 500)

"""Code in a sandbox: what it says while it runs, what is left when it ends, and what is kept."""

import asyncio
import time
from contextlib import aclosing

import pytest

from adlatus.backends.sandbox.events import Error, Kind, Notice, Status, Stdout
from adlatus.backends.sandbox.messages import MAX_TEXT
from adlatus.backends.sandbox.pool import Sandboxes
from tests.runs.transcripts import eventually
from tests.sandbox import boxes
from tests.sandbox.conftest import Thread, execute

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PNG = b"\x89PNG\r\n\x1a\n"


def size_of(png: bytes) -> tuple[int, int]:
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_variables_imports_and_files_are_kept_between_calls(thread: Thread) -> None:
    assert thread.run("import math\nx = 20\nopen('a.txt', 'w').write('kept')").done.status is Status.OK
    told = thread.run("print(open('a.txt').read(), math.floor(x + 1.5))")
    assert told.stdout == "kept 21\n"
    assert told.done == told.done.__class__(Status.OK, told.done.seconds)
    assert 0 < told.done.seconds < 5


def test_code_runs_as_nobody_in_a_place_of_its_own(thread: Thread) -> None:
    told = thread.run(
        "import os, socket, sys, getpass\n"
        "print(os.getcwd(), os.path.expanduser('~'), os.getuid(), getpass.getuser(), socket.gethostname())\n"
        "print(sys.version_info >= (3, 11), sys.stdin.read() == '', sys.argv, __name__)"
    )
    assert told.stdout == "/mnt/data /home/sandbox 10001 sandbox sandbox\nTrue True [''] __main__\n"


def test_output_arrives_while_the_code_runs(thread: Thread) -> None:
    code = "import time\nfor n in range(4):\n    print(n)\n    time.sleep(0.3)"

    async def arrivals() -> list[tuple[float, str]]:
        async with thread.sandboxes.use(thread.id) as sandbox, aclosing(sandbox.execute(code, timeout_s=20)) as events:
            return [(time.monotonic(), event.text) async for event in events if isinstance(event, Stdout)]

    arrived = thread.loop.run(arrivals())
    assert [text for _, text in arrived] == ["0\n", "1\n", "2\n", "3\n"]
    assert arrived[-1][0] - arrived[0][0] > 0.6


def test_output_of_programs_and_of_both_streams_is_told_apart(thread: Thread) -> None:
    told = thread.run(
        "import os, subprocess, sys\n"
        "print('out'); print('err', file=sys.stderr); os.system('echo shell; echo complaint >&2')\n"
        "!echo bang\n"
        "subprocess.run(['echo', 'program'])\nNone"
    )
    assert told.stdout == "out\nshell\nbang\nprogram\n"
    assert told.stderr == "err\ncomplaint\n"
    assert told.results == []


def test_text_that_arrives_in_pieces_is_put_together(thread: Thread) -> None:
    told = thread.run(
        "import os, time\nfor byte in 'é你😀'.encode(): os.write(1, bytes([byte])); time.sleep(0.03)\n"
        "os.write(1, b'\\xff\\x00!');"
    )
    assert told.stdout == "é你😀\ufffd\ufffd!"


def test_the_value_of_the_last_line_is_a_result(thread: Thread) -> None:
    assert thread.run("1\n2 ** 10").results == ["1024"]
    assert thread.run("x = 5").results == []
    assert thread.run("_ + 1").results == ["1025"]
    assert thread.run("'no result';").results == []
    assert thread.run("display('shown', 7); 8").results == ["'shown'", "7", "8"]
    assert thread.run("import asyncio\nawait asyncio.sleep(0.01, 'awaited')").results == ["'awaited'"]


def test_tables_are_results_as_text(thread: Thread) -> None:
    [text] = thread.run("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})").results
    assert text.split() == ["a", "b", "0", "1", "x", "1", "2", "y"]
    [text] = thread.run("pd.DataFrame({'n': range(1000)})").results
    assert "[1000 rows x 1 columns]" in text


def test_figures_are_images_whether_shown_or_not(thread: Thread) -> None:
    told = thread.run(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nprint('between')\nplt.bar([1], [2])"
    )
    assert told.done.status is Status.OK, told.all
    assert [image.media_type for image in told.images] == ["image/png"] * 2
    assert all(image.content.startswith(PNG) for image in told.images)
    assert told.stderr == ""
    kinds = [type(event).__name__ for event in told.events]
    assert kinds.index("Image") < kinds.index("Stdout")
    assert thread.run("print('no figure is left')").images == []


def test_pictures_are_images(thread: Thread) -> None:
    told = thread.run("from PIL import Image\nImage.new('RGB', (30, 20), 'red')")
    [image] = told.images
    assert size_of(image.content) == (30, 20)
    assert told.results == []
    told = thread.run("display(Image.new('L', (3, 2)), Image.new('L', (5, 4)))")
    assert [size_of(image.content) for image in told.images] == [(3, 2), (5, 4)]


def test_an_error_has_a_name_a_value_and_a_traceback(thread: Thread) -> None:
    told = thread.run("def divide(n):\n    return 1 / n\nkept = 3\ndivide(0)")
    [error] = told.of(Error)
    assert told.errors == ["ZeroDivisionError"]
    assert "divide(0)" in error.traceback
    assert "division by zero" in error.traceback
    assert "\x1b" not in told.all
    assert told.done.status is Status.ERROR
    assert thread.run("kept").results == ["3"]
    assert thread.run("1 +").errors == ["SyntaxError"]
    assert thread.run("import nonexistent").errors == ["ModuleNotFoundError"]
    told = thread.run("import sys; print('before'); sys.exit(3)")
    assert (told.errors, told.stdout, told.stderr) == (["SystemExit"], "before\n", "")
    assert thread.run("exit()\nkept").results == ["3"]


def test_what_takes_too_long_is_interrupted_and_variables_are_kept(thread: Thread) -> None:
    told = thread.run("kept = 1\nprint('begun')\nimport time\ntime.sleep(60)", 1)
    assert told.done.status is Status.INTERRUPTED
    assert 1 <= told.done.seconds < 3
    assert told.notices == [Kind.TIMED_OUT]
    assert told.errors == ["KeyboardInterrupt"]
    assert told.stdout == "begun\n"
    assert thread.run("kept").results == ["1"]


def test_what_does_not_stop_is_killed_and_files_are_kept(thread: Thread) -> None:
    deaf = "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass"
    code = f"lost = 1\nopen('kept.txt', 'w').write('kept')\n{deaf}"
    told = thread.run(code, 0.5)
    assert told.done.status is Status.KILLED
    assert told.paths == ["kept.txt"]
    assert told.notices == [Kind.TIMED_OUT, Kind.RESTARTED]
    assert 2.5 <= told.done.seconds < 6
    after = thread.run("print(open('kept.txt').read(), 'lost' in globals())")
    assert after.stdout == "kept False\n"


def test_a_process_that_takes_too_much_memory_dies_alone(thread: Thread) -> None:
    told = thread.run("open('kept.txt', 'w').write('kept')\nhoard = []\nwhile True: hoard.append(bytearray(10**8))", 60)
    if any("control groups" in sentence for sentence in thread.sandboxes.lacks):
        assert told.errors == ["MemoryError"]
    else:
        assert told.done.status is Status.DIED
        [notice] = told.of(Notice)
        assert "too much memory" in notice.text
        assert "Files in /mnt/data are kept" in notice.text
    assert thread.run("print(open('kept.txt').read())").stdout == "kept\n"


def test_endless_output_is_cut_and_counted(thread: Thread) -> None:
    told = thread.run("while True: print('x' * 1000)", 1)
    assert told.done.status is Status.INTERRUPTED
    assert MAX_TEXT - 70_000 < len(told.stdout) <= MAX_TEXT
    assert told.notices == [Kind.TIMED_OUT, Kind.LEFT_OUT]
    assert thread.run("1").results == ["1"]


def test_whoever_stops_listening_interrupts_the_code(thread: Thread) -> None:
    async def leave() -> None:
        async with thread.sandboxes.use(thread.id) as sandbox:
            code = "import time\nkept = 4\nprint('go', flush=True)\ntime.sleep(60)"
            async with aclosing(sandbox.execute(code, timeout_s=60)) as events:
                assert isinstance(await anext(events), Stdout)

    began = time.monotonic()
    thread.loop.run(leave())
    assert thread.run("kept").results == ["4"]
    assert time.monotonic() - began < 10


def test_a_cancelled_caller_leaves_a_session_that_goes_on(thread: Thread) -> None:
    async def cancel(code: str) -> None:
        begun = asyncio.Event()

        async def listen() -> None:
            async with (
                thread.sandboxes.use(thread.id) as sandbox,
                aclosing(sandbox.execute(code, timeout_s=60)) as events,
            ):
                async for _ in events:
                    begun.set()

        listening = asyncio.create_task(listen())
        await begun.wait()
        listening.cancel()
        await asyncio.wait([listening])
        assert listening.cancelled()

    thread.loop.run(cancel("import time\nkept = 5\nprint('go')\ntime.sleep(60)"))
    assert thread.run("kept").results == ["5"]
    thread.loop.run(cancel("import signal\nsignal.signal(2, signal.SIG_IGN)\nprint('go')\nwhile True: pass"))
    assert thread.run("'kept' in globals()").results == ["False"]


def test_a_restart_forgets_variables_and_nothing_else(thread: Thread) -> None:
    thread.run("forgotten = 1\nopen('kept.txt', 'w').write('kept')")
    thread.put(b"put", "put.txt")

    async def restart() -> set[str]:
        async with thread.sandboxes.use(thread.id) as sandbox:
            await sandbox.restart()
            told = await execute(sandbox, "print('forgotten' in globals(), sorted(__import__('os').listdir()))")
            assert told.stdout == "False ['kept.txt', 'put.txt']\n"
            return sandbox.names

    assert thread.loop.run(restart()) == {"put.txt"}


def written(thread: Thread) -> tuple[bytes, bytes]:
    return thread.get("program"), thread.get("thread")


def test_what_runs_on_in_the_background_is_stopped_between_calls(thread: Thread) -> None:
    thread.run(
        "import subprocess, threading, time\n"
        'grow = \'while True: open("{}", "a").write(".")\'\n'
        "subprocess.Popen(['python3', '-c', grow.format('program')])\n"
        "threading.Thread(target=exec, args=(grow.format('thread'),), daemon=True).start()\n"
        "time.sleep(0.5)"
    )
    engine, box = thread.sandboxes.engine, thread.box
    before = eventually(lambda: (found := written(thread)) == written(thread) and found)
    took_s = boxes.processor_s(engine, box)
    time.sleep(0.5)
    assert boxes.processor_s(engine, box) - took_s < 0.05
    assert written(thread) == before
    assert all(before)
    thread.run("time.sleep(0.5)")
    assert len(thread.get("program")) > len(before[0])
    assert len(thread.get("thread")) > len(before[1])


def test_random_numbers_differ_between_threads(thread: Thread, new_thread: Thread) -> None:
    code = "import random, numpy, secrets\nprint(random.random(), numpy.random.rand(), secrets.token_hex())"
    assert thread.run(code).stdout != new_thread.run(code).stdout


def test_a_second_caller_of_a_thread_waits_for_its_turn(thread: Thread) -> None:
    async def both() -> list[str]:
        async def one(number: int) -> str:
            async with thread.sandboxes.use(thread.id) as sandbox:
                return (
                    await execute(sandbox, f"print({number}); import time; time.sleep(0.2); print({number})")
                ).stdout

        return await asyncio.gather(*(one(number) for number in range(3)))

    assert thread.loop.run(both()) == ["0\n0\n", "1\n1\n", "2\n2\n"]


def test_the_engine_says_what_it_lacks(sandboxes: Sandboxes) -> None:
    assert sandboxes.lacks
    assert all(sentence.endswith(".") for sentence in sandboxes.lacks)

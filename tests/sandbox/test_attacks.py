"""The attack table on every engine: what is seen, and that nobody else comes to harm."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adlatus.backends.sandbox.pool import Sandboxes
from tests.conftest import Loop
from tests.sandbox.attacks import ATTACKS, Attack
from tests.sandbox.conftest import Thread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Bystanders:
    """Whom no attack may harm: a process and a file of the machine, and the session of another thread."""

    def __init__(self, folder: Path, thread: Thread) -> None:
        self._process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
        self._file = folder / "bystander"
        self._file.write_text("untouched")
        self._thread = thread
        assert thread.run("kept = 42; open('kept.txt', 'w').write('kept')").done.status == "ok"

    def assert_unharmed(self) -> None:
        assert self._process.poll() is None
        assert self._file.read_text() == "untouched"
        assert psutil.virtual_memory().available > 2**30
        assert self._thread.run("print(kept, open('kept.txt').read())").stdout == "42 kept\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.discard()


@pytest.fixture(scope="module")
def bystanders(loop: Loop, sandboxes: Sandboxes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bystanders]:
    bystanders = Bystanders(tmp_path_factory.mktemp("bystander"), Thread(loop, sandboxes, "bystander"))
    yield bystanders
    bystanders.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_harms_its_own_session_at_most(attack: Attack, thread: Thread, bystanders: Bystanders) -> None:
    assert thread.run("own = 'kept'; open('own.txt', 'w').write('kept')").done.status == "ok"
    told = thread.run(attack.code, attack.timeout_s)
    has_groups = not any("control groups" in sentence for sentence in thread.sandboxes.lacks)
    patterns = attack.otherwise if has_groups else attack.otherwise | {"bubblewrap": attack.otherwise.get("no cgroup")}
    expected = patterns.get(thread.sandboxes.engine) or attack.seen
    assert re.search(expected, told.all), told.all[-3000:]
    assert "BREACH" not in told.all, told.all[-3000:]
    after = thread.run("print(open('/mnt/data/own.txt').read(), globals().get('own'))", 10)
    if attack.survives:
        assert after.stdout == "kept kept\n", (after.all[-2000:], told.all[-2000:])
    else:
        assert after.stdout.startswith("kept "), (after.all[-2000:], told.all[-2000:])
    bystanders.assert_unharmed()


def test_there_are_at_least_forty_attacks() -> None:
    assert len(ATTACKS) >= 40
    assert all(attack.difference or set(attack.otherwise) <= {"no cgroup"} for attack in ATTACKS)

"""Files in a sandbox: put, got, told of when new or changed; nothing is given that is not a plain file inside."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from adlatus.backends.sandbox.engine import SandboxFileError, SandboxLostError
from adlatus.backends.sandbox.events import Kind, SandboxFile, Status, safe_name
from tests.sandbox.conftest import Thread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEGABYTE = 2**20


def refused(thread: Thread, path: str, max_bytes: int = 1000) -> str:
    with pytest.raises(SandboxFileError) as caught:
        thread.get(path, max_bytes)
    return caught.value.code


def test_a_file_is_there_under_all_of_its_names(thread: Thread) -> None:
    thread.put(b"a,b\n1,2\n", "table.csv", "file-abc")
    told = thread.run("print(open('/mnt/data/file-abc').read() == open('table.csv').read() == 'a,b\\n1,2\\n')")
    assert told.stdout == "True\n"
    assert told.paths == []
    assert thread.get("table.csv") == thread.get("file-abc") == b"a,b\n1,2\n"
    assert thread.listed == ["file-abc"]
    assert thread.run("open('table.csv', 'a').write('3,4\\n')").paths == ["file-abc"]
    assert thread.get("file-abc") == b"a,b\n1,2\n3,4\n"


def test_a_file_is_replaced_by_one_of_the_same_name(thread: Thread) -> None:
    thread.put(b"first", "a.txt")
    thread.put(b"", "empty")
    thread.put(b"second", "a.txt")
    assert thread.get("a.txt") == b"second"
    assert thread.get("empty") == b""
    assert thread.listed == ["a.txt", "empty"]


def test_odd_but_possible_names_are_taken(thread: Thread) -> None:
    names = ["with space.csv", "quote'\".txt", "Grüße 你好 😀.txt", "-rf", "a" * 250]
    for name in names:
        thread.put(name.encode(), name)
    assert sorted(thread.listed) == sorted(names)
    assert all(thread.get(name) == name.encode() for name in names)


def test_new_and_changed_files_are_told_of(thread: Thread) -> None:
    thread.put(b"old", "unchanged.txt")
    thread.put(b"old", "changed.txt")
    thread.put(b"old", "removed.txt")
    told = thread.run(
        "import os\n"
        "open('new.txt', 'w').write('new')\n"
        "open('changed.txt', 'w').write('changed')\n"
        "os.remove('removed.txt')\n"
        "os.makedirs('sub/folder'); open('sub/folder/deep.txt', 'w').write('deep')\n"
        "open('.hidden', 'w'); os.mkdir('.folder'); open('.folder/x', 'w'); open('/tmp/elsewhere', 'w')"
    )
    assert told.done.files == (
        SandboxFile("changed.txt", "changed.txt", 7),
        SandboxFile("new.txt", "new.txt", 3),
        SandboxFile("sub/folder/deep.txt", "deep.txt", 4),
    )
    assert thread.get("sub/folder/deep.txt") == b"deep"
    assert thread.run("open('changed.txt', 'w').write('CHANGED')").paths == ["changed.txt"]
    assert thread.run("1").paths == []
    assert thread.run("open('failed.txt', 'w').write('x'); 1 / 0").paths == ["failed.txt"]
    assert thread.run(
        "import shutil; shutil.copy('new.txt', 'copy.txt'); os.rename('copy.txt', 'moved.txt')"
    ).paths == ["moved.txt"]


def test_a_large_file_goes_in_and_out_whole(thread: Thread) -> None:
    block = bytes(range(256)) * 4000

    async def content() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield block

    async def put_and_get() -> str:
        async with thread.sandboxes.use(thread.id) as sandbox:
            await sandbox.put(content(), ["large.bin"])
            digest = hashlib.sha256()
            async with aclosing(sandbox.get("large.bin", max_bytes=64 * MEGABYTE)) as blocks:
                async for got in blocks:
                    digest.update(got)
            return digest.hexdigest()

    expected = hashlib.sha256(block * 30).hexdigest()
    assert thread.loop.run(put_and_get()) == expected
    assert thread.run(
        f"import hashlib; hashlib.sha256(open('large.bin', 'rb').read()).hexdigest() == '{expected}'"
    ).results == ["True"]


def test_what_is_no_plain_file_inside_is_not_given(thread: Thread) -> None:
    told = thread.run(
        "import os, socket\n"
        "os.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'folder-link'); os.symlink('real', 'inner-link')\n"
        "os.symlink('/opt/adlatus', 'programs'); os.mkfifo('fifo'); os.mkdir('folder')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\n"
        "open('real', 'w').write('real')\n"
        "open('secret', 'w').write('x'); os.chmod('secret', 0)\n"
        "os.mkdir('closed'); open('closed/x', 'w'); os.chmod('closed', 0)"
    )
    assert told.done.status is Status.OK, told.all
    assert told.paths == ["real", "secret"]
    assert refused(thread, "link") == "ELOOP"
    assert refused(thread, "inner-link") == "ELOOP"
    assert refused(thread, "folder-link/passwd") in {"ELOOP", "ENOTDIR"}
    assert refused(thread, "programs/supervisor.py") in {"ELOOP", "ENOTDIR"}
    for path in ("fifo", "folder", "socket"):
        assert refused(thread, path) in {"EINVAL", "ENXIO"}
    for path in ("../../etc/passwd", "/etc/passwd", "", ".", "..", "folder/../real", "folder/", "//", "a\0b"):
        assert refused(thread, path) == "EINVAL"
    assert refused(thread, "secret") == "EACCES"
    assert refused(thread, "closed/x") == "EACCES"
    assert refused(thread, "missing") == "ENOENT"
    assert refused(thread, "x" * 300) == "ENAMETOOLONG"
    assert refused(thread, "real", 3) == "EFBIG"
    assert thread.get("real", 4) == b"real"


def test_names_that_mislead_are_told_of_by_harmless_ones(thread: Thread) -> None:
    told = thread.run(
        "import os\n"
        "for name in ('new\\nline', 'gpj.\\u202eexe', 'a:b|c', '<b>.html', 'tab\\t'): open(name, 'w').write(name)\n"
        "open(b'\\xff\\xfe', 'w')"
    )
    assert {file.path: file.name for file in told.done.files} == {
        "new\nline": "new_line",
        "gpj.\u202eexe": "gpj._exe",
        "a:b|c": "a_b_c",
        "<b>.html": "_b_.html",
        "tab\t": "tab_",
    }
    for path in told.paths:
        assert thread.get(path).decode() == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("plot.png", "plot.png"),
        ("a/b/plot.png", "plot.png"),
        ("..", "file"),
        ("...png", "png"),
        ("\x7f\x00", "__"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("x" * 300 + ".csv", "x" * 196 + ".csv"),
        ("x." + "y" * 300, "x." + "y" * 198),
        ("  ", "file"),
    ],
)
def test_a_safe_name_has_nothing_that_could_break(path: str, name: str) -> None:
    assert safe_name(path) == name


def test_of_very_many_new_files_a_hundred_are_told_of(thread: Thread) -> None:
    told = thread.run("for n in range(1500): open(f'{n:04}.txt', 'w').write('x')")
    assert len(told.paths) == 100
    assert told.notices == [Kind.LEFT_OUT]
    assert "1400 more new files" in told.all
    assert len(thread.listed) == 1000


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "nul\0"])
def test_a_file_cannot_be_put_elsewhere(thread: Thread, name: str) -> None:
    with pytest.raises(SandboxFileError, match="EINVAL"):
        thread.put(b"x", name)
    assert thread.listed == []


def test_a_file_does_not_follow_a_link_nor_replace_a_folder(thread: Thread) -> None:
    thread.run("import os; os.symlink('/tmp/target', 'link'); os.mkdir('folder'); os.mkdir('.arriving')")
    thread.put(b"put", "link")
    assert thread.run("os.path.islink('link'), os.path.exists('/tmp/target')").results == ["(False, False)"]
    with pytest.raises(SandboxFileError, match="EISDIR"):
        thread.put(b"x", "folder")
    assert thread.get("link") == b"put"


def test_a_file_that_does_not_fit_leaves_nothing_behind(thread: Thread) -> None:
    thread.run("open('filling', 'wb').write(bytes(510 * 2**20)); kept = 1")
    with pytest.raises(SandboxFileError, match="ENOSPC"):
        thread.put(bytes(8 * MEGABYTE), "a.bin")
    assert thread.listed == ["filling"]
    assert thread.run("import os; print(kept, os.listdir())").stdout == "1 ['filling']\n"


def test_a_file_whose_source_fails_leaves_nothing_behind(thread: Thread) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError

    async def put() -> None:
        async with thread.sandboxes.use(thread.id) as sandbox:
            await sandbox.put(content(), ["a.bin"])

    with pytest.raises(ConnectionError):
        thread.loop.run(put())
    assert thread.run("import os; os.listdir()").results == ["[]"]
    thread.put(b"later", "b.bin")
    assert thread.listed == ["b.bin"]


def test_the_sandbox_knows_the_names_that_were_put(thread: Thread) -> None:
    thread.put(b"x", "one", "two")
    thread.put(b"x", "three")

    async def names() -> set[str]:
        async with thread.sandboxes.use(thread.id) as sandbox:
            return sandbox.names

    assert thread.loop.run(names()) == {"one", "two", "three"}


def test_whoever_leaves_a_download_early_ends_the_sandbox(new_thread: Thread) -> None:
    new_thread.put(bytes(5 * MEGABYTE), "large")

    async def leave() -> None:
        async with new_thread.sandboxes.use(new_thread.id) as sandbox:
            async with aclosing(sandbox.get("large", max_bytes=5 * MEGABYTE)) as blocks:
                await anext(blocks)
            with pytest.raises(SandboxLostError):
                await sandbox.files()

    new_thread.loop.run(leave())
    assert new_thread.listed == []

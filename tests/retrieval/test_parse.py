"""Files of every supported type become text, in a child that can do nothing else."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from pwd import getpwnam
from typing import Any

import psutil
import pytest
import uvloop

from adlatus.errors import StartupError
from adlatus.retrieval import kinds, parse
from adlatus.retrieval.parse import EMPTY, INVALID, Failure, Limits, Parsed, Parser, Piece, open_parser
from adlatus.retrieval.parsing import syscalls, text, worker
from adlatus.retrieval.parsing.order import Ending
from adlatus.retrieval.parsing.sink import Sink
from tests.retrieval import documents as made

TEXT_EXTENSIONS = [
    ".c",
    ".cs",
    ".cpp",
    ".css",
    ".go",
    ".java",
    ".js",
    ".json",
    ".md",
    ".php",
    ".py",
    ".rb",
    ".sh",
    ".tex",
    ".ts",
    ".txt",
]


@pytest.fixture(scope="module")
def parser() -> Parser:
    return open_parser(Limits(cpu_s=20, wall_s=60))


async def one_block(content: bytes) -> AsyncIterator[bytes]:
    yield content


def pieces_of(parser: Parser, content: bytes, filename: str) -> list[Piece]:
    parsed = asyncio.run(parser.parse(one_block(content), filename))
    assert isinstance(parsed, Parsed), parsed
    with parsed:
        return list(parsed.pieces())


def text_of(parser: Parser, content: bytes, filename: str = "a.txt") -> str:
    return "".join(piece.text for piece in pieces_of(parser, content, filename))


# What is supported


@pytest.mark.parametrize("extension", TEXT_EXTENSIONS)
def test_source_code_and_text_are_taken_as_they_are(parser: Parser, extension: str) -> None:
    content = '{"größe": "<b>12 €</b>"}\n\tend'
    assert text_of(parser, content.encode(), f"Notes ü 漢.{extension[1:].upper()}") == content


def test_every_file_type_of_the_real_service_is_supported_and_no_other() -> None:
    documented = [*TEXT_EXTENSIONS, ".doc", ".docx", ".html", ".pdf", ".pptx"]
    assert all(kinds.is_supported(f"a{extension}") for extension in documented)
    assert not any(
        kinds.is_supported(name) for name in ("a.csv", "a.jsonl", "a.xlsx", "a.png", "pdf", ".pdf", "", "a.")
    )


def test_pdf_text_comes_page_by_page(parser: Parser) -> None:
    pages = [f"This is page {number}" for number in range(1, 301)]
    pieces = pieces_of(parser, made.pdf(pages), "a.pdf")
    assert [(piece.text, piece.page) for piece in pieces] == [(f"{text}\n", n) for n, text in enumerate(pages, 1)]


def test_empty_and_broken_pages_keep_the_numbers_of_the_others(parser: Parser) -> None:
    pieces = pieces_of(parser, made.pdf(["one", "", "three"], objects={12: b"<< /Type /Rubbish"}), "a.pdf")
    assert [(piece.text.strip(), piece.page) for piece in pieces if piece.text.strip()] == [("one", 1), ("three", 3)]


def test_what_begins_some_way_into_the_file_is_a_pdf_too(parser: Parser) -> None:
    assert "late" in text_of(parser, b"rubbish\n" * 9 + made.pdf(["late"]), "a.pdf")


def test_word_text_has_paragraphs_tables_and_notes_but_no_deleted_text(parser: Parser) -> None:
    cells = "".join(f"<w:tc>{made.paragraph(text) * 2}</w:tc>" for text in ("left", "right"))
    deleted = (
        "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:t>a</w:t><w:br/><w:t>b</w:t></w:r></w:p>"
    )
    body = made.paragraph("caf&#233; &amp; bar") + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>" + deleted
    notes = f'<w:footnotes xmlns:w="{made.W}">{made.paragraph("a note")}</w:footnotes>'
    pieces = pieces_of(parser, made.zipped(made.docx_parts(body, footnotes=notes)), "a.docx")
    assert pieces == [Piece("café & bar\nleft left\tright right\t\na\nb\na note\n", None)]


def test_slides_are_pages_in_the_order_in_which_they_are_shown(parser: Parser) -> None:
    pieces = pieces_of(parser, made.pptx("first", "second", notes="said aloud"), "a.pptx")
    assert [(piece.text, piece.page) for piece in pieces] == [("first\nsaid aloud\n", 1), ("second\n", 2)]


def test_old_word_text_comes_from_its_pieces_without_the_instructions_of_fields(parser: Parser) -> None:
    link = b"see \x13HYPERLINK http://x.test \x13PAGE\x14 7\x15\x14the site\x15\r"
    assert text_of(parser, made.doc([b"Caf\xe9\r", "漢字 ü\r", link]), "a.doc") == "Café\n漢字 ü\nsee the site\n\n"


def test_html_becomes_what_a_reader_sees(parser: Parser) -> None:
    content = """<!doctype html><html><head><title>T &amp; Co</title><style>p {}</style></head><body>
        <h1>Head</h1><p>One <b>bold</b>
        word<br>next &eacute;</p><script>if (a < b) { alert("</p>") }</script>
        <table><tr><td>a</td><td>b</td></tr></table><pre>x
          y</pre></body>"""
    assert text_of(parser, content.encode(), "a.html") == "T & Co\nHead\nOne bold word\nnext é\na\tb\nx\n          y"


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_spelling_of_unicode_is_read(parser: Parser, encoding: str) -> None:
    content = "Straße, naïve: plain words in an ordinary sentence 👍\n" * 3
    assert text_of(parser, content.encode(encoding)) == content


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("cp1252", "Die Größe der Straße überrascht: schöne Grüße aus München, täglich für alle.\n"),
        ("cp1252", "x = 1  # El niño comió mañana\n"),
        ("cp1252", "He said “naïve” – and paid 12 € for it, which was a lot of money.\n"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy.\n"),
        ("cp1251", "Съешь же ещё этих мягких французских булок, да выпей чаю. Это обычный русский текст.\n"),
        ("shift_jis", "これは日本語の文章です。文字コードを判定するための長い例文を書きます。\n"),
        ("gb18030", "这是一个用来检测编码的中文句子,里面有足够多的汉字可以判断。\n"),
    ],
)
def test_older_encodings_are_detected(parser: Parser, encoding: str, content: str) -> None:
    assert text_of(parser, (content * 5).encode(encoding)) == content * 5


def test_an_encoding_that_html_declares_is_believed(parser: Parser) -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>é'
    assert text_of(parser, page.encode("latin-1"), "a.html") == "é"


def test_characters_survive_wherever_blocks_are_cut(parser: Parser) -> None:
    content = "x" + "漢👍é\r\n" * 60_000
    assert text_of(parser, content.encode()) == content.replace("\r\n", "\n")


# Isolation

PROBES = """
import errno, json, os, resource, socket, sys
sys.path[:] = json.loads(sys.argv[1])
from adlatus.retrieval.parsing import syscalls
from adlatus.retrieval.parsing.confine import confine
from adlatus.retrieval.parsing.order import Order

def answer(attempt, *arguments):
    try:
        return repr(attempt(*arguments))
    except OSError as error:
        return os.strerror(error.errno)
    except ValueError:  # how the module says it of a limit
        return os.strerror(errno.EPERM)

server = os.getppid()
if "unfiltered" in sys.argv:
    syscalls._CALLS.clear()
confine(Order("text", 2**29, 5, 20, 2**20, *map(int, sys.argv[2:4])))
print(json.dumps({
    "file": answer(os.open, "/etc/passwd", os.O_RDONLY),
    "network": answer(socket.socket),
    "child": answer(os.fork),
    "signal": answer(os.kill, server, 0),
    "limit": answer(resource.setrlimit, resource.RLIMIT_NOFILE, (9, 9)),
    "program": "unfiltered" in sys.argv or answer(os.execv, "/bin/true", ["true"]),
    "output": answer(os.write, 1, b""),
}))
"""
REFUSED = "Operation not permitted"


def confined_answers(*arguments: str) -> dict[str, str]:
    """What the probes hear in a confined process."""
    path = json.dumps([str(Path(folder).resolve()) for folder in sys.path])
    command = [sys.executable, "-I", "-c", PROBES, path, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={}, timeout=60, check=True)
    answers: dict[str, str] = json.loads(done.stdout)
    assert answers.pop("output") == "0"
    return answers


@pytest.mark.skipif(os.uname().machine not in syscalls._CALLS, reason="no filter of system calls here")
def test_a_confined_process_can_neither_open_nor_connect_nor_start_nor_signal_anything() -> None:
    answers = confined_answers("-1", "-1")
    assert set(answers.values()) == {REFUSED}, answers


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's child is the same user")
def test_nor_can_it_where_system_calls_cannot_be_filtered() -> None:
    open_parser()
    account = getpwnam(parse.ACCOUNT)
    assert confined_answers(str(account.pw_uid), str(account.pw_gid), "unfiltered") == {
        "file": "Too many open files",
        "network": "Too many open files",
        "child": "Resource temporarily unavailable",
        "signal": REFUSED,
        "limit": REFUSED,
        "program": True,
    }


async def endless() -> AsyncIterator[bytes]:
    """Some hundred million characters of HTML: minutes of work."""
    for _ in range(200):
        yield b"<p>" * 300_000


async def child_at_work(before: list[psutil.Process]) -> psutil.Process:
    """The parser's process, once it is confined: then its complaints go to nowhere.

    Between its fork and its program it is still a copy of this process, whose own may go there, too.
    """
    this = psutil.Process().cmdline()
    async with asyncio.timeout(30):
        while True:
            for child in psutil.Process().children():
                with suppress(OSError, psutil.NoSuchProcess):
                    silent = str(Path(f"/proc/{child.pid}/fd/2").readlink()) == os.devnull
                    if child not in before and silent and child.cmdline() != this:
                        return child
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_cancelling_kills_the_child_which_has_no_secrets_and_no_open_files(
    run: Callable[[Any], None], parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADLATUS_MODEL_API_KEY", "secret")
    held, other = socket.socketpair()
    os.set_inheritable(held.fileno(), True)

    async def scenario() -> None:
        before = psutil.Process().children()
        work = asyncio.create_task(parser.parse(endless(), "a.html"))
        child = await child_at_work(before)
        assert {entry.name for entry in Path(f"/proc/{child.pid}/fd").iterdir()} == {"0", "1", "2"}
        assert b"secret" not in Path(f"/proc/{child.pid}/environ").read_bytes()
        if os.geteuid() == 0:
            assert set(child.uids()) == {getpwnam(parse.ACCOUNT).pw_uid}
            assert set(child.gids()) == {getpwnam(parse.ACCOUNT).pw_gid}
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not psutil.pid_exists(child.pid)

    with held, other:
        run(scenario())


def test_a_child_whose_time_is_up_is_killed() -> None:
    impatient = open_parser(Limits(wall_s=1))
    before = psutil.Process().children()
    assert asyncio.run(impatient.parse(endless(), "a.html")) == INVALID
    assert psutil.Process().children() == before


def test_a_small_file_may_take_less_time_than_a_large_one() -> None:
    assert [Limits().cpu_s_for(size) for size in (1, 2**20, 2**24, 2**29)] == [20, 22, 52, 120]
    assert Limits(cpu_s=5).cpu_s_for(2**29) == 5


def test_memory_is_limited_to_what_was_asked() -> None:
    frugal = open_parser(Limits(memory_bytes=160 * 2**20))
    stream = made.pdf(
        ["x"] * 3, objects={11: b"<< /Length 4 >>\nstream\n\n\nendstream", 3: b"[" + b"(a)" * 5_000_000 + b"]"}
    )
    assert isinstance(asyncio.run(frugal.parse(one_block(stream), "a.pdf")), Failure)


def test_an_interpreter_that_cannot_start_is_no_fault_of_the_file(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/nonexistent"])
    with pytest.raises(parse.ParserUnavailableError, match="ModuleNotFoundError"):
        asyncio.run(parser.parse(one_block(b"fine"), "a.txt"))
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(parse.ParserUnavailableError, match="No such file"):
        asyncio.run(parser.parse(one_block(b"fine"), "a.txt"))


def test_a_disk_that_is_full_is_no_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"text " * 100_000)
    with path.open("rb") as source, open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        ending, _ = worker.parse(text.extract, source, Sink(full, 2**20))
    assert ending is Ending.NO_ROOM


def test_a_file_at_a_path_is_read_by_a_child_that_could_not_reach_it(parser: Parser, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    path = folder / "no extension here"
    path.write_text("reached")
    path.chmod(0o600)
    parsed = asyncio.run(parser.parse(path, "a.txt"))
    assert isinstance(parsed, Parsed)
    with parsed:
        assert list(parsed.pieces()) == list(parsed.pieces()) == [Piece("reached", None)]
        assert parsed.size_bytes == len("reached")
    with pytest.raises(FileNotFoundError):
        asyncio.run(parser.parse(folder / "gone", "a.txt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs the account")
def test_without_an_account_root_does_not_parse_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "ACCOUNT", "not a valid name")
    with pytest.raises(StartupError, match="cannot be created"):
        open_parser()


def test_an_empty_file_says_so(parser: Parser) -> None:
    assert asyncio.run(parser.parse(one_block(b""), "a.txt")) == EMPTY

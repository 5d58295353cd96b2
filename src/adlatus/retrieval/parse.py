"""From the bytes of a file to its text, with page numbers where there are pages.

Parsing happens in a fresh child per file (`parsing`), because every file is hostile: the child loads its parser, gives
up every right, reads the file from one descriptor and writes text to another, an anonymous file. Nothing of the file is
ever in the memory of this process but the piece of text that is being read. Knows no rows and no vector stores.
"""

import asyncio
import codecs
import os
import pwd
import sys
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple

import structlog

from adlatus.backends import accounts
from adlatus.errors import StartupError
from adlatus.retrieval import kinds
from adlatus.retrieval.parsing.order import Ending, Order

log = structlog.get_logger(__name__)

ACCOUNT = "adlatus-parser"
_BOOT = (
    "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from adlatus.retrieval.parsing.worker import main; main()"
)
_BLOCK = 1 << 18
_NOT_CONFINED = 1


@dataclass(frozen=True)
class Limits:
    """What one file may cost. `text_bytes` is far beyond 5,000,000 tokens of any language, which `chunk` counts."""

    file_bytes: int = 512 * 2**20
    text_bytes: int = 64 * 2**20
    memory_bytes: int = 2**30
    """Of address space: the interpreter and its libraries take 100 to 200 MB of it."""
    cpu_s: int = 120
    wall_s: int = 300

    def cpu_s_for(self, size_bytes: int) -> int:
        """Less for a small file: no honest one takes so long, and a hostile one is sent again and again."""
        return min(self.cpu_s, 20 + 2 * size_bytes // 2**20)


@dataclass(frozen=True)
class Failure:
    """The file cannot be searched and trying again will not help: the `last_error` of a vector store file."""

    code: Literal["unsupported_file", "invalid_file"]
    message: str


# Source: last_error of vector store files as users of the real service reported them. The last is worded by us.
UNSUPPORTED = Failure("unsupported_file", "The file type is not supported.")
INVALID = Failure("invalid_file", "The file could not be parsed.")
TOO_LARGE = Failure("invalid_file", "The file could not be parsed because it is too large.")
EMPTY = Failure("invalid_file", "The file could not be parsed because it contains no text.")
_FAILURES = {Ending.INVALID: INVALID, Ending.TOO_LARGE: TOO_LARGE, Ending.EMPTY: EMPTY}


class ParserUnavailableError(Exception):
    """This machine could not start a parser or has no room for a text, no fault of the file: try again later."""


class Piece(NamedTuple):
    """A part of a text, and the page on which all of it stands, from 1, if there are pages."""

    text: str
    page: int | None


class Parsed:
    """The text of a file. Holds a descriptor until it is closed; leave it with `with`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> "Parsed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """How long the text is in UTF-8, with one byte more for every page."""
        return os.fstat(self._file.fileno()).st_size

    def pieces(self) -> Iterator[Piece]:
        """The text in order, in pieces of at most some 250,000 characters; may be asked for again. Blocks on a disk.

        Contains neither NUL nor lone surrogates, and newlines only as line breaks. Empty pages have an empty piece.
        """
        self._file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        page = None
        while block := self._file.read(_BLOCK):
            text = decoder.decode(block).replace("\0", "")
            rest, *begun = text.split("\f")
            if rest:
                yield Piece(rest, page)
            for part in begun:
                page = (page or 0) + 1
                yield Piece(part, page)


class Parser:
    """Parses files, each in a child of its own. May be used by many tasks at once; children are not limited in number.

    `scratch` is the folder for texts and for files that come as streams; they have no names there and vanish with us.
    """

    def __init__(self, limits: Limits, uid: int, gid: int, scratch: Path | None = None) -> None:
        self._limits = limits
        self._whom = (uid, gid)
        self._scratch = scratch

    async def parse(self, source: Path | AsyncIterable[bytes], filename: str) -> Parsed | Failure:
        """The text of the file at a path or in a stream. Its name decides by its extension only.

        Cancelling kills the child and waits for its end. Raises `ParserUnavailableError`, and `OSError` if the source
        cannot be read or there is no room for the text.
        """
        if not kinds.is_supported(filename):
            return UNSUPPORTED
        with ExitStack() as closing:
            file: BinaryIO
            if isinstance(source, Path):
                file = await asyncio.to_thread(source.open, "rb")
                closing.callback(file.close)
            else:
                file = self._anonymous_file()
                closing.callback(file.close)
                await self._spool(source, file)
            size, head = await asyncio.to_thread(_begin, file)
            if size > self._limits.file_bytes:
                return TOO_LARGE
            if size == 0:
                return EMPTY
            kind = kinds.kind(filename, head)
            if kind is None:
                return INVALID
            return await self._run(kind, file, self._limits.cpu_s_for(size))

    def _anonymous_file(self) -> BinaryIO:
        return tempfile.TemporaryFile(dir=self._scratch)

    async def _spool(self, source: AsyncIterable[bytes], file: BinaryIO) -> None:
        """Write a stream to a file, but hardly more than may be parsed."""
        size = 0
        async for block in source:
            size += len(block)
            await asyncio.to_thread(file.write, block)
            if size > self._limits.file_bytes:
                return

    async def _run(self, kind: kinds.Kind, file: BinaryIO, cpu_s: int) -> Parsed | Failure:
        limits = self._limits
        order = Order(kind, limits.memory_bytes, cpu_s, limits.wall_s, limits.text_bytes, *self._whom)
        output = self._anonymous_file()
        try:
            code = await _exit_code(order, file, output)
            if code == Ending.PARSED:
                return Parsed(output)
            failure = _failure(kind, code, os.pread(output.fileno(), 500, 0))
        except BaseException:
            output.close()
            raise
        output.close()
        return failure


def open_parser(limits: Limits | None = None, scratch: Path | None = None) -> Parser:
    """A parser whose children, if we are root, run as `adlatus-parser`, a user that is made if it is missing. Blocks.

    Raises `StartupError` if that user cannot be made.
    """
    if os.geteuid() != 0:
        return Parser(limits or Limits(), -1, -1, scratch)
    try:
        accounts.create(ACCOUNT)
    except accounts.NoAccountError as error:
        raise StartupError(
            f"Files are not parsed as root, and the user {ACCOUNT} cannot be created ({error}). "
            "Create a system user of this name, or start adlatus as an ordinary user."
        ) from None
    account = pwd.getpwnam(ACCOUNT)
    if account.pw_uid == 0:
        raise StartupError(f"The user {ACCOUNT} is root under another name; files are not parsed as root.")
    return Parser(limits or Limits(), account.pw_uid, account.pw_gid, scratch)


def _begin(file: BinaryIO) -> tuple[int, bytes]:
    """The size of a file and how it begins; leaves its descriptor at its beginning."""
    if file.writable():
        file.flush()
    size = os.fstat(file.fileno()).st_size
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return size, os.pread(file.fileno(), kinds.HEAD_BYTES, 0)


async def _exit_code(order: Order, file: BinaryIO, output: BinaryIO) -> int | None:
    """How the child ended; None if it was killed because its time was up."""
    command = _command(order)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=file, stdout=output, stderr=output, cwd="/", env=_environment(), start_new_session=True
        )
    except OSError as error:
        raise ParserUnavailableError(str(error)) from error
    try:
        async with asyncio.timeout(order.wall_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())


def _command(order: Order) -> list[str]:
    """-I: nothing of the environment or the working directory; -S: nor of what `.pth` files would load."""
    flags = ["-I", "-S", "-W", "ignore", "-X", "utf8"]
    path = "\n".join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 - may also be a zip file
    return [sys.executable, *flags, "-c", _BOOT, *order.arguments(), path]


def _environment() -> dict[str, str]:
    """Empty, so that it has no secrets, but for where the interpreter of some installations finds its libraries."""
    libraries = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": libraries} if libraries else {}


def _failure(kind: kinds.Kind, code: int | None, written: bytes) -> Failure:
    """What a child's end means. A child that crashed, or that a limit killed, was given a bad file."""
    said = written.decode(errors="replace")
    if code in (_NOT_CONFINED, Ending.NO_ROOM):
        raise ParserUnavailableError(said[-500:])
    failure = next((failure for ending, failure in _FAILURES.items() if ending == code), INVALID)
    log.info("file_not_parsed", kind=kind, exit_code=code, reason=said if code in _FAILURES else None)
    return failure

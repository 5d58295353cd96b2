"""JSON and JSONL files as a stream of the objects in them, each with its place; what cannot be read is told as such.

Lines are read one by one. A file of one JSON value is read as a whole.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic_core import PydanticCustomError

from adlatus.errors import StartupError, noun
from adlatus.wire.common import MAX_DEPTH, Json, refuse_deep, refuse_nul

SUFFIXES = (".json", ".jsonl", ".ndjson")
BYTES_FOLDER = "files"
"""Where the bytes of files are, beside the file that tells of them."""
MAX_LINE_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Found:
    """An object, or the reason why there is none.

    `in_page` says whether it stood in a page of a list, `size_bytes` about how much of the file it takes.
    """

    where: str
    folder: Path
    value: Json | None = None
    problem: str = ""
    in_page: bool = False
    size_bytes: int = 0


def files_in(paths: Iterable[Path]) -> list[Path]:
    """The files to read: those that are named, and in folders those whose names say that they are JSON.

    Raises `StartupError` where there is none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                each
                for each in path.rglob("*")
                if each.suffix.lower() in SUFFIXES
                and each.is_file()
                and BYTES_FOLDER not in each.relative_to(path).parts[:-1]
            )
            if not inside:
                raise StartupError(f"there is no {', '.join(SUFFIXES)} file in {path}.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise StartupError(f"there is no file {path}.")
    return list(dict.fromkeys(found))


def read(path: Path) -> Iterator[Found]:
    """The objects of a file. Raises `StartupError` where it cannot be read."""
    try:
        if path.suffix.lower() == ".json" and (whole := _whole(path)) is not None:
            yield from _objects(whole, f"{path}", path.parent, path.stat().st_size)
            return
        for number, line in _lines(path):
            where = f"{path}:{number}"
            if line is None:
                yield Found(where, path.parent, problem=f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            elif line.strip():
                try:
                    yield from _objects(_parsed(line), where, path.parent, len(line))
                except ValueError as error:
                    yield Found(where, path.parent, problem=f"no JSON: {error}")
                except PydanticCustomError as error:
                    yield Found(where, path.parent, problem=error.message())
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}.") from error


def _whole(path: Path) -> object | None:
    """The one value of a file; None where it holds several, or what is none: then it is read by lines."""
    try:
        return _parsed(path.read_bytes().removeprefix(_BOM))
    except (ValueError, PydanticCustomError):
        return None


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """The lines by their numbers; None for one that is too long."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) <= MAX_LINE_BYTES:
                yield number, line.removeprefix(_BOM) if number == 1 else line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield number, None


def _parsed(text: bytes) -> object:
    """A JSON value that can be kept. Raises `ValueError`, `PydanticCustomError`."""
    value: object = orjson.loads(text)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        refuse_deep(value, -2)  # in a list, in a page
    if b"\\u0000" in text:
        refuse_nul(value)
    return value


def _objects(value: object, where: str, folder: Path, size_bytes: int) -> Iterator[Found]:
    """The objects of a value: itself, or those of an array or of a page of a list."""
    match value:
        case {"object": "list", "data": list(data)}:
            for number, item in enumerate(data):
                at, size = f"{where} data[{number}]", size_bytes // len(data)
                yield _object(item, at, folder, size, in_page=True)
        case list():
            for number, item in enumerate(value):
                yield from _objects(item, f"{where} [{number}]", folder, size_bytes // len(value))
        case _:
            yield _object(value, where, folder, size_bytes)


def _object(value: object, where: str, folder: Path, size_bytes: int, *, in_page: bool = False) -> Found:
    if not isinstance(value, dict):
        return Found(where, folder, problem=f"expected an object, but got {noun(value)}")
    return Found(where, folder, value, in_page=in_page, size_bytes=size_bytes)

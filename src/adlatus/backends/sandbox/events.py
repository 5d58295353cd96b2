"""What happens while code runs, and the files that it leaves. Values only."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

_MAX_NAME_BYTES = 200


class Status(StrEnum):
    """How the execution of a piece of code ended."""

    OK = "ok"
    """It went through."""
    ERROR = "error"
    """It raised, and an `Error` came before."""
    INTERRUPTED = "interrupted"
    """Its time was over, or it was cancelled, and it stopped when told to: variables are kept."""
    KILLED = "killed"
    """It did not stop when told to: variables are lost, files are kept."""
    DIED = "died"
    """The process ended by itself or for lack of memory: variables are lost, files are kept."""
    LOST = "lost"
    """The whole sandbox is gone with its files: the next use of the thread gets another one."""


class Kind(StrEnum):
    """What a notice is about."""

    TIMED_OUT = "timed_out"
    RESTARTED = "restarted"
    LEFT_OUT = "left_out"
    LOST = "lost"


@dataclass(frozen=True)
class SandboxFile:
    """A file in `/mnt/data`: `path` for `Sandbox.get`, `name` fit for a File object, whatever the code called it."""

    path: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Stdout:
    text: str


@dataclass(frozen=True)
class Stderr:
    text: str


@dataclass(frozen=True)
class Result:
    """The value of the last expression, or what was displayed, as text; without a newline at its end."""

    text: str


@dataclass(frozen=True)
class Image:
    """A figure or picture that was shown: `media_type` is image/png or image/jpeg, and the content begins as one."""

    media_type: str
    content: bytes


@dataclass(frozen=True)
class Error:
    """What the code raised; `traceback` is for the model to read and may be empty."""

    name: str
    value: str
    traceback: str


@dataclass(frozen=True)
class Notice:
    """What the model should know of its sandbox, in a sentence for it."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Done:
    """The last event of every execution: how it ended, what it took, which files are new or changed."""

    status: Status
    seconds: float
    files: tuple[SandboxFile, ...] = ()


Event = Stdout | Stderr | Result | Image | Error | Notice | Done


def safe_name(path: str) -> str:
    """The last component of a path without what could mislead or break: controls, directions, leading dots."""
    name = unicodedata.normalize("NFC", path.rpartition("/")[2])
    name = "".join("_" if unicodedata.category(sign)[0] == "C" else sign for sign in name)
    name = re.sub(r'[\\:*?"<>|]', "_", name).strip().lstrip(".") or "file"
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    room = _MAX_NAME_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + extension

"""Object ids with the prefixes and lengths of the real service."""

import secrets
import string
import time
import uuid
from functools import cache
from typing import Literal

Kind = Literal["asst", "thread", "msg", "run", "step", "call", "file", "vs", "vsfb", "upload", "part", "key"]

_ALPHANUMERIC = string.ascii_letters + string.digits
_BASE58 = "".join(c for c in _ALPHANUMERIC if c not in "0OIl")


def new_id(kind: Kind) -> str:
    """A fresh id such as `asst_` and 24 characters. *Source*: recorded objects (semantics, section 8)."""
    match kind:
        case "file":
            return "file-" + _random(_BASE58, 22)
        case "vs" | "upload" | "part":
            return f"{kind}_{int(time.time()):08x}{secrets.token_hex(12)}"
        case "vsfb":
            return f"vsfb_{uuid.uuid4().hex}"
        case _:
            return f"{kind}_{_random(_ALPHANUMERIC, 24)}"


def new_secret() -> str:
    """An API key, of the form that clients expect: `sk-` and 48 characters."""
    return "sk-" + _random(_ALPHANUMERIC, 48)


def new_request_id() -> str:
    """The value of the `x-request-id` header: `req_` and 32 hexadecimal digits."""
    return f"req_{secrets.token_hex(16)}"


@cache
def _table(alphabet: str) -> tuple[bytes, bytes]:
    """Which character a random byte stands for, and the bytes that stand for none, so that none is favoured."""
    characters = bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256))
    return characters, bytes(range(256 - 256 % len(alphabet), 256))


def _random(alphabet: str, length: int) -> str:
    table, unfit = _table(alphabet)
    characters = b""
    while len(characters) < length:
        characters += secrets.token_bytes(length + 16).translate(table, unfit)
    return characters[:length].decode()

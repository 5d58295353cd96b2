"""What a rehearsal server remembers: its last requests, and which failures have already happened. Knows no HTTP."""

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from adlatus.rehearsal.chat import ChatRequest

KEPT_REQUESTS = 1_000
KEPT_BYTES = 64 * 2**20
KEPT_FAILURES = 10_000


@dataclass(slots=True)
class Entry:
    """A request. `exchange`: the number of the script's exchange that answers it. `status`: None until it is sent."""

    at: int
    path: str
    raw: bytes
    exchange: int | None = None
    status: int | None = None


class RequestLog:
    """The last requests, without their headers."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0

    def keep(self, path: str, raw: bytes) -> Entry:
        entry = Entry(int(time.time()), path, raw)
        self._entries.append(entry)
        self._kept_bytes += len(raw)
        while len(self._entries) > KEPT_REQUESTS or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._entries.popleft().raw)
        return entry

    def entries(self) -> Sequence[dict[str, Any]]:
        return [
            {
                "at": entry.at,
                "path": entry.path,
                "exchange": entry.exchange,
                "status": entry.status,
                "body": orjson.Fragment(entry.raw),
            }
            for entry in self._entries
        ]

    def clear(self) -> None:
        self._entries.clear()
        self._kept_bytes = 0


class Failures:
    """How often the failures of markers have happened."""

    def __init__(self) -> None:
        self._happened: dict[tuple[bytes, int], int] = {}

    def strikes(self, chat: ChatRequest, position: int, times: int | None) -> bool:
        """Whether the failure at this position of the plan befalls this request; if so, that is counted."""
        if times is None:
            return True
        messages = orjson.dumps(chat.messages, option=orjson.OPT_SORT_KEYS)
        key = (hashlib.sha256(messages).digest(), position)
        happened = self._happened.get(key, 0)
        if happened >= times:
            return False
        self._happened[key] = happened + 1
        if len(self._happened) > KEPT_FAILURES:
            del self._happened[next(iter(self._happened))]
        return True

    def clear(self) -> None:
        self._happened.clear()

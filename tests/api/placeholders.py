"""Files and vector stores for tests that only need some: `file-1` and `vs_1` stand for real ones."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx


def filled_in(http: httpx.Client) -> Callable[[Any], Any]:
    """Puts ids of files and stores that are made in place of `file-1`, `vs_1` and their like; the same for the same."""
    made: dict[str, str] = {}

    def make(placeholder: str) -> str:
        if placeholder not in made:
            made[placeholder] = _file(http) if placeholder.startswith("file") else _store(http)
        return made[placeholder]

    def fill(value: Any) -> Any:
        return json.loads(re.sub(r"\b(file-|vs_)[0-9]\b", lambda found: make(found[0]), json.dumps(value)))

    return fill


def _file(http: httpx.Client) -> str:
    response = http.post("/files", data={"purpose": "assistants"}, files={"file": ("notes.txt", b"Notes")})
    return str(response.raise_for_status().json()["id"])


def _store(http: httpx.Client) -> str:
    return str(http.post("/vector_stores", json={}).raise_for_status().json()["id"])

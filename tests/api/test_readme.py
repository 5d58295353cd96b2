"""What the README and the document of streams show, works; `tests/docs` looks at all the others."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from adlatus.cli import _parser
from tests.conftest import Server
from tests.runs.transcripts import converse, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_six_lines_print_a_streamed_answer(
    server: Server, api_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    assert 'base_url="http://127.0.0.1:8000/v1", api_key="any"' in code
    code = code.replace("http://127.0.0.1:8000/v1", server.base_url).replace('"any"', repr(api_key))
    exec(compile(code, "README.md", "exec"), {})
    assert "rehearsal model" in capsys.readouterr().out


class Dropping(httpx.HTTPTransport):
    """Drops every connection after the first piece of its answer, three times."""

    dropped = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Dropped(response.stream, self) if self.dropped < 3 else response.stream
        return response


class _Dropped(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, transport: Dropping) -> None:
        self._stream, self._transport = stream, transport

    def __iter__(self) -> Iterator[bytes]:
        yield next(iter(self._stream))
        self._transport.dropped += 1
        raise httpx.ReadError("dropped")

    def close(self) -> None:
        self._stream.close()


def test_the_client_that_comes_back_hears_everything_once(server: Server, http: httpx.Client) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "streams.md").read_text(), re.S)
    shown: dict[str, Any] = {}
    exec(compile(code, "streams.md", "exec"), shown)
    shown["client"].close()
    talk = converse(http, "[[tokens: 20]] [[pace: 0.02]]")
    run_id = talk.start()["id"]
    transport = Dropping()
    with httpx.Client(base_url=server.base_url, headers=http.headers, transport=transport) as shown["client"]:
        shown["time"] = SimpleNamespace(sleep=lambda _: None)
        heard = list(shown["follow"](talk.thread_id, run_id))
    events = parse(http.get(f"{talk.path}/runs/{run_id}/events").text.split("\n"))
    assert heard == [(event.name, event.payload) for event in events]
    assert transport.dropped == 3


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"^\| `adlatus ([a-z]+)` \|", README, re.M))
    choices = next(action.choices for action in _parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    assert choices is not None
    assert named == set(choices)

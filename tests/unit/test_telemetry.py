"""Log lines and metrics."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
import structlog

from adlatus.telemetry import Metrics, configure_logging, log_context


@pytest.fixture(autouse=True)
def logging_is_put_back() -> Iterator[None]:
    yield
    configure_logging("json", "warning")  # as the other tests have it


def _lines(captured: pytest.CaptureFixture[str]) -> list[str]:
    return captured.readouterr().err.splitlines()


def test_json_lines_carry_the_ids_of_their_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    with log_context(request_id="req_1"), log_context(run_id="run_1"):
        structlog.get_logger("adlatus.test").info("run ended", status="completed")
    structlog.get_logger("adlatus.test").debug("not shown")
    [line] = [json.loads(line) for line in _lines(capsys)]
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "run ended",
        "logger": "adlatus.test",
        "status": "completed",
        "request_id": "req_1",
        "run_id": "run_1",
    }


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_logged_exception_shows_where_but_no_values(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(style, "info")  # type: ignore[arg-type]
    authorization = "Bearer sk-" + "secret"
    try:
        raise RuntimeError("told")
    except RuntimeError:
        structlog.get_logger("adlatus.test").exception("request failed", length=len(authorization))
    logged = "\n".join(_lines(capsys))
    assert "RuntimeError" in logged
    assert "told" in logged
    assert "test_telemetry" in logged
    assert authorization not in logged


def test_the_standard_library_logs_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    logging.getLogger("some.library").warning("odd: %s", "thing")
    [line] = [json.loads(line) for line in _lines(capsys)]
    assert (line["level"], line["event"], line["logger"]) == ("warning", "odd: thing", "some.library")


def test_a_line_is_written_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    structlog.get_logger("adlatus.test").info("odd", name="half \ud83d", number=2**70, thing=object)
    [line] = [json.loads(line) for line in _lines(capsys)]
    assert (line["name"], line["number"], line["thing"]) == ("half \ud83d", 2**70, "<class 'object'>")


def test_a_log_that_nobody_reads_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging("json", "info")
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(BrokenPipeError), os.fdopen(writer, "w") as unread:  # closing it tries once more
        monkeypatch.setattr("sys.stderr", unread)
        structlog.get_logger("adlatus.test").info("unheard")
        heard_out = True
        monkeypatch.undo()
    assert heard_out


def test_each_server_has_a_registry_of_its_own() -> None:
    one, other = Metrics(), Metrics()
    one.runs_ended.labels(status="completed").inc()
    assert b'adlatus_runs_total{status="completed"} 1.0' in one.render()
    assert b"completed" not in other.render()

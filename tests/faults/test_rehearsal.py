"""Rehearsal scripts as a person uses them: the commands, the banner, and the example for one's own tests."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.processes import adlatus, data_folder, run, serve
from tests.runs.transcripts import converse, eventually

ROOT = Path(__file__).parents[2]
SCRIPT = """
exchanges:
  - {expect: {user: Hello}, answer: {text: "Hello, Jane!"}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "script.yaml"
    file.write_text(SCRIPT)
    return str(file)


@pytest.mark.slow
def test_a_server_plays_the_script_that_is_set(folder: Path, script: str) -> None:
    with serve(folder, rehearsal_script=script) as server, server.client() as http:
        assert converse(http, "Hello").completed() == "Hello, Jane!"
        [line] = [line for line in server.log.splitlines() if line.startswith("  models ")]
        assert f"rehearsal: plays {script}" in line
        log = next(word for word in line.split() if word.endswith("/requests"))
        assert [entry["exchange"] for entry in httpx.get(log).json()["data"]] == [0]
        talk = converse(http, "Good bye")
        failed = talk.ended(talk.start()["id"])
        assert failed["status"] == "failed"
        assert failed["last_error"]["code"] == "invalid_prompt"
        assert "user must equal “Hello”" in failed["last_error"]["message"]


@pytest.mark.slow
def test_a_script_is_ignored_aloud_beside_another_model(folder: Path, script: str) -> None:
    with serve(folder, rehearsal_script=script, model_base_url="http://127.0.0.1:9/v1") as server:
        assert server.url
        assert "its script is ignored" in server.log


def test_a_script_that_cannot_be_played_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text("exchanges: [{answer: {txt: a}}]")
    for code, said in (run("rehearse", "--script", str(file)), run("rehearse", rehearsal_script=str(file))):
        assert code == 1
        assert f"adlatus: the rehearsal script {file} cannot be played" in said
        assert "exchange 0: answer.txt is not known here" in said
        assert "Traceback" not in said


def test_the_doctor_checks_the_script(tmp_path: Path, script: str) -> None:
    data_dir = str(tmp_path / "data")
    code, said = run("doctor", rehearsal_script=script, data_dir=data_dir, port="1")
    assert (code, "script.yaml, 1 exchange(s)" in said) == (0, True)
    code, said = run("doctor", rehearsal_script=str(tmp_path / "none.yaml"), data_dir=data_dir, port="1")
    assert (code, "cannot read the rehearsal script" in said) == (1, True)


def test_a_taken_port_is_told(script: str) -> None:
    with adlatus("rehearse", "--port", "0", "--script", script) as process:
        eventually(lambda: process.log.endswith("/requests\n"))
        port = process.log.split("http://127.0.0.1:")[1].split("/")[0]
        code, said = run("rehearse", "--port", port)
        assert (code, "Choose another --port." in said) == (1, True)


@pytest.mark.slow
def test_the_example_for_ones_own_tests_stands_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "test_with_rehearsal.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout

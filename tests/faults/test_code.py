"""A server that is killed while it executes code: the run goes on in a new sandbox, the old one leaves nothing."""

import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from adlatus.backends.sandbox.instance import hold
from tests.conftest import MACHINE_DATA_DIR, missing
from tests.faults.processes import data_folder, serve
from tests.runs.coding import ENGINES, coder, coding, executed, upload
from tests.runs.transcripts import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAIT = "import time\nprint('begun', flush=True)\ntime.sleep(4)\nprint(open('/mnt/data/sales.csv').read())"
SCRIPT: dict[str, Any] = {"exchanges": coding("Wait for it.", WAIT, "a,1", "Here it is.")}


def _boxes(engine: str, folder: Path, instance: str) -> set[str]:
    """What an operator sees of the sandboxes of a data folder: containers, or processes."""
    if engine == "docker":
        listed = ["docker", "ps", "--all", "--quiet", "--filter", f"label=io.adlatus.instance={instance}"]
        return set(subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split())
    return {
        str(process.pid)
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "bwrap" and str(folder) in " ".join(process.info["cmdline"] or ())
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_survives_the_server_that_executed_its_code(engine: str) -> None:
    with data_folder() as folder:
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "sandbox").symlink_to(MACHINE_DATA_DIR / "sandbox")
        script = folder.parent / "script.yaml"
        script.write_text(yaml.safe_dump(SCRIPT), "utf-8")
        with hold(folder) as instance:  # as the server will
            pass
        with serve(folder, sandbox=engine, rehearsal_script=str(script)) as first, first.client() as http:
            if "no code is executed by this process" in first.log:
                missing(engine, first.log)
            file_id = upload(http, b"a,1\n", "sales.csv")
            talk = coder(http, "Wait for it.", {"tool_resources": {"code_interpreter": {"file_ids": [file_id]}}})
            with talk.streaming() as events:
                for event in events:
                    if "'logs': 'begun" in str(event.payload):
                        break
                left = _boxes(engine, folder, instance)
                first.kill()
        with serve(folder, sandbox=engine, rehearsal_script=str(script)) as second, second.client() as http:
            again = type(talk)(http, talk.assistant_id, talk.thread_id)
            [run] = http.get(f"{talk.path}/runs").json()["data"]
            ended = again.ended(run["id"], 60)
            assert (ended["status"], again.answer()) == ("completed", "Here it is."), ended
            [step] = [step for step in again.steps(run["id"]) if step["type"] == "tool_calls"]
            assert executed(step)[0]["outputs"] == [{"type": "logs", "logs": "begun\na,1\n\n"}]
            assert left
            assert not left & _boxes(engine, folder, instance)
            second.stop()
        eventually(lambda: not _boxes(engine, folder, instance))

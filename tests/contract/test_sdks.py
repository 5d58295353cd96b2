"""The official SDKs, old and new: each drives the whole server by itself, in an environment of its own."""

import json
import os
import re
import subprocess

import pytest

from tests.conftest import Server
from tests.sdks.environments import ENVIRONMENTS, ROOT, Environment, node_command, python_command

SDKS = ROOT / "tests" / "sdks"
PROGRAMS = ("smoke", "relayed")
RUN_TIMEOUT_S = 120


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_the_sdk_drives_the_server(environment: Environment, program: str, server: Server, api_key: str) -> None:
    if environment.language == "python":
        command = python_command(environment, SDKS / f"{program}.py")
    else:
        command = node_command(environment, SDKS / f"{program}.mjs")
    # Nothing else of this process: neither its proxies nor its Python
    settings = {"PATH": os.defpath, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": api_key}
    done = subprocess.run(
        command, env=settings, capture_output=True, encoding="utf-8", timeout=RUN_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sdk"] == environment.version
    assert len(set(report["passed"])) == len(report["passed"]) > 0


def test_the_documentation_names_the_versions_that_are_driven() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    section = text.partition("\n## SDKs\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| openai for (\S+) +\| ([\d., ]+) \|", section, re.M))
    for language, title in (("python", "Python"), ("node", "Node.js")):
        driven = [environment.version for environment in ENVIRONMENTS if environment.language == language]
        assert documented[title].strip().split(", ") == driven

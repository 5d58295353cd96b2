"""The image's health check, as it is run: a program of its own, which asks over HTTP."""

import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.deploy.compose import ROOT
from tests.faults.processes import free_port
from tests.retrieval.service import answering


def code(**settings: str) -> int:
    environment = {f"ADLATUS_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-I", str(ROOT / "docker" / "healthcheck.py")]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_the_answer_decides(host: str, status: int, expected: int) -> None:
    with answering(lambda request, _body: (status if request.path == "/healthz" else 404, b"")) as url:
        port = str(urlsplit(url).port)
        assert code(host=host, port=port) == expected
        assert code(admin_bind=f"{host}:{port}", port="1") == expected


def test_who_does_not_listen_is_not_well() -> None:
    assert code(port=str(free_port())) == 1

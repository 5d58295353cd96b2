"""The image, run as the documentation says: one container alone, and the services of docker-compose.yml."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from openai import OpenAI

from adlatus.backends.sandbox import image
from adlatus.settings import Settings
from tests.conftest import missing
from tests.deploy.compose import Json
from tests.deploy.containers import Box, documented, started
from tests.faults.processes import free_port
from tests.faults.proxy import database_behind_proxy
from tests.retrieval.qdrant_server import qdrant_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "sk-secret"
SMOKE = Path(__file__).parents[1] / "sdks" / "smoke.py"
RIGHTS = """
import os
roots = [os.path.join("/", name) for name in os.listdir("/") if name not in ("proc", "sys", "dev", "tmp")]
folders = ["/", *(at for root in roots for at, _, _ in os.walk(root))]
outside = [at for at in folders if os.access(at, os.W_OK) and not at.startswith("/var/lib/adlatus")]
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))]
print(os.getuid(), outside, set(capabilities))
"""
CODE = """
numbers = [int(line) for line in open("/mnt/data/numbers.txt")]
open("/mnt/data/sum.txt", "w").write(str(sum(numbers)))
print("the sum is", sum(numbers))
"""


def client(port: int) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60)


def said(sdk: OpenAI, text: str, thread_id: str | None = None) -> str:
    """What a streamed run says, in a thread of its own or in an older one."""
    assistant = sdk.beta.assistants.create(model="gpt-4o")
    thread = thread_id or sdk.beta.threads.create().id
    sdk.beta.threads.messages.create(thread, role="user", content=text)
    with sdk.beta.threads.runs.stream(thread_id=thread, assistant_id=assistant.id) as stream:
        return "".join(stream.text_deltas)


def test_a_container_alone_is_a_whole_server_and_the_next_one_goes_on(engine: docker.DockerClient, data: str) -> None:
    port = free_port()
    with documented(engine, data, port, KEY) as box, client(port) as sdk:
        box.wait_until_healthy()
        assert box.python(RIGHTS) == "10000 [] {'0000000000000000'}"
        thread = sdk.beta.threads.create().id
        assert said(sdk, "[[say: it works]]", thread) == "it works"
        store = sdk.vector_stores.create()
        text = b"Filip is fond of cake.\n"
        sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("foods.txt", text))
        # None of these words is in the file: it is found by what it means, with the model of the image
        [found] = sdk.vector_stores.search(store.id, query="which dessert somebody likes").data
        assert found.content[0].text == text.decode()
        assert box.stopped() == 0, box.log
    with documented(engine, data, port, KEY) as box, client(port) as sdk:
        box.wait_until_healthy()
        assert [message.role for message in sdk.beta.threads.messages.list(thread)] == ["assistant", "user"]
        assert len(sdk.vector_stores.search(store.id, query="dessert").data) == 1
        assert box.stopped() == 0, box.log


def test_a_container_without_keys_says_what_to_do(engine: docker.DockerClient, services: Json, data: str) -> None:
    alone = services["server"] | {"environment": {}}
    with started(engine, alone, {"data": data}) as box:
        assert box.ended() == 1
        assert "set ADLATUS_API_KEYS=key" in box.log


@dataclass(frozen=True)
class Deployment:
    """The services of the compose file that are ours."""

    port: int
    server: Box
    runs: Box
    ingestion: Box


@pytest.fixture
def deployment(
    engine: docker.DockerClient, services: Json, data: str, new_database: Callable[..., str]
) -> Iterator[Deployment]:
    if not image.exists(engine, image.name(Settings())):
        missing("docker", f"the engine has no image {image.name(Settings())}: .ci/engine image")
    with ExitStack() as stack:
        _, dsn = stack.enter_context(database_behind_proxy(new_database(empty=True)))
        qdrant = stack.enter_context(qdrant_server())

        def start(name: str, **more: str) -> Box:
            settings = {"database_url": dsn, "qdrant_url": qdrant.url, "admin_bind": f"127.0.0.1:{free_port()}"}
            return stack.enter_context(started(engine, services[name], {"data": data}, **settings, **more))

        migrate, prepare = start("migrate"), start("sandbox-image")
        assert migrate.ended() == 0, migrate.log
        assert prepare.ended() == 0, prepare.log
        assert "is there" in prepare.log
        port = free_port()
        yield Deployment(port, start("server", port=str(port)), start("worker-runs"), start("worker-ingestion"))


def test_the_services_of_the_compose_file_do_together_what_the_sdk_asks(deployment: Deployment) -> None:
    boxes = (deployment.server, deployment.runs, deployment.ingestion)
    for box in boxes:
        box.wait_until_healthy()
    surroundings = {"PATH": os.defpath, "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    surroundings["OPENAI_BASE_URL"] = f"http://127.0.0.1:{deployment.port}/v1"
    smoke = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", SMOKE],
        env=surroundings,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert smoke.returncode == 0, smoke.stderr
    assert {"text_deltas", "search", "files_of_a_store"} <= set(json.loads(smoke.stdout.splitlines()[-1])["passed"])
    with client(deployment.port) as sdk:
        the_worker_executes_code(sdk)
    assert deployment.server.python("import os; print(os.path.exists('/var/run/docker.sock'))") == "False"
    for box in (deployment.runs, deployment.ingestion):
        assert box.python(RIGHTS) == "10000 [] {'0000000000000000'}"
    for box in boxes:
        assert box.stopped() == 0, box.log


def the_worker_executes_code(sdk: OpenAI) -> None:
    """Only it can: the server has no engine. Files go in and come out."""
    numbers = sdk.files.create(file=("numbers.txt", b"19\n23\n"), purpose="assistants")
    assistant = sdk.beta.assistants.create(model="gpt-4o", tools=[{"type": "code_interpreter"}])
    call = f"[[call: code_interpreter {json.dumps({'code': CODE})}]][[say: It is in sandbox:/mnt/data/sum.txt]]"
    resources: Any = {"code_interpreter": {"file_ids": [numbers.id]}}
    thread = sdk.beta.threads.create(messages=[{"role": "user", "content": call}], tool_resources=resources)
    run = sdk.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    assert run.status == "completed", run.last_error
    steps: Any = sdk.beta.threads.runs.steps.list(run.id, thread_id=thread.id)
    [executed] = [step.step_details.tool_calls[0] for step in steps if step.type == "tool_calls"]
    assert executed.code_interpreter.outputs[0].logs == "the sum is 42\n"
    content: Any = sdk.beta.threads.messages.list(thread.id, run_id=run.id).data[0].content[0]
    [annotation] = content.text.annotations
    assert sdk.files.content(annotation.file_path.file_id).read() == b"42"

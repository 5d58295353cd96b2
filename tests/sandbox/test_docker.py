"""What is Docker's own: how a container is made, engines that are far, that do not answer, that fall silent."""

import asyncio
import gc
import os
import select
import socket
import ssl
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from adlatus.backends.sandbox import image
from adlatus.backends.sandbox.docker import APP, CREATED, INSTANCE, DockerEngine, unlimited
from adlatus.backends.sandbox.engine import SandboxUnavailableError
from adlatus.backends.sandbox.events import Status
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.pool import Limits
from adlatus.settings import Settings
from tests.conftest import MACHINE_DATA_DIR, Loop, missing
from tests.sandbox import boxes
from tests.sandbox.conftest import Thread, keeping, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def settings(loop: Loop) -> Settings:
    """Of a server with Docker."""
    settings = Settings(data_dir=MACHINE_DATA_DIR, sandbox="docker")
    try:
        loop.run(_pick(settings))
    except SandboxUnavailableError as error:
        missing("docker", str(error))
    return settings


async def _pick(settings: Settings) -> None:
    await (await pick_engine(settings, "test-docker")).close()


@pytest.fixture
def instance() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def new_engine(settings: Settings, instance: str) -> DockerEngine:
    return DockerEngine(image.name(settings), instance)


def test_a_container_has_nothing_beyond_itself(loop: Loop, settings: Settings, instance: str) -> None:
    with keeping(loop, new_engine(settings, instance), Limits(warm=0)) as sandboxes:
        box: Any = boxes.inspect(Thread(loop, sandboxes, "a").box)
    host, config = box["HostConfig"], box["Config"]
    assert host["NetworkMode"] == "none"
    assert list(box["NetworkSettings"]["Networks"]) == ["none"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host.get("Init")) == (False, True, None)
    assert (host["Binds"], box["Mounts"], host["Devices"] or []) == (None, [], [])
    assert (host["PidMode"], host["IpcMode"], host["UTSMode"], host["UsernsMode"]) == ("", "private", "", "")
    assert host["Memory"] == host["MemorySwap"] == 1536 * MEGABYTE
    assert (host["PidsLimit"], host["NanoCpus"], host["OomScoreAdj"], host["ShmSize"]) == (
        128,
        10**9,
        500,
        64 * MEGABYTE,
    )
    assert not host["OomKillDisable"]
    assert {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]} == {
        "nofile": (1024, 1024),
        "core": (0, 0),
        "fsize": (512 * MEGABYTE, 512 * MEGABYTE),
    }
    assert set(host["Tmpfs"]) == {"/mnt/data", "/tmp", "/home/sandbox"}
    for options in host["Tmpfs"].values():
        assert {"mode=0700", "uid=10001", "gid=10001", "nosuid", "nodev"} < set(options.split(","))
        assert "size=" in options
        assert "nr_inodes=" in options
    assert host["LogConfig"] == {"Type": "none", "Config": {}}
    assert host["AutoRemove"]
    assert host["RestartPolicy"]["Name"] in {"", "no"}
    assert (config["OpenStdin"], config["StdinOnce"], config["Tty"]) == (True, True, False)
    assert (config["User"], config["WorkingDir"], config["Hostname"]) == ("10001:10001", "/mnt/data", "sandbox")
    assert config["Entrypoint"] == ["/opt/py/bin/python", "-I", "/opt/adlatus/supervisor.py"]
    assert config["Labels"][APP] == "adlatus"
    assert config["Labels"][INSTANCE] == instance
    assert abs(int(config["Labels"][CREATED]) - time.time()) < 60
    assert not [name for name in config["Env"] if name.startswith(("ADLATUS", "OPENAI", "DOCKER"))]
    assert box["Name"].startswith("/adlatus-sandbox-")


class Proxy:
    """A port of this machine behind which the engine is, as if it were far away. It can fall silent."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.is_silent = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._engine)
                self._open += [near, far]
                threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        others = {near: far, far: near}
        with suppress(OSError, ValueError):
            while others:
                for ready in select.select(list(others), [], [], 0.2)[0]:
                    content = b"" if self.is_silent else ready.recv(2**16)
                    if self.is_silent:
                        time.sleep(0.05)
                    elif content:
                        others[ready].sendall(content)
                    else:
                        others[ready].shutdown(socket.SHUT_WR)
                        del others[ready]

    def close(self) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def proxy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Stands before the engine for the clients of this test."""
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if address.scheme != "unix":
        pytest.skip("the engine is far already")
    proxy = Proxy(address.path)
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    yield proxy
    proxy.close()


def test_an_engine_may_be_far_away(loop: Loop, settings: Settings, instance: str, proxy: Proxy) -> None:
    with keeping(loop, new_engine(settings, instance), Limits(warm=0)) as sandboxes:
        thread = Thread(loop, sandboxes, "a")
        thread.put(bytes(3 * MEGABYTE), "a.bin")
        assert thread.run("import os; os.path.getsize('a.bin')").results == [str(3 * MEGABYTE)]
        assert thread.get("a.bin", 4 * MEGABYTE) == bytes(3 * MEGABYTE)
        assert thread.run("while True: pass", 0.5).done.status is Status.INTERRUPTED
    assert not boxes.left("docker", instance)


@asynccontextmanager
async def tls_before(engine: str, folder: Path) -> AsyncIterator[str]:
    """The address of an engine that wants certificates of its clients, as one on another machine should.

    `folder` gets what a client needs.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("client")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    client.private_key_pem.write_to_path(folder / "key.pem")
    wanted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    wanted.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("127.0.0.1").configure_cert(wanted)

    async def hand_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await source.read(2**16):
                sink.write(content)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
            else:
                sink.close()

    async def serve(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        far_source, far_sink = await asyncio.open_unix_connection(engine)
        await asyncio.gather(hand_on(source, far_sink), hand_on(far_source, sink))
        far_sink.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=wanted)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def test_an_engine_may_want_a_certificate(
    loop: Loop, settings: Settings, instance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if address.scheme != "unix":
        pytest.skip("the engine is far already")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)  # it would take the place of DOCKER_CERT_PATH
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with loop.stack() as stack:
        monkeypatch.setenv("DOCKER_HOST", loop.run(stack.enter_async_context(tls_before(address.path, tmp_path))))
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        with keeping(loop, new_engine(settings, instance), Limits(warm=0)) as sandboxes:
            thread = Thread(loop, sandboxes, "a")
            thread.put(bytes(3 * MEGABYTE), "a.bin")
            assert thread.run("import os; os.path.getsize('a.bin')").results == [str(3 * MEGABYTE)]
            assert thread.get("a.bin", 4 * MEGABYTE) == bytes(3 * MEGABYTE)
        (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
        with pytest.raises(SandboxUnavailableError, match="certificate verify failed"):
            loop.run(_pick(settings))
    monkeypatch.undo()
    wait_until(lambda: not boxes.left("docker", instance))


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_an_engine_that_falls_silent_is_told_and_containers_end_without_us(
    loop: Loop, settings: Settings, instance: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(loop, new_engine(settings, instance), Limits(warm=0)) as sandboxes:
        thread = Thread(loop, sandboxes, "a")
        assert thread.run("1").results == ["1"]
        proxy.is_silent = True
        with pytest.raises(SandboxUnavailableError, match="The Docker engine cannot be used"):
            thread.run("2", 60)
        assert not sandboxes.threads
        proxy.close()
    monkeypatch.undo()
    wait_until(lambda: not boxes.left("docker", instance))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves its socket to the GC
def test_no_engine_is_told_with_its_reason(
    loop: Loop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(SandboxUnavailableError, match=r"^The Docker engine cannot be used: .*No such file"):
        loop.run(_pick(settings))
    gc.collect()


def test_an_engine_that_cannot_limit_is_told(settings: Settings) -> None:
    client = image.connect()
    assert client
    info = client.info()
    client.close()
    assert unlimited(info) == ()
    rootless = info | {"MemoryLimit": False, "CpuCfsQuota": False}  # without delegated control groups
    [sentence] = unlimited(rootless)
    assert sentence.startswith("This engine limits no memory, no processor: delegate control groups")


def test_a_runtime_that_the_engine_has_not_got_is_told(loop: Loop, settings: Settings, instance: str) -> None:
    engine = DockerEngine(image.name(settings), instance, "no-such-runtime")
    assert engine.lacks == ()
    with (
        keeping(loop, engine, Limits(warm=0)) as sandboxes,
        pytest.raises(SandboxUnavailableError, match="no-such-runtime"),
    ):
        Thread(loop, sandboxes, "a").run("1")
    assert not boxes.left("docker", instance)


def test_an_image_that_is_none_of_ours_does_not_start(loop: Loop, settings: Settings, instance: str) -> None:
    engine = DockerEngine("adlatus-sandbox-base:ci", instance)
    try:
        loop.run(engine.check())
    except SandboxUnavailableError:
        loop.run(engine.close())
        pytest.skip("there is no other image")
    with (
        keeping(loop, engine, Limits(warm=0)) as sandboxes,
        pytest.raises(SandboxUnavailableError, match="The Docker engine cannot be used"),
    ):
        Thread(loop, sandboxes, "a").run("1")
    assert not boxes.left("docker", instance)

"""Where bytes are: every kind of storage keeps the same promises, and says what is wrong with it.

S3 is a server that speaks its protocol (moto); the folder is one.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from adlatus.backends.blobs import PIECE_BYTES, Blobs, open_blobs
from adlatus.errors import InvalidRequest, StartupError, Unavailable
from adlatus.resources import open_resources
from adlatus.settings import Settings
from adlatus.telemetry import Metrics
from tests.conftest import Loop, serving

logging.getLogger("werkzeug").setLevel(logging.ERROR)
BUCKET = "files-of-adlatus"
BIG = os.urandom(2 * PIECE_BYTES + 12_345)


@dataclass(frozen=True)
class S3:
    """A server that speaks the protocol of S3, with one bucket."""

    moto: ThreadedMotoServer
    address: str

    def listed(self) -> list[str]:
        listed = httpx.get(f"{self.address}/{BUCKET}?list-type=2").text
        return [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]

    def unfinished(self) -> int:
        return httpx.get(f"{self.address}/{BUCKET}?uploads").text.count("<UploadId>")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    address = f"http://{host}:{port}"
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        httpx.put(f"{address}/{BUCKET}").raise_for_status()
        yield S3(moto, address)
    moto.stop()


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return open_blobs(None, tmp_path)
    request.getfixturevalue("s3")
    return open_blobs(f"s3://{BUCKET}/{tmp_path.name}", tmp_path)


async def pieces(content: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]
    if fault:
        raise fault


async def whole(blobs: Blobs, key: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in await blobs.read(key, start, end)])


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "small", "big"])
def test_what_is_written_is_read_whole(loop: Loop, blobs: Blobs, content: bytes) -> None:
    loop.run(blobs.write("files/a", pieces(content)))
    assert loop.run(whole(blobs, "files/a", 0, len(content))) == content


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (1, PIECE_BYTES), (PIECE_BYTES - 1, PIECE_BYTES + 1), (5, len(BIG)), (len(BIG) - 1, len(BIG))],
)
def test_a_range_is_read_from_its_start_up_to_its_end(loop: Loop, blobs: Blobs, start: int, end: int) -> None:
    loop.run(blobs.write("files/a", pieces(BIG)))
    assert loop.run(whole(blobs, "files/a", start, end)) == BIG[start:end]


def test_no_piece_is_larger_than_said(loop: Loop, blobs: Blobs) -> None:
    async def sizes() -> list[int]:
        return [len(piece) async for piece in await blobs.read("files/a", 0, len(BIG))]

    loop.run(blobs.write("files/a", pieces(BIG)))
    assert max(loop.run(sizes())) <= PIECE_BYTES


@pytest.mark.parametrize("fault", [InvalidRequest("no"), OSError("no"), FileNotFoundError("no"), ValueError("no")])
def test_a_source_that_fails_leaves_nothing_and_its_error_comes_out(loop: Loop, blobs: Blobs, fault: Exception) -> None:
    with pytest.raises(type(fault), match="no"):
        loop.run(blobs.write("files/b", pieces(BIG, fault)))
    with pytest.raises(FileNotFoundError):
        loop.run(blobs.read("files/b", 0, 1))


def test_an_interrupted_write_to_s3_is_aborted(loop: Loop, s3: S3, tmp_path: Path) -> None:
    blobs = open_blobs(f"s3://{BUCKET}", tmp_path)
    with pytest.raises(InvalidRequest):
        loop.run(blobs.write("files/aborted", pieces(BIG, InvalidRequest("no"))))
    assert s3.unfinished() == 0


@pytest.mark.parametrize("end", [0, 1])
def test_bytes_of_an_unknown_key_are_not_found(loop: Loop, blobs: Blobs, end: int) -> None:
    with pytest.raises(FileNotFoundError):
        loop.run(blobs.read("files/unknown", 0, end))


def test_deleted_bytes_are_gone_and_unknown_keys_are_passed_over(loop: Loop, blobs: Blobs) -> None:
    for key in ("files/a", "files/b", "files/c"):
        loop.run(blobs.write(key, pieces(b"x")))
    loop.run(blobs.delete(["files/unknown", "files/a", "parts/unknown", "files/b"]))
    for key in ("files/a", "files/b"):
        with pytest.raises(FileNotFoundError):
            loop.run(blobs.read(key, 0, 1))
    assert loop.run(whole(blobs, "files/c", 0, 1)) == b"x"


def test_a_check_writes_and_reads_and_a_glance_reads(loop: Loop, blobs: Blobs) -> None:
    with pytest.raises(Unavailable, match="does not give back"):
        loop.run(blobs.glance())
    loop.run(blobs.check())
    loop.run(blobs.glance())


# --- A server with its files in S3


def test_files_and_uploads_live_in_a_bucket_below_the_prefix(
    loop: Loop, new_database: Callable[[], str], s3: S3
) -> None:
    settings = Settings(database_url=new_database(), storage_url=f"s3://{BUCKET}/below")
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url, timeout=30) as client:
        sent = {"file": ("big.bin", BIG)}
        file_id = client.post("files", data={"purpose": "vision"}, files=sent).json()["id"]
        body = {"purpose": "vision", "filename": "a.bin", "bytes": len(BIG), "mime_type": "text/plain"}
        upload = client.post("uploads", json=body).json()["id"]
        parts = [
            client.post(f"uploads/{upload}/parts", files={"data": ("upload", content)}).json()["id"]
            for content in (BIG[6_000_000:], BIG[:6_000_000])
        ]
        done = client.post(f"uploads/{upload}/complete", json={"part_ids": parts[::-1]}).json()["file"]["id"]
        for each in (file_id, done):
            assert client.get(f"files/{each}/content").content == BIG
            ranged = client.get(f"files/{each}/content", headers={"range": "bytes=-7"})
            assert (ranged.status_code, ranged.content) == (206, BIG[-7:])
        kept = {key for key in s3.listed() if key.startswith("below/")}
        assert kept == {"below/probe", f"below/files/{file_id}", f"below/files/{done}"}
        assert client.delete(f"files/{file_id}").json()["deleted"]
        assert f"below/files/{file_id}" not in s3.listed()
        assert not any((server.resources.settings.data_dir / "storage").glob("*"))
        assert client.get(f"{server.url}/readyz").json()["uses"]["storage"] == f"s3://{BUCKET}/below"


# --- What is wrong with a storage is said


def opening(loop: Loop, settings: Settings) -> str:
    """Why the server does not start."""

    async def open_them() -> None:
        async with open_resources(settings, Metrics()):
            raise AssertionError("it starts")

    with pytest.raises(StartupError) as refused:
        loop.run(open_them())
    return str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://no-such-bucket/x", "the file storage (s3://no-such-bucket/x) cannot be used: "),
        ("ftp://host/folder", "ADLATUS_STORAGE_URL: 'ftp' is no kind of storage; write s3://bucket/prefix, "),
        ("memory:///", "ADLATUS_STORAGE_URL: 'memory' is no kind of storage; "),
        ("folder", "ADLATUS_STORAGE_URL: 'folder' is no kind of storage; "),
        ("az://container/x", "ADLATUS_STORAGE_URL: Generic MicrosoftAzure error: Account must be specified."),
        ("file:///dev/null/folder", "cannot keep files in /dev/null/folder: "),
    ],
)
def test_a_server_does_not_start_without_its_storage(
    loop: Loop, database_url: str, s3: S3, tmp_path: Path, url: str, told: str
) -> None:
    said = opening(loop, Settings(database_url=database_url, data_dir=tmp_path, storage_url=url))
    assert said.startswith(told)
    assert "\n" not in said


def test_a_storage_that_stops_is_an_outage_that_passes(
    loop: Loop, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    first.start()
    host, port = first.get_host_and_port()
    for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    httpx.put(f"http://{host}:{port}/{BUCKET}").raise_for_status()
    settings = Settings(database_url=new_database(), storage_url=f"s3://{BUCKET}/outage")
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url, timeout=60) as client:

        def send() -> httpx.Response:
            return client.post("files", data={"purpose": "vision"}, files={"file": ("a.txt", b"Hello")})

        assert send().status_code == 200
        first.stop()
        refused = send()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"].startswith("The file storage does not answer")
        assert client.get(f"{server.url}/readyz").status_code == 503
        second = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        second.start()
        try:
            assert send().status_code == 200
            assert client.get(f"{server.url}/readyz").status_code == 200
        finally:
            second.stop()

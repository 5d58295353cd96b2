"""`python -m bench.ingestion`: how fast files become searchable, through the whole path of a server of its own.

Made-up English: sentences of common words, so that tokens are as long as those of prose. The floor is the local model
alone, given the same chunks in this process: what parsing, cutting, writing and the database add is the rest.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from adlatus.backends.embeddings import fetch, local
from adlatus.backends.embeddings.local import LocalModel
from adlatus.retrieval.chunk import chunks
from adlatus.retrieval.parse import Piece
from adlatus.settings import default_data_dir
from bench.site import adlatus, scratch_folder

SEED = 10
POLL_S = 0.2  # each answer costs the server a millisecond that would be the model's
GIVE_UP_S = 3600
FLOOR_CHUNKS = 32
COMMON = (
    "the of and a to in is was that for on with as by at from it are which an or be this not had were have their one "
    "harbour master keeps keys lighthouse every boat morning winter letters old town market stone bridge river water "
    "people council decided between several proposals because measurement temperature pressure during experiment "
    "results show different values than expected although method remained unchanged government published report about "
    "children schools teachers language history music painting garden summer kitchen bread cheese apples wine journey "
    "railway station engineer machine electricity company workers contract agreement evidence court judge question"
)


@dataclass(frozen=True)
class Corpus:
    """Texts, one per file, the same in every run."""

    texts: Sequence[str]

    @classmethod
    def made(cls, files: int, kilobytes: int) -> "Corpus":
        source = random.Random(SEED)
        return cls([" ".join(_sentences(source, kilobytes * 1000)) for _ in range(files)])

    @property
    def megabytes(self) -> float:
        return sum(map(len, self.texts)) / 1e6

    def chunks(self) -> list[str]:
        """What every file is cut into."""
        return [chunk.text for text in self.texts for chunk in chunks([Piece(text, None)])]


def _sentences(source: random.Random, characters: int) -> Iterator[str]:
    words = COMMON.split()
    while characters > 0:
        sentence = " ".join(source.choices(words, k=source.randint(6, 24))).capitalize() + "."
        characters -= len(sentence) + 1
        yield sentence


async def windows_of(model: LocalModel, texts: Sequence[str]) -> int:
    """How many windows the model makes of texts."""
    most = local.MAX_TOKENS - 2
    return sum(max(1, -(-len(tokens) // most)) for tokens in await model.tokens(texts))


async def model_alone(model: LocalModel, texts: Sequence[str]) -> tuple[float, float]:
    """Windows per second of the model by itself, and milliseconds of processor time per window."""
    await model.windows(texts[:2])
    begun, used_s = time.perf_counter(), time.process_time()
    made = len((await model.windows(texts[:FLOOR_CHUNKS])).owners)
    return made / (time.perf_counter() - begun), 1000 * (time.process_time() - used_s) / made


@contextmanager
def served(models: Path | None) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A server on a new data folder, with the local model of another one."""
    with scratch_folder() as folder:
        data_dir = folder / "data"
        data_dir.mkdir()
        if models:
            (data_dir / "models").symlink_to(models)
        with (
            adlatus(data_dir, None) as server,
            httpx.Client(base_url=f"http://127.0.0.1:{server.port}/v1", timeout=300) as client,
        ):
            yield client, psutil.Process(server.pid)


def ingest(client: httpx.Client, corpus: Corpus) -> float:
    """Seconds from putting all files into a store until all can be searched."""
    ids = [_upload(client, f"file-{number}.txt", text) for number, text in enumerate(corpus.texts)]
    store_id = client.post("vector_stores", json={}).raise_for_status().json()["id"]
    begun = time.perf_counter()
    client.post(f"vector_stores/{store_id}/file_batches", json={"file_ids": ids}).raise_for_status()
    while (counts := client.get(f"vector_stores/{store_id}").raise_for_status().json()["file_counts"])["in_progress"]:
        if time.perf_counter() - begun > GIVE_UP_S:
            raise RuntimeError(f"not searchable within {GIVE_UP_S} s: {counts}")
        time.sleep(POLL_S)
    if counts["completed"] != len(ids):
        raise RuntimeError(f"some files failed: {counts}")
    return time.perf_counter() - begun


def _upload(client: httpx.Client, name: str, text: str) -> str:
    sent = client.post("files", data={"purpose": "assistants"}, files={"file": (name, text.encode())})
    file_id: str = sent.raise_for_status().json()["id"]
    return file_id


def _cpu_s(process: psutil.Process) -> float:
    """Processor time of the server and of the engine of its index."""
    times = [each.cpu_times() for each in (process, *process.children())]
    return sum(each.user + each.system for each in times)


def run(arguments: argparse.Namespace) -> dict[str, float]:
    """Every number, by its name."""
    corpus = Corpus.made(arguments.files, arguments.kilobytes)
    cut = corpus.chunks()
    found: dict[str, float] = {"files": arguments.files, "text, MB": corpus.megabytes, "chunks": len(cut)}
    folder = None if arguments.words_only else fetch.find(default_data_dir())
    if folder is None and not arguments.words_only:
        print("The local model is not there (`adlatus models fetch`): by words only.", file=sys.stderr)
    windows = 0
    if folder is not None:
        model = LocalModel(folder)
        windows = asyncio.run(windows_of(model, cut))
        found["windows"] = windows
        found["model alone, windows/s"], found["model alone, CPU ms/window"] = asyncio.run(model_alone(model, cut))
        model.close()
    with served(folder.parent if folder else None) as (client, process):
        ingest(client, Corpus(["What a first file needs for good."]))
        used_s = _cpu_s(process)
        took_s = ingest(client, corpus)
        found["CPU, s"] = _cpu_s(process) - used_s
        found["server's memory, MB"] = process.memory_info().rss / 1e6
    found["took, s"] = took_s
    if windows:
        found["windows/s"], found["CPU ms/window"] = windows / took_s, 1000 * found["CPU, s"] / windows
    found["chunks/s"] = len(cut) / took_s
    found["MB/s of text"] = corpus.megabytes / took_s
    return found


def main() -> None:
    """Options, the measurement, the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingestion", description="Measure how files are indexed.")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--kilobytes", type=int, default=40, help="of text per file")
    parser.add_argument("--words-only", action="store_true", help="without the local model")
    parser.add_argument("--json", type=Path, default=Path("bench-results-ingestion.json"))
    arguments = parser.parse_args()
    found: dict[str, Any] = run(arguments)
    for name, number in found.items():
        print(f"{name:30} {number:12,.2f}")
    arguments.json.write_text(json.dumps({"cores": os.cpu_count(), "numbers": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

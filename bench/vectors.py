"""`python -m bench.vectors`: how fast the embedded index is, over its own protocol; row P9 with more of its numbers.

Made-up chunks: vectors in clusters, as those of texts about some topics are, and words as often as Zipf has them,
nearly half of them stop words as in English, which no index keeps. They are inserted file by file, the stores in turn.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import psutil

from adlatus.backends.vectors.edge import EdgeIndex, open_edge
from adlatus.backends.vectors.protocol import Chunk, Search, Space
from adlatus.retrieval.ranking import CANDIDATES, OF_EACH_HALF
from bench.targets import percentile

DIMENSIONS = 384
SPACE = Space("bench", DIMENSIONS)
CHUNKS = 100_000
STORES = 20
CHUNKS_PER_FILE = 50
WORDS = 550
"""Of a chunk: about 800 tokens."""
BATCH = 500
VOCABULARY = 50_000
ZIPF = 1.1
COMMONEST = ("the", "of", "and", "to", "in", "is", "that", "it", "for", "was", "on", "are", "with", "as", "this", "be")
STOP_SHARE = 0.45
FIRST_RANK = 50
"""How many words are more frequent than the most frequent one that is no stop word."""
TOPICS = 500
QUERY_WORDS = 8
QUERIES = 500
RESULTS = 20
SEED = 9

Array = npt.NDArray[np.float32]


@dataclass
class Made:
    """A source of chunks and queries, the same in every run."""

    words: int

    def __post_init__(self) -> None:
        self._chance = np.random.default_rng(SEED)
        letters = np.array(list("abcdefghijklmnoprstuvwz"))
        lengths = self._chance.integers(3, 11, VOCABULARY)
        self._vocabulary = np.array(["".join(self._chance.choice(letters, length)) for length in lengths])
        often = 1 / (np.arange(VOCABULARY) + FIRST_RANK) ** ZIPF
        self._often = often / often.sum()
        self._topics = self._chance.normal(size=(TOPICS, DIMENSIONS)).astype(np.float32)

    def _texts(self, count: int, words: int) -> list[str]:
        told = self._chance.choice(self._vocabulary, (count, words), p=self._often)
        telling_nothing = self._chance.choice(COMMONEST, (count, words))
        drawn = np.where(self._chance.random((count, words)) < STOP_SHARE, telling_nothing, told)
        return [" ".join(row) for row in drawn]

    def _vectors(self, count: int) -> Array:
        near = self._topics[self._chance.integers(0, TOPICS, count)]
        rows = near + self._chance.normal(size=near.shape).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def chunks(self, count: int) -> Iterator[Chunk]:
        """So many chunks, file by file, the stores in turn."""
        for first in range(0, count, CHUNKS_PER_FILE):
            file = first // CHUNKS_PER_FILE
            of_file = min(CHUNKS_PER_FILE, count - first)
            rows = zip(self._texts(of_file, self.words), self._vectors(of_file).tolist(), strict=True)
            for place, (text, vector) in enumerate(rows):
                store, begin = f"vs_{file % STORES}", place * len(text) // 2
                yield Chunk(store, f"file_{file}", place, text, "english", begin, begin + len(text), vectors=[vector])

    def searches(self, count: int, limit: int) -> list[Search]:
        """So many queries, each in one store."""
        texts, vectors = self._texts(count, QUERY_WORDS), self._vectors(count).tolist()
        return [
            Search([f"vs_{place % STORES}"], text, vector, frozenset({"english"}), limit=limit, candidates=OF_EACH_HALF)
            for place, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]


async def inserted_per_second(index: EdgeIndex, chunks: Iterator[Chunk]) -> float:
    """Chunks per second of `upsert`, with nothing of making them up."""
    count, spent_s = 0, 0.0
    while some := list(islice(chunks, BATCH)):
        begun = time.perf_counter()
        await index.upsert(SPACE, some)
        spent_s += time.perf_counter() - begun
        count += len(some)
        if count % (100 * BATCH) == 0:
            print(f"{count:,} chunks, {count / spent_s:,.0f}/s", file=sys.stderr)
    return count / spent_s


@dataclass(frozen=True)
class Speed:
    """Of one search in milliseconds, one at a time. `cpu_ms` is the engine's, which a busy machine changes least."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float


async def speed(index: EdgeIndex, made: Made, queries: int, limit: int) -> Speed:
    """How long so many searches take."""
    searches = made.searches(queries, limit)
    used_s = cpu_s(index)
    p50, p95 = await latencies_ms(lambda search: index.search(SPACE, search), searches)
    return Speed(p50, p95, 1000 * (cpu_s(index) - used_s) / len(searches))


async def latencies_ms(ask: Callable[[Search], Awaitable[object]], searches: Sequence[Search]) -> tuple[float, float]:
    """p50 and p95 of one call at a time."""
    taken = []
    for search in searches:
        begun = time.perf_counter()
        await ask(search)
        taken.append(1000 * (time.perf_counter() - begun))
    return median(taken), percentile(taken, 0.95)


def cpu_s(index: EdgeIndex) -> float:
    """CPU seconds that the engine's process has used."""
    assert index.engine_pid is not None, "it is open"
    times = psutil.Process(index.engine_pid).cpu_times()
    return times.user + times.system


def resident_mb(index: EdgeIndex) -> float:
    """Memory of the engine's process."""
    assert index.engine_pid is not None, "it is open"
    return psutil.Process(index.engine_pid).memory_info().rss / 1e6


def disk_mb(folder: Path) -> float:
    """What the files of the index take up; they are sparse."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Every number, by its name."""
    made = Made(arguments.words)
    found: dict[str, float] = {"chunks": arguments.chunks, "words": arguments.words}

    async def measure(when: str) -> None:
        for name, limit in (("results", RESULTS), ("candidates", CANDIDATES)):
            await speed(index, made, STORES, limit)
            taken = await speed(index, made, arguments.queries, limit)
            found[f"{when}: {limit} {name}, engine's CPU ms"] = taken.cpu_ms
            found[f"{when}: {limit} {name}, p50 ms"] = taken.p50_ms
            found[f"{when}: {limit} {name}, p95 ms"] = taken.p95_ms
        searches = made.searches(5 * STORES, RESULTS)
        p50, _ = await latencies_ms(lambda search: index.languages(SPACE, search.vector_store_ids), searches)
        found[f"{when}: languages, p50 ms"] = p50
        found[f"{when}: engine's memory, MB"] = resident_mb(index)
        found[f"{when}: disk, MB"] = disk_mb(folder)
        print(*(f"{name} = {number:,.1f}" for name, number in found.items()), sep="\n", file=sys.stderr)

    async with open_edge(folder) as index:
        found["inserted per second"] = await inserted_per_second(index, made.chunks(arguments.chunks))
        await measure("inserted")
    begun = time.perf_counter()
    async with open_edge(folder) as index:
        await index.ping()
        found["restart, s"] = time.perf_counter() - begun
        await measure("restarted")
        if arguments.optimize:
            begun = time.perf_counter()
            await index.optimize()
            found["optimize, s"] = time.perf_counter() - begun
            await measure("optimized")
    return found


def main() -> None:
    """Options, the measurement, the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.vectors", description="Measure the embedded vector index.")
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--words", type=int, default=WORDS, help="per chunk; 550 are about 800 tokens")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--optimize", action="store_true", help="also let the engine build its graphs: minutes of CPU")
    parser.add_argument("--json", type=Path, default=Path("bench-results-vectors.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adlatus-bench-") as folder:
        found = asyncio.run(run(arguments, Path(folder) / "vectors"))
    for name, number in found.items():
        print(f"{name:45} {number:12,.1f}")
    written = {"cores": os.cpu_count(), "numbers": found}
    arguments.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()

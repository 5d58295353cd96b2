"""The row about the embedded vector index: P9, over the index's own protocol, without a server around it."""

import asyncio
from statistics import median

from adlatus.backends.vectors.edge import open_edge
from adlatus.retrieval.ranking import CANDIDATES
from bench import vectors
from bench.site import Options, scratch_folder
from bench.targets import Row


def search(options: Options) -> list[Row]:
    """P9: hybrid searches, one at a time, each in one of 20 stores, right after their chunks were inserted."""
    return asyncio.run(_search(options))


async def _search(options: Options) -> list[Row]:
    made = vectors.Made(vectors.WORDS)
    chunks, queries = round(options.scale * vectors.CHUNKS), round(options.scale * vectors.QUERIES)
    with scratch_folder() as folder:
        async with open_edge(folder / "vectors") as index:
            per_second = await vectors.inserted_per_second(index, made.chunks(chunks))
            await vectors.speed(index, made, vectors.STORES, CANDIDATES)
            taken = [await vectors.speed(index, made, queries, vectors.RESULTS) for _ in range(options.repeats)]
            more = [await vectors.speed(index, made, queries, CANDIDATES) for _ in range(options.repeats)]
            memory_mb = vectors.resident_mb(index)
    details = {
        "chunks": float(chunks),
        "inserted per second": per_second,
        "engine's CPU per search, ms": median(each.cpu_ms for each in taken),
        f"{CANDIDATES} results, p50, ms": median(each.p50_ms for each in more),
        f"{CANDIDATES} results, p95, ms": median(each.p95_ms for each in more),
        "engine's memory, MB": memory_mb,
    }
    return [
        Row("P9 p50", [each.p50_ms for each in taken], details=details),
        Row("P9 p95", [each.p95_ms for each in taken]),
    ]

"""`python -m bench.retrieval`: how well file search finds, on labelled questions that nothing was tuned on.

Each set is a vector store of the embedded index, with windows of 800 tokens that overlap by 400 and the local model.
Rows: by meaning only, by words only, both fused by the index (DBSF), both as the server ranks them. `--fit` prints
the curves of `retrieval.calibration` as the other half of the questions has them.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from adlatus.backends.embeddings import fetch
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.protocol import Search, Space, VectorIndex, Weights
from adlatus.retrieval.ranking import CANDIDATES, OF_EACH_HALF, Place, Question, Scored, SpaceToSearch, rank
from adlatus.settings import Settings
from bench import fitting, labelled
from bench.labelled import Asked, Key, Labelled

ROWS = ("meaning", "words", "dbsf", "hybrid")
BEST = 20
AT_A_TIME = 4


@dataclass(frozen=True)
class Quality:
    """The share of questions answered among the first 5 and 20 (Cranfield: of the relevant documents found), the mean
    reciprocal rank of the first answer among ten, and the normalised discounted cumulative gain of ten.
    """

    recall_at_5: float
    recall_at_20: float
    mrr_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True)
class Site:
    """The index, and the model whose vectors it holds."""

    index: VectorIndex
    space: Space
    model: LocalModel

    async def ranked(self, store: str, text: str, *, by: str = "hybrid") -> list[Scored]:
        """The chunks of a store for a question, best first."""
        weights = Weights(1, 0) if by == "meaning" else None
        spaces = [SpaceToSearch(self.space, None if by == "words" else self.model)]
        return await rank(self.index, spaces, Question([text], [store], BEST, weights=weights), everything, None)

    async def _keys(self, store: str, text: str, by: str) -> list[Key]:
        if by != "dbsf":
            return [(each.chunk.file_id, each.chunk.index) for each in await self.ranked(store, text, by=by)]
        vector = (await self.model.embed_query(text)).tolist()
        languages = await self.index.languages(self.space, [store])
        hits = await self.index.search(
            self.space, Search([store], text, vector, languages, limit=CANDIDATES, candidates=OF_EACH_HALF)
        )
        return [(hit.chunk.file_id, hit.chunk.index) for hit in hits]

    async def quality(self, of: Labelled, asked: Sequence[Asked], by: str) -> Quality:
        """The quality of one row of the table."""
        judged = [each for each in asked if each.relevant]
        at_a_time = asyncio.Semaphore(AT_A_TIME)

        async def found(question: Asked) -> list[Key]:
            async with at_a_time:
                return await self._keys(of.name, question.text, by)

        lists = await asyncio.gather(*map(found, judged))
        any_counts = of.name != "cranfield"  # there each document answers, here each window that has the answer
        rows = [_judged(keys, each.relevant, any_counts) for keys, each in zip(lists, judged, strict=True)]
        return Quality(*(fmean(column) for column in zip(*rows, strict=True)))

    async def add(self, of: Labelled, *, passages: bool = False) -> None:
        """Index a set, or each of its passages as a store of its own."""
        wanted = of.passages if passages else of.chunks
        await self.index.upsert(self.space, await labelled.embedded(self.model, wanted))


async def everything(places: Collection[Place]) -> Collection[Place]:
    """Nothing has been deleted."""
    return places


def _judged(keys: Sequence[Key], relevant: Collection[Key], any_counts: bool) -> tuple[float, ...]:
    gains = [float(key in relevant) for key in keys]
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
    first = next((rank for rank, gain in enumerate(gains[:10], 1) if gain), None)

    def recall(count: int) -> float:
        return float(any(gains[:count])) if any_counts else sum(gains[:count]) / len(relevant)

    ndcg = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:10])) / ideal
    return recall(5), recall(20), 1 / first if first else 0.0, ndcg


async def measured(site: Site, names: Sequence[str], where: Path) -> list[dict[str, object]]:
    """The rows of the table, each of the odd questions of one set."""
    rows: list[dict[str, object]] = []
    for name in names:
        begun = time.monotonic()
        of = labelled.load(name, where)
        await site.add(of)
        for by in ROWS:
            quality = await site.quality(of, of.part(odd=True), by)
            rows.append({"set": name, "by": by, "chunks": len(of.chunks), **asdict(quality)})
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return rows


async def run(arguments: argparse.Namespace, where: Path) -> dict[str, object]:
    """Measure, and print."""
    model = LocalModel(fetch.fetch(arguments.data_dir))
    try:
        with tempfile.TemporaryDirectory(prefix="adlatus-bench-") as scratch:
            async with open_edge(Path(scratch) / "vectors") as index:
                site = Site(index, Space(model.name, model.dimensions), model)
                rows = await measured(site, arguments.sets, where)
                print(table(rows))
                sets = [labelled.load(name, where) for name in arguments.sets]
                for of in sets:
                    await site.add(of, passages=True)
                if arguments.fit:
                    curves = await fitting.fitted(site, sets)
                    print("\nfitted on the even questions", *curves, sep="\n  ")
                shares = await fitting.shares(site, sets)
                print("\n| set | kind | pairs | above 0.5 | below 0.3 |\n|---|---|---|---|---|")
                print(*map(fitting.line, shares), sep="\n")
                return {"quality": rows, "scores": [asdict(share) for share in shares]}
    finally:
        model.close()


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows in Markdown."""
    lines = ["| set | chunks | by | R@5 | R@20 | MRR@10 | nDCG@10 |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        numbers = " | ".join(f"{row[name]:.3f}" for name in ("recall_at_5", "recall_at_20", "mrr_at_10", "ndcg_at_10"))
        lines.append(f"| {row['set']} | {row['chunks']} | {row['by']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Options, the measurement, the JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.retrieval", description="Measure the quality of file search."
    )
    parser.add_argument("--sets", nargs="+", choices=labelled.NAMES, default=labelled.NAMES)
    parser.add_argument("--fit", action="store_true", help="also fit the curves of the scores, on the even questions")
    parser.add_argument("--data-dir", type=Path, default=Settings().data_dir, help="where the local model is")
    parser.add_argument("--json", type=Path, default=Path("bench-results-retrieval.json"))
    arguments = parser.parse_args()
    where = labelled.folder()
    if where is None:
        sys.exit("The labelled questions are not here: set ADLATUS_TEST_REFERENCE, beside which data/retrieval is.")
    report = asyncio.run(run(arguments, where))
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Labelled questions over documents: Cranfield and XQuAD, and the chunks that a vector store makes of them.

The files are not part of the repository; `folder` says where they are looked for.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adlatus.backends.embeddings import Embedder
from adlatus.backends.vectors.languages import detect
from adlatus.backends.vectors.protocol import Chunk
from adlatus.retrieval.chunk import chunks
from adlatus.retrieval.parse import Piece

NAMES = ("cranfield", "xquad-en", "xquad-de", "xquad-zh")

Key = tuple[str, int]
"""File and index of a chunk."""


@dataclass(frozen=True)
class Asked:
    """A question with the chunks that answer it, and the file that is about it where there is one."""

    text: str
    relevant: frozenset[Key]
    file_id: str | None = None
    passage: int = 0


@dataclass(frozen=True)
class Labelled:
    """A set: its files as chunks without vectors, its questions, and short passages that a store of its own can hold.

    `Asked.passage` is the place of the passage that answers.
    """

    name: str
    chunks: Sequence[Chunk]
    questions: Sequence[Asked]
    passages: Sequence[Chunk]

    def part(self, odd: bool) -> list[Asked]:
        """Every other question: the even ones are for fitting, the odd ones for judging."""
        return list(self.questions[1 if odd else 0 :: 2])


def folder() -> Path | None:
    """Where the files are: in `data/retrieval` beside the reference material, or beside the checkout."""
    named = os.environ.get("ADLATUS_TEST_REFERENCE")
    shared = Path(named).parent if named else Path(__file__).parents[2] / "shared"
    for place in (shared, Path(__file__).parents[3] / "shared"):
        if (found := place / "data" / "retrieval").is_dir():
            return found
    return None


@cache
def load(name: str, where: Path) -> Labelled:
    """A set by its name. Its store has the same name, its files are those of the set."""
    return _cranfield(where) if name == "cranfield" else _xquad(name, where)


async def embedded(embedder: Embedder, wanted: Sequence[Chunk]) -> list[Chunk]:
    """The chunks with vectors."""
    vectors = await embedder.embed_documents([chunk.text for chunk in wanted])
    return [_with(chunk, vector.tolist()) for chunk, vector in zip(wanted, vectors, strict=True)]


def _with(chunk: Chunk, vector: list[float]) -> Chunk:
    return Chunk(**{**chunk.__dict__, "vectors": [vector]})


def _windows(store: str, file_id: str, text: str) -> Iterator[Chunk]:
    language = detect(text)
    for window in chunks([Piece(text, None)]):
        yield Chunk(store, file_id, window.index, window.text, language, window.char_from, window.char_to)


def _alone(store: str, text: str) -> Chunk:
    return Chunk(store, "only", 0, text, detect(text), 0, len(text))


def _cranfield(where: Path) -> Labelled:
    texts = [_text(part, "text") for part in _parts(where / "cran.all.1400.xml", "doc")]
    asked = [_text(part, "title") for part in _parts(where / "cran.qry.xml", "top")]
    relevant: dict[int, list[int]] = {}
    for line in (where / "cranqrel.trec.txt").read_text().splitlines():
        question, _, document, grade = map(int, line.split())
        if grade > 0:
            relevant.setdefault(question, []).append(document)
    store = [chunk for number, text in enumerate(texts, 1) for chunk in _windows("cranfield", str(number), text)]
    keys: dict[str, list[Key]] = {}
    for chunk in store:
        keys.setdefault(chunk.file_id, []).append((chunk.file_id, chunk.index))
    questions = [
        Asked(
            text,
            frozenset(key for document in relevant.get(number, ()) for key in keys.get(str(document), ())),
            passage=relevant[number][0] - 1,
        )
        for number, text in enumerate(asked, 1)
    ]
    passages = [_alone(f"cranfield-{place}", text) for place, text in enumerate(texts)]
    return Labelled("cranfield", store, questions, passages)


def _parts(path: Path, tag: str) -> list[str]:
    """Not by an XML parser: the files are not well-formed."""
    return re.findall(f"<{tag}>(.*?)</{tag}>", path.read_text(), re.DOTALL)


def _text(part: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", part, re.DOTALL)
    return found[1].strip() if found else ""


def _xquad(name: str, where: Path) -> Labelled:
    articles = json.loads((where / f"{name.replace('-', '.')}.json").read_text())["data"]
    store: list[Chunk] = []
    questions: list[Asked] = []
    passages: list[Chunk] = []
    for number, article in enumerate(articles):
        paragraphs = article["paragraphs"]
        windows = list(_windows(name, str(number), "".join(f"{each['context']}\n\n" for each in paragraphs)))
        store += windows
        begin = 0
        for paragraph in paragraphs:
            for entry in paragraph["qas"]:
                relevant = _holding(windows, begin, entry["answers"][0])
                questions.append(Asked(entry["question"], relevant, str(number), len(passages)))
            passages.append(_alone(f"{name}-{len(passages)}", paragraph["context"]))
            begin += len(paragraph["context"]) + 2
    return Labelled(name, store, questions, passages)


def _holding(windows: Sequence[Chunk], begin: int, answer: Mapping[str, Any]) -> frozenset[Key]:
    """The windows that hold the whole answer."""
    first = begin + answer["answer_start"]
    last = first + len(answer["text"])
    return frozenset((each.file_id, each.index) for each in windows if each.char_from <= first and last <= each.char_to)

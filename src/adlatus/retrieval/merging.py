"""Hits that overlap in their file, as one passage. Pure: knows neither engines nor scores' meaning."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from adlatus.backends.vectors.filters import Scalar
from adlatus.backends.vectors.protocol import Chunk

MOST_WINDOWS = 2
"""How long a merged passage may be, in windows as long as its longest."""


@dataclass(frozen=True)
class Ranked:
    """A passage that was found, with its score from 0 to 1: one chunk, or several that overlap.

    It has the characters from `char_from` to before `char_to` of its file. Pages are None where the file has none.
    """

    vector_store_id: str
    file_id: str
    score: float
    text: str
    char_from: int
    char_to: int
    page_from: int | None
    page_to: int | None
    attributes: Mapping[str, Scalar]
    window: int
    """Characters of the longest chunk in it."""


def passage(chunk: Chunk, score: float) -> Ranked:
    """A chunk by itself."""
    return Ranked(
        chunk.vector_store_id,
        chunk.file_id,
        score,
        chunk.text,
        chunk.char_from,
        chunk.char_to,
        chunk.page_from,
        chunk.page_to,
        chunk.attributes,
        len(chunk.text),
    )


def merged(passages: Iterable[Ranked]) -> list[Ranked]:
    """The passages, which come best first, without what is in two of them: the better one takes up what overlaps it.

    Best first again. Those that would become too long stay as they are.
    """
    kept: list[Ranked] = []
    for new in passages:
        whole = new
        for old in [each for each in kept if _same_file(each, new)]:
            if (union := _union(old, whole)) is not None:
                kept[kept.index(old)] = union
                if whole is not new:  # it has joined two
                    kept.remove(whole)
                whole = union
        if whole is new:
            kept.append(new)
    return sorted(kept, key=lambda each: -each.score)


def _same_file(one: Ranked, other: Ranked) -> bool:
    return (one.vector_store_id, one.file_id) == (other.vector_store_id, other.file_id)


def _union(one: Ranked, other: Ranked) -> Ranked | None:
    """Both in one, with the better one's score. None where they do not overlap, or would be too long together."""
    first, last = sorted((one, other), key=lambda each: (each.char_from, -each.char_to))
    window = max(one.window, other.window)
    end = max(first.char_to, last.char_to)
    if last.char_from >= first.char_to or not (_is_exact(first) and _is_exact(last)):
        return None
    if end - first.char_from > MOST_WINDOWS * window:
        return None
    pages_from = [page for page in (one.page_from, other.page_from) if page is not None]
    pages_to = [page for page in (one.page_to, other.page_to) if page is not None]
    return replace(
        first,
        score=max(one.score, other.score),
        text=first.text + last.text[first.char_to - last.char_from :] if last.char_to > first.char_to else first.text,
        char_to=end,
        page_from=min(pages_from, default=None),
        page_to=max(pages_to, default=None),
        window=window,
    )


def _is_exact(each: Ranked) -> bool:
    """Whether its places are those of its text, so that texts can be joined by them."""
    return len(each.text) == each.char_to - each.char_from

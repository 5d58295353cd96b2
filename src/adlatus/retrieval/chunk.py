"""Exact windows of tokens over a text that arrives in pieces, each with its place in characters and pages.

Tokens are those of o200k where its ranks are installed, else estimated ones (`backends.tokens`). Takes linear time and
keeps no more of the text than the windows that are open. Knows neither files nor vectors.
"""

from bisect import bisect_right
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import count

from adlatus.backends import tokens
from adlatus.retrieval.parse import Piece

MODEL = "gpt-4o"  # of o200k
MOST_TOKENS = 5_000_000
SIZE, OVERLAP = 800, 400


class TooManyTokensError(Exception):
    """The text has more tokens than a file may have."""


@dataclass(frozen=True)
class Chunk:
    """A window of `token_count` tokens. It has the characters from `char_from` to before `char_to` of the whole text.

    `page_from` and `page_to` are the pages of its first and its last character, None where the text has no pages. A
    character whose tokens the window's bounds divide belongs to what follows the bound.
    """

    index: int
    text: str
    token_count: int
    char_from: int
    char_to: int
    page_from: int | None
    page_to: int | None


def chunks(
    pieces: Iterable[Piece],
    size: int = SIZE,
    overlap: int = OVERLAP,
    most_tokens: int = MOST_TOKENS,
    *,
    model: str = MODEL,
) -> Iterator[Chunk]:
    """The windows of `size` tokens, each beginning `size - overlap` after the one before; the last may be shorter.

    They cover the text, and none lies within another. Tokens are those of `model`. Blocks: take some at a time, off the
    loop. `overlap` is at most half of `size`, as on the wire. Raises `TooManyTokensError` when the text turns out to
    be too long, after chunks of it have been given.
    """
    if not 0 <= overlap <= size // 2:
        raise ValueError(f"an overlap of {overlap} tokens in windows of {size}")
    pages = _Pages()
    opened: list[_Window] = []
    stride, index, position = size - overlap, 0, 0
    segments = _segments(_tokenised(pages.seen(pieces), model), size, stride)
    following = next(segments, None)
    while following is not None:
        segment, following = following, next(segments, None)
        if segment.token_to > most_tokens:
            raise TooManyTokensError
        if segment.token_from % stride == 0:
            opened.append(_Window(segment.token_from, position))
        for window in opened:
            window.texts.append(segment.text)
        position += len(segment.text)
        if following is None or segment.token_to == opened[0].token_from + size:
            yield opened.pop(0).closed(index, segment.token_to, pages)
            index += 1


@dataclass(frozen=True)
class _Segment:
    """The text between two neighbouring bounds of windows, and the bounds in tokens."""

    text: str
    token_from: int
    token_to: int


@dataclass
class _Window:
    token_from: int
    char_from: int
    texts: list[str] = field(default_factory=list)

    def closed(self, index: int, token_to: int, pages: "_Pages") -> Chunk:
        text = "".join(self.texts)
        char_to = self.char_from + len(text)
        page_from, page_to = pages.at(self.char_from), pages.at(max(char_to - 1, self.char_from))
        return Chunk(index, text, token_to - self.token_from, self.char_from, char_to, page_from, page_to)


class _Pages:
    """Where the pages begin that have been seen."""

    def __init__(self) -> None:
        self._begin: list[int] = []
        self._numbers: list[int] = []

    def seen(self, pieces: Iterable[Piece]) -> Iterator[str]:
        """The texts of the pieces."""
        position = 0
        for piece in pieces:
            if piece.page is not None and piece.text and (not self._numbers or self._numbers[-1] != piece.page):
                self._begin.append(position)
                self._numbers.append(piece.page)
            position += len(piece.text)
            yield piece.text

    def at(self, position: int) -> int | None:
        found = bisect_right(self._begin, position)
        return self._numbers[found - 1] if found else None


def _tokenised(texts: Iterable[str], model: str) -> Iterator[tuple[bytes, Sequence[int]]]:
    """The text as bytes, and how many of them each token has. Short texts are joined: a token may span them."""
    rest = ""
    waiting: list[str] = []
    length = 0
    for text in texts:
        waiting.append(text)
        length += len(text)
        if length > 2 * tokens.PIECE:
            *ready, rest = tokens.pieces("".join([rest, *waiting]))
            waiting, length = [], 0
            yield from (_sized(piece, model) for piece in ready)
    yield from (_sized(piece, model) for piece in tokens.pieces("".join([rest, *waiting])))


def _sized(piece: str, model: str) -> tuple[bytes, Sequence[int]]:
    return piece.encode(), tokens.sizes(model, piece)


def _bounds(size: int, stride: int) -> Iterator[int]:
    """Where windows begin and end, in tokens, ascending; bounds at which both happens come twice."""
    return merge(count(stride, stride), count(size, stride))


def _segments(tokenised: Iterable[tuple[bytes, Sequence[int]]], size: int, stride: int) -> Iterator[_Segment]:
    """The text cut at every bound. None is empty but for a character that a bound divides."""
    decoder = getincrementaldecoder("utf-8")()
    bounds = _bounds(size, stride)
    bound = next(bounds)
    begin = position = 0
    texts: list[str] = []
    for content, sizes in tokenised:
        token = byte = 0
        while token < len(sizes):
            taken = sizes[token : token + bound - position]
            width = sum(taken)
            texts.append(decoder.decode(content[byte : byte + width]))
            token, byte, position = token + len(taken), byte + width, position + len(taken)
            if position == bound:
                yield _Segment("".join(texts), begin, position)
                texts, begin = [], position
                bound = next(later for later in bounds if later > position)
    if position > begin:
        yield _Segment("".join(texts), begin, position)

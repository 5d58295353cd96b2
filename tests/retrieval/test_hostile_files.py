"""Every bad file ends as parsed or failed within its limits, and the memory of this process stays flat."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from adlatus.retrieval.parse import TOO_LARGE, Failure, Limits, Parsed, Parser, open_parser
from tests.retrieval.hostile import BAD_FILES, Bad

LIMITS = Limits(file_bytes=2**26, text_bytes=2**23, memory_bytes=2**29, cpu_s=5, wall_s=30)
MOST_GROWTH = 2**25


@pytest.fixture(scope="module")
def parser() -> Parser:
    return open_parser(LIMITS)


def outcome_of(parser: Parser, path: Path, filename: str) -> Failure | str:
    """What parsing says; of a text only its beginning, which is read piece by piece as it should be."""
    parsed = asyncio.run(parser.parse(path, filename))
    if isinstance(parsed, Failure):
        return parsed
    with parsed:
        beginning = ""
        for piece in parsed.pieces():
            assert "\0" not in piece.text
            piece.text.encode()  # no lone surrogates
            beginning += piece.text[: 1000 - len(beginning)]
        return beginning


def says(outcome: Failure | str, expected: Failure | str | None) -> bool:
    if isinstance(outcome, Failure) or not isinstance(expected, str):
        return outcome == expected
    return expected in outcome


@pytest.mark.parametrize(
    "bad",
    [pytest.param(bad, id=name, marks=[pytest.mark.slow] * bad.slow) for name, bad in BAD_FILES.items()],
)
def test_a_bad_file_ends_within_its_limits_and_costs_this_process_nothing(
    bad: Bad, parser: Parser, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bad.content())
    process = psutil.Process()
    children = process.children()
    before, started = process.memory_info().rss, time.monotonic()
    outcome = outcome_of(parser, path, bad.filename)
    assert says(outcome, bad.outcome) or says(outcome, bad.also), outcome
    assert time.monotonic() - started < LIMITS.wall_s
    assert process.memory_info().rss - before < MOST_GROWTH
    assert process.children() == children


@pytest.mark.parametrize("filename", ["a.txt", "a.pdf", "a.docx", "a.html"])
def test_a_gigabyte_is_refused_without_being_read(parser: Parser, tmp_path: Path, filename: str) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 2**30)
    assert outcome_of(parser, path, filename) == TOO_LARGE


def test_a_stream_without_an_end_is_not_read_to_its_end(parser: Parser) -> None:
    given = 0

    async def spaces() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 2**20
            yield b" " * 2**20

    process = psutil.Process()
    before = process.memory_info().rss
    assert asyncio.run(parser.parse(spaces(), "a.txt")) == TOO_LARGE
    assert given == LIMITS.file_bytes + 2**20
    assert process.memory_info().rss - before < MOST_GROWTH


def test_what_one_bad_file_does_leaves_good_ones_parsed_beside_it_alone(tmp_path: Path) -> None:
    parser = open_parser(LIMITS)
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_bytes(BAD_FILES["zip bomb of text"].content())
    good.write_text("a good text")

    async def both() -> list[Parsed | Failure]:
        work = [parser.parse(bad, "a.docx"), *(parser.parse(good, "a.txt") for _ in range(3))]
        return await asyncio.gather(*work)

    first, *others = asyncio.run(both())
    assert first == TOO_LARGE
    for other in others:
        assert isinstance(other, Parsed)
        with other:
            assert [piece.text for piece in other.pieces()] == ["a good text"]

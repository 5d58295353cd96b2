"""Links to files of the sandbox, however a text is cut."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.runs.citations import Cited
from adlatus.runs.links import PREFIX, Links

FILES = {"x.csv": "file-1", "x.csv.gz": "file-2", "my report.pdf": "file-3", "plots/a.png": "file-4", "ü.txt": "file-5"}


def found(text: str, cuts: list[int], files: dict[str, str] = FILES) -> tuple[str, list[tuple[str, str]], str]:
    """The text that is shown, its links with their files, and what was held back until the end."""
    links = Links(files)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    pieces: list[str | Cited] = []
    for start, end in zip([0, *ends], ends, strict=False):
        pieces += links.filter([text[start:end]])
    held = links.finish()
    pieces += held
    shown = "".join(piece if isinstance(piece, str) else piece.text for piece in pieces)
    annotations = [piece.annotation for piece in pieces if isinstance(piece, Cited)]
    for annotation in annotations:
        assert annotation["type"] == "file_path"
        assert shown[annotation["start_index"] : annotation["end_index"]] == annotation["text"]
    return (
        shown,
        [(each["text"].removeprefix(PREFIX), each["file_path"]["file_id"]) for each in annotations],
        "".join(piece if isinstance(piece, str) else piece.text for piece in held),
    )


WORDS = st.sampled_from(
    [
        *(PREFIX + path for path in FILES),
        *(PREFIX + quote(path) for path in FILES),
        "sandbox:",
        PREFIX,
        "s",
        ".",
        ")",
        " ",
        "x",
        "/",
    ]
)


@given(st.lists(WORDS).map("".join), st.lists(st.integers(0, 300)))
def test_links_are_the_same_wherever_the_text_is_cut(text: str, cuts: list[int]) -> None:
    shown, links, _ = found(text, cuts)
    assert shown == text
    assert links == found(text, [])[1]


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("[Data](sandbox:/mnt/data/x.csv)", [("x.csv", "file-1")]),
        ("See sandbox:/mnt/data/x.csv.", [("x.csv", "file-1")]),
        ("sandbox:/mnt/data/x.csv", [("x.csv", "file-1")]),
        ("sandbox:/mnt/data/x.csv.gz and sandbox:/mnt/data/x.csv", [("x.csv.gz", "file-2"), ("x.csv", "file-1")]),
        ("[r](sandbox:/mnt/data/my%20report.pdf)", [("my%20report.pdf", "file-3")]),
        ("[r](sandbox:/mnt/data/my report.pdf)", [("my report.pdf", "file-3")]),
        ("![a](sandbox:/mnt/data/plots/a.png)", [("plots/a.png", "file-4")]),
        ("sandbox:/mnt/data/ü.txt, sandbox:/mnt/data/%C3%BC.txt", [("ü.txt", "file-5"), ("%C3%BC.txt", "file-5")]),
        ("sandbox:/mnt/data/other.csv", []),
        ("sandbox:/mnt/data/x.csv2 sandbox:/mnt/data/x.csv.bz2", []),
        ("/mnt/data/x.csv", []),
    ],
)
def test_links_and_what_is_none(text: str, links: list[tuple[str, str]]) -> None:
    assert found(text, list(range(len(text))))[1] == links


def test_only_what_may_become_a_link_is_held_back() -> None:
    links = Links(FILES)
    assert links.filter(["Here is s"]) == ["Here is "]
    assert links.filter(["alt. sandbox:/mnt/data/other"]) == ["salt. sandbox:/mnt/data/other"]


def test_citations_between_pieces_count_in_the_offsets() -> None:
    links = Links({"x": "file-1"})
    cited = Cited("【4:0†a】", 0, {})
    pieces = [*links.filter(["A", cited, " sandbox:/mnt/data/x"]), *links.finish()]
    assert isinstance(pieces[-1], Cited)
    assert pieces[-1].annotation["start_index"] == len("A【4:0†a】 ")


def test_names_are_no_patterns() -> None:
    assert found("sandbox:/mnt/data/a.c", [], {"a+c": "file-1", ".*": "file-2"})[1] == []

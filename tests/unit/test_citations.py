"""Markers in a model's text: what is one, what it points to, and that no cut changes that."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.runs.citations import LONGEST_NAME, MOST_HELD, Citations, Cited, Passage, marker
from adlatus.runs.telling import OpenMessage
from adlatus.runs.turn import Turn

Json = dict[str, Any]
NAMES = {(4, 0): "foods.txt", (4, 1): "a, 4:0.txt", (5, 0): "notes [v2].txt", (5, 1): "x】†\n\0y"}
PASSAGES = {
    numbers: Passage(marker(*numbers, name), f"file-{numbers}", "Filip likes cake. Effie likes pizza.")
    for numbers, name in NAMES.items()
}
FOODS = "【4:0†foods.txt】"
COMMA = "【4:1†a, 4:0.txt】"
NOTES = "【5:0†notes [v2].txt】"


def read(*chunks: str) -> tuple[str, list[Json]]:
    """The text that is shown, and its annotations."""
    citations = Citations(PASSAGES)
    pieces = [piece for chunk in chunks for piece in citations.filter(chunk)] + citations.finish()
    return "".join(piece if isinstance(piece, str) else piece.text for piece in pieces), citations.annotations


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("cake【4:0†foods.txt】.", f"cake{FOODS}."),
        ("cake 【4:0†foods.txt】", f"cake {FOODS}"),
        ("cake [4:0†foods.txt]", f"cake {FOODS}"),
        ("cake【4:0】", f"cake{FOODS}"),
        ("cake【4:0†source】", f"cake{FOODS}"),
        ("cake【4:0†】", f"cake{FOODS}"),
        ("cake【4†0†foods.txt】", f"cake{FOODS}"),
        ("cake【4†0】", f"cake{FOODS}"),
        ("cake【4:0‡foods.txt】", f"cake{FOODS}"),
        ("cake【 4 : 0 † foods.txt 】", f"cake{FOODS}"),
        ("cake【4：0†foods.txt】", f"cake{FOODS}"),
        ("cake【４:０†foods.txt】", f"cake{FOODS}"),
        ("cake【4:0†other.txt】", f"cake{FOODS}"),
        ("cake[4†0†L1-L9]", f"cake{FOODS}"),
        ("cake[5:0†notes [v2].txt]!", f"cake{NOTES}!"),
        ("cake【4:0†a.txt, 5:0†b.txt】", f"cake{FOODS}{NOTES}"),
        ("cake【4:0, 5:0】", f"cake{FOODS}{NOTES}"),
        ("cake【4:0；5:0†b】", f"cake{FOODS}{NOTES}"),
        ("cake【4:0†a】【5:0†b】", f"cake{FOODS}{NOTES}"),
        (f"cake{COMMA}", f"cake{COMMA}"),
        (f"cake{PASSAGES[5, 1].marker}.", "cake【5:1†x____y】."),
        ("cake【4:0†foo", f"cake{FOODS}"),
    ],
)
def test_what_can_only_be_meant_as_a_marker_becomes_it(written: str, shown: str) -> None:
    text, annotations = read(written)
    assert text == shown
    assert [text[each["start_index"] : each["end_index"]] for each in annotations] == [
        each["text"] for each in annotations
    ]
    assert len(annotations) == text.count("【")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("cake 【9:9†foods.txt】.", "cake."),
        ("cake  【4:9】【4:7†x】 and", "cake  【4:9】 and"),
        ("cake 【9:9†a】 【9:8†b】 and", "cake and"),
        ("cake 【13†source】 and", "cake and"),
        ("cake [9:9†a] and", "cake and"),
        ("cake 【9:9†a, 4:0†b】", f"cake {FOODS}"),
        ("cake 【9:9†unfinished", "cake"),
        (" 【9:9†a】Cake", "Cake"),
    ],
)
def test_what_points_nowhere_goes_with_the_spaces_before_it(written: str, shown: str) -> None:
    assert read(written)[0] == shown


@pytest.mark.parametrize(
    "text",
    [
        "【注意】請先閱讀【第一章】",
        "【10:30】開始，【4月】，【4:0 分】",
        "a[4:0], b[1], [1] and [link](http://x) [4:0",
        "[4:0: no] [4†",
        "【",
        "【4",
        "【4:",
        "【4:0",
        "[",
        "【4:0 †\nx】",
        "【" + "4" * 9 + ":0†x】",
        "  spaces  at the end  ",
        "[" * 50,
        f"【4:0 {'x' * MOST_HELD}†】",
    ],
)
def test_all_other_brackets_pass(text: str) -> None:
    expected = text.replace("[4†", "") if text.endswith("[4†") else text
    shown, annotations = read(text)
    assert (shown.rstrip(), annotations) == (expected.rstrip(), [])


def test_what_is_held_back_is_bounded() -> None:
    citations = Citations(PASSAGES)
    held = f"【4:0†{'x' * (MOST_HELD - 6)}"
    assert citations.filter(held) == []
    assert citations.filter("x") == [held + "x"]


def test_text_is_not_held_back_without_need() -> None:
    citations = Citations(PASSAGES)
    assert citations.filter("The cake") == ["The cake"]
    assert citations.filter(" is") == [" is"]
    assert citations.filter("【注") == ["【注"]
    assert citations.filter("[x") == ["[x"]


def test_names_in_markers_are_short_and_can_be_read() -> None:
    long = marker(4, 0, "x" * 1000)
    assert len(long) == LONGEST_NAME + len("【4:0†】")
    assert marker(4, 0, "a†b】c\nd\x7fe\u2028【") == "【4:0†a_b_c_d_e__】"


def test_the_quote_is_of_what_was_said_just_before() -> None:
    _, annotations = read("Effie likes pizza【4:0】. And what Filip likes is cake【4:0】.")
    assert [each["file_citation"]["quote"] for each in annotations] == ["Effie likes pizza.", "Filip likes cake."]
    assert read("【4:0】")[1][0]["file_citation"]["quote"] == ""


# --- Any cut

_WORDS = [
    *("cake", " ", "  ", "\n", "。", "【", "】", "[", "]", "†", "‡", ":", "4", "0", "9", ", ", "é😀", "注意"),
    *("【4:0†", "【4:0", FOODS, COMMA, NOTES, "[4:0†x]", "【9:9†y】", " 【9:9†", "4:1†z】", "x" * 200),
]
_texts = st.lists(st.sampled_from(_WORDS), max_size=14).map("".join)


@st.composite
def _cuts(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(_texts)
    edges = [0, *sorted(draw(st.sets(st.integers(0, len(text)), max_size=12))), len(text)]
    return text, [text[start:end] for start, end in pairwise(edges)]


@given(_cuts())
def test_no_cut_changes_the_text_or_its_annotations(cut: tuple[str, list[str]]) -> None:
    whole, chunks = cut
    assert read(*chunks) == read(whole) == read(*whole)


@given(_cuts())
def test_annotations_point_to_markers_of_passages(cut: tuple[str, list[str]]) -> None:
    text, annotations = read(*cut[1])
    known = {passage.marker: passage.file_id for passage in PASSAGES.values()}
    for annotation in annotations:
        assert text[annotation["start_index"] : annotation["end_index"]] == annotation["text"]
        assert annotation["file_citation"]["file_id"] == known[annotation["text"]]
    ends = [0, *(end for each in annotations for end in (each["start_index"], each["end_index"]))]
    assert ends == sorted(ends)


@given(_cuts())
def test_deltas_add_up_to_the_message(cut: tuple[str, list[str]]) -> None:
    turn, told = Turn(passages=PASSAGES), OpenMessage("msg_1")
    frames: list[bytes] = []
    for chunk in cut[1]:
        frames += _frames(told, turn.fold([{"choices": [{"index": 0, "delta": {"content": chunk}}]}]))
        assert _added_up(frames) == _shown(turn), "what is told so far is what is kept so far"
    frames += _frames(told, turn.finish())
    assert _added_up(frames) == _shown(turn)
    parts = [_part(frame) for frame in frames]
    assert [("annotations" in part, bool(part.get("annotations"))) for part in parts[:1]] in (
        [],
        [(True, False)],
        [(True, True)],
    )
    assert [each["index"] for part in parts for each in part.get("annotations", ())] == list(
        range(len(_shown(turn)[1]))
    )


def _frames(told: OpenMessage, pieces: Iterable[Any]) -> list[bytes]:
    return [told.frame(piece) for piece in pieces]


def _part(frame: bytes) -> Json:
    part: Json = orjson.loads(frame.split(b"data: ")[1])["delta"]["content"][0]["text"]
    assert part["value"]
    return part


def _added_up(frames: Sequence[bytes]) -> tuple[str, list[Json]]:
    parts = [_part(frame) for frame in frames]
    annotations = [each for part in parts for each in part.get("annotations", ())]
    without_index = [{name: value for name, value in each.items() if name != "index"} for each in annotations]
    return "".join(part["value"] for part in parts), without_index


def _shown(turn: Turn) -> tuple[str, list[Json]]:
    [part] = turn.content or [{"text": {"value": "", "annotations": []}}]
    return part["text"]["value"], part["text"]["annotations"]


def test_what_is_held_back_is_told_before_calls() -> None:
    turn = Turn(passages=PASSAGES)
    call = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]}
    said = turn.fold([{"choices": [{"index": 0, "delta": delta}]} for delta in ({"content": "See 【4:0"}, call)])
    assert said[:2] == ["See", " 【4:0"]
    assert turn.text == "See 【4:0"
    assert turn.finish() == []


def test_without_passages_every_bracket_is_text() -> None:
    turn = Turn()
    assert turn.fold([{"choices": [{"index": 0, "delta": {"content": "x 【4:0†a】 "}}]}]) == ["x 【4:0†a】 "]
    assert not any(isinstance(piece, Cited) for piece in turn.finish())

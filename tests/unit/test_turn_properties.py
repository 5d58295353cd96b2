"""What holds of the fold of a model's chunks whatever the model and its server do."""

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adlatus.runs.calls import Argued, Called
from adlatus.runs.turn import Piece, Refused, Turn

Json = dict[str, Any]

# --- Answers, as deltas with one string each that can be cut

Kind = str
Said = tuple[Kind, int, str]
"""What is said: a kind, the index of a call, the string."""

_TAGS = ["<think>", "</think>", "<thi", "nk>", "</", "<", ">", "\n", " ", "a", "é😀", "\0"]
_texts = st.lists(st.sampled_from(_TAGS), max_size=8).map("".join)
_arguments = st.lists(st.sampled_from(['{"a":', "1", "}", "{}", '"', "[", "😀"]), max_size=6).map("".join)
_indexes = st.integers(0, 3)

_said: st.SearchStrategy[Said] = st.one_of(
    st.tuples(st.sampled_from(["content", "refusal", "reasoning"]), st.just(0), _texts),
    st.tuples(st.just("arguments"), _indexes, _arguments),
    st.tuples(st.just("name"), _indexes, st.sampled_from(["f", "g"])),
    st.tuples(st.just("finish_reason"), st.just(0), st.sampled_from(["stop", "length", "tool_calls"])),
    st.tuples(st.just("usage"), st.integers(0, 9), st.just("")),
)


def _each_named_once(answer: list[Said]) -> list[Said]:
    named: set[int] = set()
    kept = []
    for kind, index, text in answer:
        if kind != "name" or index not in named:
            kept.append((kind, index, text))
        if kind == "name":
            named.add(index)
    return kept


_thoughts = st.builds(
    "{}<think>{}</think>{}".format, st.sampled_from(["", "\n"]), st.sampled_from(["", "Hm", "<</thi"]), _texts
).map(lambda text: [("content", 0, text)])
_answers = st.builds(operator.add, st.just([]) | _thoughts, st.lists(_said, max_size=12)).map(_each_named_once)
_CUT = ("content", "refusal", "reasoning", "arguments")


def _chunk(said: Said) -> Json:
    kind, index, text = said
    match kind:
        case "usage":
            return {"choices": [], "usage": {"prompt_tokens": index, "completion_tokens": 1}}
        case "finish_reason":
            return {"choices": [{"index": 0, "delta": {}, "finish_reason": text}]}
        case "arguments" | "name":
            entry = {"index": index, "id": f"call_{index}", "function": {kind: text}}
            return {"choices": [{"index": 0, "delta": {"tool_calls": [entry]}}]}
        case _:
            return {"choices": [{"index": 0, "delta": {"role": "assistant", kind: text}}]}


@st.composite
def _cuts(draw: st.DrawFn, answer: list[Said]) -> list[list[Json]]:
    """The answer in other chunks, and these in batches."""
    chunks = []
    for kind, index, text in answer:
        places = draw(st.sets(st.integers(0, len(text)), max_size=4)) if kind in _CUT else set()
        edges = [0, *sorted(places), len(text)]
        pieces = [text[start:end] for start, end in pairwise(edges)]
        chunks += [_chunk((kind, index, piece)) for piece in pieces]
    batches: list[list[Json]] = [[]]
    for chunk in chunks:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(chunk)
    return batches


_cut_answers = _answers.flatmap(lambda answer: st.tuples(st.just(answer), _cuts(answer)))


# --- What a client makes of the pieces


@dataclass
class Heard:
    """What the pieces say, put together as SDKs do it."""

    text: str = ""
    refusal: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def hear(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            assert piece != ""
            match piece:
                case str():
                    self.text += piece
                case Refused(text):
                    assert text
                    self.refusal += text
                case Called(index, call_id, name):
                    assert index == len(self.calls)
                    assert name
                    assert call_id not in {call[0] for call in self.calls}
                    self.calls.append((call_id, name, ""))
                case Argued(index, arguments):
                    assert arguments
                    call_id, name, before = self.calls[index]
                    self.calls[index] = (call_id, name, before + arguments)


def _heard(turn: Turn, batches: Iterable[list[Json]]) -> Heard:
    heard = Heard()
    for batch in batches:
        heard.hear(turn.fold(batch))
        assert heard == _kept(turn), "what is told so far is what is kept so far"
    heard.hear(turn.finish())
    return heard


def _kept(turn: Turn) -> Heard:
    return Heard(turn.text, turn.refusal, [(call.id, call.name, call.arguments) for call in turn.calls])


# --- Properties


@given(_cut_answers, st.none() | st.integers(0, 2))
def test_any_cuts_and_batches_give_the_same_turn(cut: tuple[list[Said], list[list[Json]]], most: int | None) -> None:
    answer, batches = cut
    whole, turn = Turn(most_calls=most), Turn(most_calls=most)
    assert _heard(turn, batches) == _heard(whole, [[_chunk(said)] for said in answer])
    assert _kept(turn) == _kept(whole)
    for name in ("content", "hidden", "finish_reason", "usage"):
        assert getattr(turn, name) == getattr(whole, name), name


@given(_cut_answers)
def test_nothing_is_lost_and_nothing_added(cut: tuple[list[Said], list[list[Json]]]) -> None:
    answer, batches = cut
    turn = Turn()
    _heard(turn, batches)
    told: dict[Kind, str] = {"refusal": "", "reasoning": "", "content": ""}
    arguments: dict[int, str] = {}
    names: list[int] = []
    for kind, index, text in answer:
        if kind in told:  # what is said behind a call is thought
            told["reasoning" if names else kind] += text.replace("\0", "\ufffd")
        if kind == "name":
            names.append(index)
        if kind == "arguments":
            arguments[index] = arguments.get(index, "") + text
    held_back = told["content"] if names and "<think>".startswith(told["content"].lstrip()) else ""
    assert turn.refusal == told["refusal"]
    assert [call.id for call in turn.calls] == [f"call_{index}" for index in names]
    assert [call.arguments for call in turn.calls] == [arguments.get(index, "") for index in names]
    if not told["content"].lstrip().startswith("<think>"):
        assert turn.hidden == told["reasoning"] + held_back
        assert turn.text == told["content"].removesuffix(held_back)
    assert told["content"].endswith(turn.text)


# --- Anything at all

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _shaped(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of the keys, or anything."""
    return st.fixed_dictionaries({}, optional={key: value | _json for key, value in keys.items()}) | _json


_functions = _shaped(name=st.sampled_from(["f", "g", ""]), arguments=_arguments)
_entries = _shaped(index=st.integers(-1, 2), id=st.sampled_from(["", "a", "b", "taken"]), function=_functions)
_deltas = _shaped(
    content=_texts | st.lists(_shaped(type=st.just("text"), text=_texts), max_size=3),
    refusal=_texts,
    reasoning=_texts,
    reasoning_content=_texts,
    tool_calls=st.lists(_entries, max_size=4),
    function_call=_functions,
)
_choices = _shaped(index=st.just(0), delta=_deltas, message=_deltas, finish_reason=st.just("stop"))
_chunks = st.dictionaries(st.text(max_size=5), _json, max_size=2) | st.fixed_dictionaries(
    {},
    optional={"choices": st.lists(_choices, max_size=2) | _json, "usage": _shaped(prompt_tokens=st.integers()) | _json},
)


@given(st.lists(st.lists(_chunks, max_size=3), max_size=5), st.none() | st.integers(0, 2))
def test_whatever_comes_the_pieces_are_the_turn(batches: list[list[Json]], most: int | None) -> None:
    turn = Turn(most_calls=most, taken_ids={"taken"})
    heard = _heard(turn, batches)
    assert heard == _kept(turn)
    said = [heard.text, heard.refusal, *(word for call in heard.calls for word in call)]
    assert not any("\0" in word for word in said)
    assert "taken" not in [call.id for call in turn.calls]
    assert most is None or len(turn.calls) <= most
    parts = {"text": turn.text, "refusal": turn.refusal}
    assert {part["type"] for part in turn.content} == {part for part, text in parts.items() if text}

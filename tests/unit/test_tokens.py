"""Tokens are counted exactly where the encoding is known, estimated elsewhere, and never with the network's help."""

import base64
import gzip
import os
import random
import subprocess
import sys
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from adlatus.backends import tokens
from tests.conftest import missing

MODELS = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}
PROSE = (
    "The quick brown fox jumps over the lazy dog; it's 12,345.67 metres, isn't it?\n\n",
    "Übergrößenträger fahren durch die Straße, und 3 Äpfel fallen vom Baum.\n",
    "for index, name in enumerate(names):\n    totals[index] += len(name) * 2  # weighted\n",
    "模型的上下文窗口是有限的,所以我们要计算令牌的数量。",
    "Great job! 🎉 See you tomorrow 👍",
)


@pytest.fixture(scope="session")
def oracle() -> Any:
    """The tokenizer of another maker, whose ranks we share and whose code we do not."""
    if find_spec("bpe_openai") is None:
        missing("ranks", "bpe-openai is not installed: pip install 'adlatus[local]'")
    return pytest.importorskip("bpe_openai")


def in_fresh_python(script: str, **environ: str) -> str:
    """What a script prints in a process that has counted nothing yet."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environ}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", MODELS)
def test_patterns_and_ranks_are_those_that_tiktoken_publishes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(_url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append(expected_hash)
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", load)
    published = openai_public.ENCODING_CONSTRUCTORS[name]()
    ours = tokens._ENCODINGS[name]
    assert (ours.pattern, [ours.ranks_sha256]) == (published["pat_str"], asked)


# The counts that tiktoken's own tests and OpenAI's cookbook give
@pytest.mark.parametrize(
    ("model", "text", "count"),
    [
        ("gpt-4", "hello world", 2),
        ("gpt-4", "", 0),
        ("gpt-4", "rer", 1),
        ("gpt-4", "'rer", 2),
        ("gpt-4", "today\n ", 3),
        ("gpt-4", "today\n \n", 2),
        ("gpt-4", "today\n  \n", 2),
        ("gpt-4", "👍", 3),
        ("gpt-4o", "hello world", 2),
        ("gpt-4", "tiktoken is great!", 6),
        ("gpt-4", "お誕生日おめでとう", 9),
        ("gpt-4", "2 + 2 = 4", 7),
        ("gpt-4", "antidisestablishmentarianism", 6),
        ("gpt-4o", "お誕生日おめでとう", 8),
    ],
)
def test_known_texts_have_the_known_number_of_tokens(oracle: Any, model: str, text: str, count: int) -> None:
    assert tokens.counter(model)(text) == count


@pytest.mark.parametrize("name", MODELS)
@given(
    text=st.text()
    | st.text(alphabet=" \t\r\n\u3000'aAä1中🎉\u0301.,/")
    | st.lists(st.sampled_from(PROSE), max_size=5).map("".join)
)
@settings(deadline=None, max_examples=100)
def test_counts_are_those_of_another_tokenizer(oracle: Any, name: str, text: str) -> None:
    assert tokens.counter(MODELS[name])(text) == len(oracle.get_encoding(name).encode(text, disallowed_special=()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("unit", [PROSE[0], PROSE[2], " ".join(PROSE)])
def test_long_texts_are_counted_in_pieces_without_a_difference(oracle: Any, name: str, unit: str) -> None:
    text = unit * (5 * tokens.PIECE // len(unit))
    whole = oracle.get_encoding(name).encode(text, disallowed_special=())
    assert tokens.counter(MODELS[name])(text) == len(whole)


@pytest.mark.parametrize("model", [*MODELS.values(), "unknown"])
@given(text=st.text() | st.lists(st.sampled_from(PROSE), max_size=5).map("".join))
@settings(deadline=None, max_examples=100)
def test_the_sizes_of_tokens_add_up_to_the_text_and_are_as_many_as_counted(oracle: Any, model: str, text: str) -> None:
    sizes = tokens.sizes(model, text)
    assert sum(sizes) == len(text.encode())
    assert len(sizes) == tokens.counter(model)(text)


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_of_tokens_are_those_of_another_tokenizer(oracle: Any, name: str) -> None:
    text, other = "".join(PROSE), oracle.get_encoding(name)
    expected = [len(other.decode_single_token_bytes(token)) for token in other.encode(text)]
    assert list(tokens.sizes(MODELS[name], text)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_names_of_special_tokens_are_plain_text(oracle: Any, name: str) -> None:
    count = tokens.counter(MODELS[name])
    assert count("<|endoftext|>") >= 5
    assert count("a<|endofprompt|>b") >= 5


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-2024-08-06", "o200k_base"),
        ("openai/gpt-4.1-mini", "o200k_base"),
        ("openrouter/openai/gpt-4o:extended", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3", "o200k_base"),
        ("o4-mini-2025-04-16", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.1-mini", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "o200k_base"),
        ("ft:gpt-4.1-mini-2025-04-14:org::id", "o200k_base"),
        ("gpt-oss-120b", "o200k_base"),
        ("gpt-oss:20b", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("azure/gpt-35-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("ft:gpt-3.5-turbo-0125:org:name:id", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
    ],
)
def test_the_encoding_follows_from_the_models_name(oracle: Any, model: str, name: str) -> None:
    text = "".join(PROSE)
    assert tokens.is_exact(model)
    assert tokens.counter(model)(text) == len(oracle.get_encoding(name).encode(text))


@pytest.mark.parametrize(
    "model",
    [
        "",
        "/",
        ":",
        "ft:",
        "qwen3:32b",
        "llama-3.3-70b",
        "mistral-large",
        "text-davinci-003",
        "gpt2",
        "o",
        "gpt",
        "\ud800",
    ],
)
def test_unknown_models_are_estimated(model: str) -> None:
    assert not tokens.is_exact(model)
    for text in PROSE:
        assert tokens.counter(model)(text) == tokens.estimate(text)


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[])) | st.text(alphabet=" -aA1é中🎉\ud83d\ude00\udfff")


@given(text=ANY_TEXT)
@settings(deadline=None, max_examples=500)
def test_nothing_counts_more_than_most(text: str) -> None:
    for model in ("gpt-4o", "gpt-4", "qwen3:32b"):
        assert 0 <= tokens.counter(model)(text) <= tokens.most(text)


@given(text=ANY_TEXT)
def test_only_the_empty_text_has_no_tokens(text: str) -> None:
    assert (tokens.estimate(text) == 0) == (text == "")


ORDINARY = {
    "English": PROSE[0],
    "German": "Der Server zählt die Wörter jeder Nachricht und lässt die ältesten weg, wenn das Fenster voll ist. ",
    "code": PROSE[2],
    "Chinese": PROSE[3],
    "emoji": PROSE[4],
}


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
@pytest.mark.parametrize("model", MODELS.values())
def test_the_estimate_is_high_but_not_by_much(oracle: Any, model: str, text: str) -> None:
    text *= 20
    assert 0.95 <= tokens.estimate(text) / tokens.counter(model)(text) <= 2


MILLION = 1_000_000
_RANDOM = random.Random(1)
HOSTILE = {
    "a": "a" * MILLION,
    "random letters": "".join(_RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=MILLION)),
    "spaces": " " * MILLION,
    "spaces before a word": " " * MILLION + "x",
    "no-break spaces": "\u00a0" * MILLION + "x",
    "tabs": "\t" * MILLION,
    "newlines": "\n" * MILLION,
    "lines of spaces": (" " * 1000 + "\n") * 1000,
    "equal signs": "=" * MILLION,
    "emoji": "🎉" * (MILLION // 4),
    "base64": base64.b64encode(_RANDOM.randbytes(MILLION * 3 // 4)).decode(),
    "combining characters": "e" + "\u0301" * (MILLION // 2),
    "Hangul": "".join(chr(_RANDOM.randrange(0xAC00, 0xD7A3)) for _ in range(MILLION // 3)),
    "lone surrogates": "\ud800" * (MILLION // 3),
    "zeros": "\0" * MILLION,
}


@pytest.mark.parametrize("model", [*MODELS.values(), "qwen3:32b"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_million_hostile_bytes_are_counted_within_a_second(model: str, text: str) -> None:
    count = tokens.counter(model)
    count("The encoding is built before time is taken.")
    began = time.thread_time()  # of this thread's work: other processes do not count
    counted = count(text)
    assert time.thread_time() - began < 1
    assert 0 < counted <= tokens.most(text)


def test_lone_surrogates_count_as_their_replacement(oracle: Any) -> None:
    for text in ("\ud800", "a\udfffb", "\ud83d", "\ude00\ud83d"):
        replaced = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
        assert tokens.counter("gpt-4o")(text) == tokens.counter("gpt-4o")(replaced)


def test_counting_opens_no_socket_and_does_not_import_the_package_of_the_ranks(oracle: Any, tmp_path: Path) -> None:
    script = """
import socket, sys
def refuse(*_args, **_named):
    raise AssertionError("a socket")
socket.socket.__init__ = refuse
from adlatus.backends import tokens
print(tokens.counter("gpt-4o")("hello world"), tokens.counter("gpt-4")("hello world"), "bpe_openai" in sys.modules)
"""
    assert in_fresh_python(script, TIKTOKEN_CACHE_DIR=str(tmp_path)) == "2 2 False"
    assert not list(tmp_path.iterdir())


ESTIMATES = """
from adlatus.backends import tokens
text = "Übergrößenträger, antidisestablishmentarianism"
print(tokens.is_exact("gpt-4o"), tokens.counter("gpt-4o")(text) == tokens.estimate(text))
"""


def test_without_the_ranks_everything_is_estimated() -> None:
    assert in_fresh_python('import sys; sys.modules["bpe_openai"] = None' + ESTIMATES) == "False True"


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"YQ== 0\n" * 1000)[:-9], gzip.compress(b"YQ== 0\n"), gzip.compress(b"\xff 1 2")],
    ids=["empty", "not compressed", "cut off", "too few", "nonsense"],
)
def test_ranks_that_are_not_the_published_ones_are_not_used(content: bytes, tmp_path: Path) -> None:
    package = tmp_path / "bpe_openai"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "data" / "o200k_base.tiktoken.gz").write_bytes(content)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + ESTIMATES
    assert in_fresh_python(script).splitlines()[-1] == "False True"


def test_threads_that_count_at_once_build_an_encoding_once(oracle: Any) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from tiktoken import Encoding
from adlatus.backends import tokens
built, init, barrier = [], Encoding.__init__, Barrier(8)
def counted(self, name, **named):
    built.append(name)
    init(self, name, **named)
Encoding.__init__ = counted
def count(_):
    barrier.wait()
    return tokens.counter("gpt-4")("hello world")
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(count, range(8))), built)
"""
    assert in_fresh_python(script) == "{2} ['cl100k_base']"


def test_an_estimate_is_made_piece_by_piece_between_which_other_threads_have_their_turn() -> None:
    """A regular expression holds the interpreter's lock to its end; what it finds at once shows in the memory."""
    text = "It is warm in Paris. " * 100_000
    tracemalloc.start()
    try:
        counted = tokens.estimate(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted == 1 + 100_000 * tokens.estimate(" It is warm in Paris.")
    assert peak_bytes < len(text)

"""How many tokens a text has for a model: exact where the model's encoding is known, estimated elsewhere.

The ranks of the encodings are read from the files of the package `bpe-openai` (`adlatus[local]`), never from the
network: tiktoken's own `get_encoding` would download them. Knows names of models, neither routes nor messages.
"""

import base64
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import structlog
from tiktoken import Encoding
from tiktoken.model import encoding_name_for_model

log = structlog.get_logger(__name__)

Counter = Callable[[str], int]
"""The number of tokens of a text. May be called from any thread."""

PIECE = 50_000
"""Characters after which a text is cut at the next end of a word, or after as many again. A million of white space in
one piece overflows tiktoken's stack, and long runs of one character take longer than their share."""


@dataclass(frozen=True)
class _Published:
    """What tiktoken publishes of an encoding (`tiktoken_ext.openai_public`)."""

    ranks_sha256: str
    pattern: str


_ENCODINGS = {
    "o200k_base": _Published(
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            (
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
    ),
    "cl100k_base": _Published(
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
}
_SAME_FOR_TEXT = {"o200k_harmony": "o200k_base"}

# A word's end before white space is a boundary of tokens in both patterns, so cutting there changes no count.
_WORD_END = re.compile(r"[^\W_](?=[ \n])")

_LETTER = rb"(?:[a-z]|\xc3[\x80-\xbf])"
_ESTIMATED_TOKEN = re.compile(
    rb" (?:[A-Z]{1,3}|[A-Z]?" + _LETTER + rb"{1,6})"  # the beginning of a word
    rb"|[A-Z]{1,3}|[A-Z]?" + _LETTER + rb"{1,4}"  # its rest, or a word that follows something other than a space
    rb"|[0-9]"  # Mistral, Gemma and Qwen give every digit a token
    rb"|\s{1,16}"
    rb"|([-=*#_])\1{2,7}"
    rb"| ?[!-/:-@\[-`{-~]{1,2}"
    rb"|(?:[\xc2-\xdf][\x80-\xbf]){1,2}"  # Greek, Cyrillic, Hebrew, Arabic
    rb"|[\xe0-\xef][\x80-\xbf]{2}"  # Chinese, Japanese, Korean, the scripts of India
    rb"|[\xf0-\xf4][\x80-\xbf]"  # an emoji: three tokens, with the two bytes that are left
    rb"|[\x00-\xff]"
)


def counter(model: str) -> Counter:
    """What counts the tokens of texts for a model, by the name under which its upstream knows it.

    The counter blocks, a long text for a while (a million characters: up to half a second), and the first text of an
    encoding until that is built. Characters of special tokens, such as `<|endoftext|>`, count as the plain text that
    they are here. Where a long text has no end of a word for `PIECE` characters, the count may be off by a few tokens.
    """
    name = _encoding_name(model)
    return partial(_count, name) if name else estimate


def is_exact(model: str) -> bool:
    """Whether `counter(model)` counts and does not estimate. Blocks until the encoding is built, once per process."""
    name = _encoding_name(model)
    return name is not None and _encoding(name) is not None


def sizes(model: str, text: str) -> Sequence[int]:
    """How many bytes of UTF-8 each token of a text has, in order: they add up to the text. No lone surrogates.

    Where the encoding is not known, of the tokens that `estimate` counts. Blocks as a counter does, but a long text is
    not cut here: give it in `pieces`.
    """
    name = _encoding_name(model)
    encoding = _encoding(name) if name else None
    if encoding is None or name is None:
        return [len(found[0]) for found in _ESTIMATED_TOKEN.finditer(text.encode())]
    return list(map(_sizes(name).__getitem__, encoding.encode_ordinary(text)))


def most(text: str) -> int:
    """An upper bound of what any counter says of a text, cheaply: every token is one byte of UTF-8 at least."""
    return len(text) if text.isascii() else len(_utf8(text))


def estimate(text: str) -> int:
    """The number of tokens by a rule of thumb: as many as there are short pieces of words, digits, signs.

    Meant to be too high rather than too low for open models (Llama, Qwen, Mistral, Gemma). Their tokenizers are not
    here; measured against the ranks of cl100k (Llama 3's are an extension of it), o200k and Voyage 3 (as many as
    Qwen's), on manuals, messages of programs and source code, the estimate is this multiple of the count: English
    1.4, German 1.0 to 1.4, French and Spanish 1.0 to 1.3, code and JSON 1.4 to 1.6, Chinese, Japanese and Korean 1.0
    to 1.7, Russian 1.3 to 2.2, emoji 1.0 to 2.4, numbers 1.0 to 2.1, random base64 0.9 to 1.0. It is too low by up to
    a quarter for Czech, Polish, Finnish, Hungarian, formulas, compound emoji, by up to a half and more for Greek,
    rare Han and Hangul signs and random letters. Old models with 32,000 tokens are not covered. Never above `most`.
    """
    # Piece by piece, or a regular expression would keep all other threads waiting to its end
    return sum(len(_ESTIMATED_TOKEN.findall(_utf8(piece))) for piece in pieces(text))


def text_of(tokens: Sequence[int]) -> str | None:
    """The text of tokens of cl100k; None where they are none, or its ranks are not here. Blocks as `is_exact` does."""
    encoding = _encoding("cl100k_base")
    try:
        return encoding.decode(tokens) if encoding else None
    except (KeyError, OverflowError):
        return None


def _utf8(text: str) -> bytes:
    """Text as bytes; a lone surrogate, which JSON can carry, takes three as its replacement does."""
    return text.encode("utf-8", "surrogatepass")


def _encoding_name(model: str) -> str | None:
    """The encoding of a model if it is one of ours; prefixes of providers, tags and names of fine-tunings are cut."""
    name = model.rpartition("/")[2].removeprefix("ft:").partition(":")[0]
    for known in (name, f"{name}-"):  # tiktoken lists families such as `gpt-oss-` with their dash only
        try:
            encoding = encoding_name_for_model(known)
        except KeyError:
            continue
        encoding = _SAME_FOR_TEXT.get(encoding, encoding)
        return encoding if encoding in _ENCODINGS else None
    return None


def _count(name: str, text: str) -> int:
    encoding = _encoding(name)
    if encoding is None:
        return estimate(text)
    return sum(len(encoding.encode_ordinary(piece)) for piece in pieces(text))


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that may be tokenised one by one, each at most twice `PIECE` characters long."""
    start = 0
    while len(text) - start > 2 * PIECE:
        found = _WORD_END.search(text, start + PIECE, start + 2 * PIECE)
        end = found.end() if found else start + 2 * PIECE
        yield text[start:end]
        start = end
    yield text[start:]


@lru_cache
def _sizes(name: str) -> bytes:
    """The length of every token of an encoding that is there, by its number; none is longer than 255 bytes."""
    encoding = _encoding(name)
    assert encoding is not None
    tokens = encoding.token_byte_values()
    lengths = bytearray(encoding.n_vocab)
    for token in tokens:
        lengths[encoding.encode_single_token(token)] = len(token)
    return bytes(lengths)


_BUILDING = Lock()


def _encoding(name: str) -> Encoding | None:
    with _BUILDING:  # lru_cache alone would let two threads build the same
        return _built(name)


@lru_cache
def _built(name: str) -> Encoding | None:
    published = _ENCODINGS[name]
    content = _ranks_file(name)
    if content is None:
        return None
    if hashlib.sha256(content).hexdigest() != published.ranks_sha256:
        log.warning("ranks_unknown", encoding=name, advice="Reinstall bpe-openai; tokens are estimated.")
        return None
    words = content.split()
    ranks = {base64.b64decode(token): int(rank) for token, rank in zip(words[::2], words[1::2], strict=True)}
    # No special tokens: nothing that is counted here is one
    return Encoding(name, pat_str=published.pattern, mergeable_ranks=ranks, special_tokens={})


def _ranks_file(name: str) -> bytes | None:
    """The ranks of an encoding as tiktoken publishes them. The package is only located: importing it loads 74 MB."""
    spec = find_spec("bpe_openai")
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            return gzip.decompress(Path(folder, "data", f"{name}.tiktoken.gz").read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            log.warning("ranks_unreadable", encoding=name, error=str(error))
    return None

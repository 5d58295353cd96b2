"""Embeddings without a model: words are hashed into a vector, so that texts that share words lie close together.

Pure and the same everywhere: it depends on neither the process nor the machine.
"""

import base64
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from adlatus.rehearsal.chat import BadRequestError, optional, required

MODEL = "rehearsal-embedding"
DIMENSIONS = 256
MOST_DIMENSIONS = 4_096
MOST_INPUTS = 2_048


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A request whose parts that matter have the right types. `inputs`: the words of each, or its tokens as words."""

    model: str
    inputs: Sequence[Sequence[str]]
    dimensions: int
    as_base64: bool


def read(body: dict[str, Any]) -> EmbeddingsRequest:
    """Check a request. Raises BadRequestError."""
    dimensions = optional(body, "dimensions", int)
    if dimensions is not None and not 1 <= dimensions <= MOST_DIMENSIONS:
        raise BadRequestError(f"Invalid 'dimensions': must be from 1 to {MOST_DIMENSIONS}.", "dimensions")
    encoding = optional(body, "encoding_format", str) or "float"
    if encoding not in ("float", "base64"):
        raise BadRequestError("Invalid 'encoding_format': must be 'float' or 'base64'.", "encoding_format")
    return EmbeddingsRequest(
        model=required(body, "model", str),
        inputs=[_words(given) for given in _inputs(body.get("input"))],
        dimensions=dimensions or DIMENSIONS,
        as_base64=encoding == "base64",
    )


def answer(request: EmbeddingsRequest) -> dict[str, Any]:
    """The list of embeddings, in the shape of OpenAI."""
    embeddings = [
        {"object": "embedding", "index": index, "embedding": _encoded(embed(words, request.dimensions), request)}
        for index, words in enumerate(request.inputs)
    ]
    counted = sum(map(len, request.inputs))
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    return {"object": "list", "data": embeddings, "model": request.model, "usage": usage}


def embed(words: Sequence[str], dimensions: int) -> list[float]:
    """A vector of length 1: each word adds or takes 1 in a few places, so that one clash of two words does little."""
    vector = _counted(words, dimensions)
    if not any(vector):  # all of it cancelled out
        vector[0] = 1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def _counted(words: Sequence[str], dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in words:
        for hashed in _hashes(word):
            vector[(hashed >> 1) % dimensions] += 1 if hashed & 1 else -1
    return vector


@lru_cache(maxsize=65_536)
def _hashes(word: str) -> tuple[int, ...]:
    return struct.unpack("<4H", blake2b(word.encode(), digest_size=8).digest())


def _encoded(vector: list[float], request: EmbeddingsRequest) -> list[float] | str:
    packed = struct.pack(f"<{len(vector)}f", *vector)  # both forms say the same: 32 bits
    return base64.b64encode(packed).decode() if request.as_base64 else list(struct.unpack(f"<{len(vector)}f", packed))


def _words(given: str | list[int]) -> list[str]:
    if isinstance(given, str):
        return re.findall(r"\w+", given.lower()) or [given]
    return [str(token) for token in given]


def _inputs(given: object) -> list[str | list[int]]:
    """One text, several, the tokens of one, or of several."""
    if given is None:
        raise BadRequestError("Missing required parameter: 'input'.", "input")
    if isinstance(given, str) or _is_tokens(given):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(one, str) or _is_tokens(one) for one in given):
        raise BadRequestError(
            "Invalid 'input': a string, an array of strings, an array of tokens or an array of such is needed.", "input"
        )
    if not 1 <= len(given) <= MOST_INPUTS or "" in given:
        raise BadRequestError(
            f"Invalid 'input': from 1 to {MOST_INPUTS} inputs are needed, none of them empty.", "input"
        )
    return given


def _is_tokens(given: object) -> bool:
    return isinstance(given, list) and bool(given) and all(type(token) is int and token >= 0 for token in given)

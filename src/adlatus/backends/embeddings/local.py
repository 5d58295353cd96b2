"""The local model: MiniLM by onnxruntime, off the event loop, with nothing fetched from anywhere.

`fetch` has put its files where they are. The model is loaded when it is first used, and once.
"""

import asyncio
import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from adlatus.backends.embeddings import Vector, Vectors, clean, mean
from adlatus.backends.refusals import ModelError

log = structlog.get_logger(__name__)

NAME = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256
MODEL_FILE, TOKENIZER_FILE = "model.onnx", "tokenizer.json"
PACKAGES = ("onnxruntime", "tokenizers")
MAX_THREADS = 4

_BEGIN, _END = 101, 102
_CONTENT = MAX_TOKENS - 2
"""Tokens of a text that fit between the tokens that mark its beginning and end."""


@dataclass(frozen=True)
class Windows:
    """What the model makes of texts: a vector for each of their windows of at most 256 tokens.

    `owners` says for each vector of which text it is, by its place; `tokens` how many each text has.
    """

    vectors: Vectors
    owners: npt.NDArray[np.intp]
    tokens: tuple[int, ...]

    def pooled(self) -> Vectors:
        """One vector per text, the mean of its windows."""
        return mean(self.vectors, self.owners, len(self.tokens))


def installed() -> bool:
    """Whether the packages that run the model are there (`adlatus[local]`)."""
    return all(find_spec(package) for package in PACKAGES)


class LocalModel:
    """An `Embedder`. `folder` has the model's two files."""

    name = NAME
    dimensions = DIMENSIONS
    max_tokens = MAX_TOKENS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loading = Lock()
        self._loaded: tuple[Any, Any] | None = None
        # Of its own, so that a search does not wait for all that is being indexed
        self._queries = ThreadPoolExecutor(1, "embed-query")
        self._documents = ThreadPoolExecutor(1, "embed-documents")

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return (await self.windows(texts)).pooled()

    async def embed_query(self, text: str) -> Vector:
        """See `Embedder`."""
        loop = asyncio.get_running_loop()
        windows = await loop.run_in_executor(self._queries, self.windows_now, [text])
        [vector] = windows.pooled()
        return np.asarray(vector)

    async def windows(self, texts: Sequence[str]) -> Windows:
        """The vectors of all windows, for whoever compares with each of them. Other tasks take their turns between.

        Window by window: several at once would be slower, because of their padding.
        """
        return await self.windows_of(await self.tokens(texts))

    async def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The texts as the model's tokens, for `windows_of`."""
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._documents, self._tokens, text) for text in texts]

    async def windows_of(self, tokens: Sequence[Sequence[int]]) -> Windows:
        """`windows` of texts that are tokens already."""
        loop = asyncio.get_running_loop()
        cut = _cut_all(tokens)
        vectors = [await loop.run_in_executor(self._documents, self._run, window) for _, window in cut]
        return _windows(tokens, cut, vectors)

    def windows_now(self, texts: Sequence[str]) -> Windows:
        """The same in this thread, which it blocks."""
        tokens = [self._tokens(text) for text in texts]
        cut = _cut_all(tokens)
        return _windows(tokens, cut, [self._run(window) for _, window in cut])

    def close(self) -> None:
        """Forget what waits, and end the threads after what they are doing."""
        for threads in (self._queries, self._documents):
            threads.shutdown(wait=True, cancel_futures=True)

    def _tokens(self, text: str) -> list[int]:
        _, tokenizer = self._model()
        ids: list[int] = tokenizer.encode(clean(text), add_special_tokens=False).ids
        return ids

    def _run(self, window: Sequence[int]) -> Vector:
        session, _ = self._model()
        [[vector]] = session.run(None, {"input_ids": np.array([[_BEGIN, *window, _END]], np.int32)})
        return np.asarray(vector, np.float32)

    def _model(self) -> tuple[Any, Any]:
        with self._loading:
            if self._loaded is None:
                self._loaded = _load(self._folder)
            return self._loaded


def _cut_all(texts: Sequence[Sequence[int]]) -> list[tuple[int, Sequence[int]]]:
    return [(owner, window) for owner, tokens in enumerate(texts) for window in _cut(tokens)]


def _cut(tokens: Sequence[int]) -> list[Sequence[int]]:
    """As few windows as possible, all about as long: each has the same weight in the mean."""
    count = max(1, -(-len(tokens) // _CONTENT))
    edges = [len(tokens) * number // count for number in range(count + 1)]
    return [tokens[start:end] for start, end in pairwise(edges)]


def _windows(
    texts: Sequence[Sequence[int]], cut: Sequence[tuple[int, Sequence[int]]], vectors: Sequence[Vector]
) -> Windows:
    owners = np.array([owner for owner, _ in cut], np.intp)
    stacked = np.array(vectors, np.float32).reshape(len(cut), DIMENSIONS)
    return Windows(stacked, owners, tuple(map(len, texts)))


def _load(folder: Path) -> tuple[Any, Any]:
    """The session of onnxruntime and the tokenizer. Raises `ModelError`."""
    try:
        onnxruntime, tokenizers = (importlib.import_module(package) for package in PACKAGES)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would burn what others need
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(folder / MODEL_FILE), options, providers=providers)
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception as error:
        log.warning("local embedding model unusable", folder=str(folder), error=str(error))
        raise ModelError(
            "The local embedding model cannot be loaded: remove its folder and run `adlatus models fetch` again.",
            "server_error",
        ) from error
    log.info("local embedding model loaded", model=NAME, threads=options.intra_op_num_threads)
    return session, tokenizer

"""What makes vectors of texts. `local`: the model on this machine; `endpoint`: any OpenAI-compatible server.

Knows neither files nor indexes. Vectors have length 1, so that their product is their cosine.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""One row per text."""

Vector = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Makes vectors. Raises `ModelError` only. May be used by any number of tasks at a time."""

    @property
    def name(self) -> str:
        """The model: vectors of models with different names do not go together."""

    @property
    def dimensions(self) -> int | None:
        """How long a vector is; None as long as that is the endpoint's affair and it has not answered yet."""

    @property
    def max_tokens(self) -> int:
        """What the model reads at once. Longer texts may be given: their parts are embedded, and the mean taken."""

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts that are to be found, in their order. Any text will do, and any number of them."""

    async def embed_query(self, text: str) -> Vector:
        """The vector of what is looked for; does not wait until documents in the making are done."""


def mean(vectors: Vectors, owners: Sequence[int] | npt.NDArray[np.intp], texts: int) -> Vectors:
    """One vector per text of the vectors of its parts; `owners` says whose part each is."""
    totals = np.zeros((texts, vectors.shape[1]), np.float32)
    np.add.at(totals, np.asarray(owners, np.intp), vectors)
    return unit(totals)


def unit(vectors: Vectors) -> Vectors:
    """The rows brought to length 1. One that has no direction stays as it is."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def clean(text: str) -> str:
    """A text as it can be written in UTF-8, without the lone surrogates that JSON can carry; never empty."""
    return text.encode("utf-8", "replace").decode() or " "

"""Finds passages in vector stores: the one path of the search endpoint and of the tool of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adlatus.backends.vectors.filters import Filter, Scalar
from adlatus.backends.vectors.protocol import Weights
from adlatus.resources import Resources


@dataclass(frozen=True)
class Question:
    """What is looked for, and where. Several queries are several ways to say it: a passage counts by its best one.

    `limit` is the number of results at most; `score_threshold` is the least score, from 0 to 1. Without `weights` the
    two halves of the hybrid search are fused as measures best.
    """

    queries: Sequence[str]
    vector_store_ids: Sequence[str]
    limit: int = 10
    filter: Filter | None = None
    score_threshold: float = 0.0
    weights: Weights | None = None
    rerank: bool = True


@dataclass(frozen=True)
class Result:
    """A passage that was found. Pages count from 1, both ends included; None where the file has none."""

    vector_store_id: str
    file_id: str
    filename: str
    score: float
    attributes: Mapping[str, Scalar]
    text: str
    page_from: int | None
    page_to: int | None


async def search(resources: Resources, project_id: str, question: Question) -> list[Result]:
    """The best passages, best first. Raises `Unavailable` where the index does not answer, `ModelError` where the
    embedding model does not.
    """
    raise NotImplementedError(f"{resources}, {project_id}, {question}")

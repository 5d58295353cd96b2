"""How well file search finds on a slice of labelled questions, as `bench.retrieval` measures all of them.

The floors lie just below what was measured: a weight, a stemmer or a window that got lost falls through them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.protocol import Space
from bench import labelled
from bench.labelled import Asked, Labelled
from bench.retrieval import Quality, Site
from tests.conftest import Loop, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EVERY = 4
DOCUMENTS = 300
"""Of Cranfield, with the questions that these answer."""


@pytest.fixture(scope="module")
def where(reference: Path) -> Path:
    """The labelled questions, beside the reference material."""
    folder = reference.parent / "data" / "retrieval"
    if not folder.is_dir():
        missing("reference", f"there are no labelled questions in {folder}")
    return folder


@pytest.fixture(scope="module")
def site(loop: Loop, local_model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An index that is empty at first."""
    with loop.stack() as stack:
        index = loop.run(stack.enter_async_context(open_edge(tmp_path_factory.mktemp("index") / "vectors")))
        yield Site(index, Space(local_model.name, local_model.dimensions), local_model)


def measured(loop: Loop, site: Site, of: Labelled, asked: list[Asked]) -> dict[str, Quality]:
    """The quality by meaning, by words and by both."""
    loop.run(site.add(of), 200)
    return {by: loop.run(site.quality(of, asked, by), 200) for by in ("meaning", "words", "hybrid")}


@pytest.mark.parametrize(
    ("name", "recall_at_5", "mrr_at_10"), [("xquad-en", 0.99, 0.96), ("xquad-de", 0.97, 0.94), ("xquad-zh", 0.97, 0.95)]
)
def test_questions_find_the_windows_that_hold_their_answers(
    loop: Loop, site: Site, where: Path, name: str, recall_at_5: float, mrr_at_10: float
) -> None:
    of = labelled.load(name, where)
    found = measured(loop, site, of, of.part(odd=True)[::EVERY])
    assert found["hybrid"].recall_at_5 >= recall_at_5
    assert found["hybrid"].mrr_at_10 >= mrr_at_10
    better = max(found["meaning"].mrr_at_10, found["words"].mrr_at_10)
    assert found["hybrid"].mrr_at_10 >= better - 0.02


def test_abstracts_are_found_by_what_they_are_about(loop: Loop, site: Site, where: Path) -> None:
    whole = labelled.load("cranfield", where)
    kept = [chunk for chunk in whole.chunks if int(chunk.file_id) <= DOCUMENTS]
    there = {(chunk.file_id, chunk.index) for chunk in kept}
    asked = [Asked(each.text, frozenset(each.relevant & there)) for each in whole.questions]
    slice_ = Labelled("cranfield", kept, asked, ())
    found = measured(loop, site, slice_, [each for each in asked if each.relevant])
    assert found["hybrid"].ndcg_at_10 >= 0.54
    better = max(found["meaning"].ndcg_at_10, found["words"].ndcg_at_10)
    assert found["hybrid"].ndcg_at_10 >= better + 0.03

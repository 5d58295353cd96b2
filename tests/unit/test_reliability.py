"""What the documentation says of outages and of attacks names the tests that show it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = {"docs/reliability.md": 40, "SECURITY.md": 30}


def _named(document: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[a-z_/0-9]+\.py)::(test_\w+)`", (ROOT / document).read_text("utf-8"))


NAMED = [named for document in DOCUMENTS for named in _named(document)]


@pytest.mark.parametrize(("document", "least"), DOCUMENTS.items())
def test_tests_are_named(document: str, least: int) -> None:
    assert len(_named(document)) > least


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_every_test_that_is_named_is_there(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)

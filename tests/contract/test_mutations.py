"""The contract tests notice wrong shapes: the list of `mutations.toml` applies, and each of it is caught."""

import asyncio
import re

import pytest

from tests.contract.mutations import MUTATIONS, ROOT, TESTS, Mutation, examine_all, is_caught

FEWEST_KINDS = 10


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.wrong)
def test_every_mutation_has_its_one_place_and_names_a_test(mutation: Mutation) -> None:
    assert mutation.spoiled().count(mutation.new) >= 1
    file, _, name = mutation.test.partition("::")
    text = (ROOT / TESTS / file).read_text("utf-8")
    assert re.search(rf"^(async )?def {name.partition('[')[0]}\(", text, re.M)


def test_the_mutations_are_of_many_kinds() -> None:
    assert len({mutation.kind for mutation in MUTATIONS}) >= FEWEST_KINDS
    assert len({mutation.wrong for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("output", "caught"),
    [
        ("E   without ['param']\nFAILED {test} - AssertionError", True),
        ("E   without ['code']\nFAILED {test} - AssertionError", False),
        ("E   without ['param']\nERROR {test} - SyntaxError", False),
        ("E   without ['param']\nFAILED {test}_of_another - AssertionError", False),
        ("1 passed", False),
    ],
)
def test_only_the_named_test_that_fails_for_the_named_reason_catches(output: str, caught: bool) -> None:
    mutation = Mutation("", "", "", "", "", "test_schema.py::test_it", "['param']")
    assert is_caught(mutation, output.format(test=TESTS / mutation.test)) is caught


def test_a_mutation_that_does_not_apply_is_told() -> None:
    with pytest.raises(ValueError, match=r"errors\.py has 0 places"):
        Mutation("", "", "errors.py", "no such text", "", "", "").spoiled()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_wrong_shape_of_each_kind_is_caught() -> None:
    of_each = {mutation.kind: mutation for mutation in MUTATIONS}
    assert asyncio.run(examine_all([*of_each.values()])) == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_every_wrong_shape_is_caught() -> None:
    assert asyncio.run(examine_all()) == []

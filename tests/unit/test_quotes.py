"""Which sentence of a passage a model has drawn on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.runs.quotes import LONGEST, fitting

FOODS = (
    "The favorite food of several people:\n- Summanus Ferdinand: tacos\n- Tekakwitha Effie: pizza\n- Filip Carola: cake"
)
PROSE = 'Dr. Weiss founded it in 1984. "It will last," she said. Today it has 3.5 million members! Who knows why?'


@pytest.mark.parametrize(
    ("said", "passage", "quote"),
    [
        ("Filip's favorite food is cake", FOODS, "- Filip Carola: cake"),
        ("Effie prefers pizza. ", FOODS, "- Tekakwitha Effie: pizza"),
        ("Filip likes cake. Ferdinand likes tacos", FOODS, "- Summanus Ferdinand: tacos"),
        ("It now has 3.5 million MEMBERS", PROSE, "Today it has 3.5 million members!"),
        ("The founder said that it would last", PROSE, '"It will last," she said.'),
        ("菲利普最喜歡的食物是蛋糕", "艾菲喜歡披薩。菲利普喜歡蛋糕。大家都喜歡茶。", "菲利普喜歡蛋糕。"),
        ("Quite so", FOODS, ""),
        ("", FOODS, ""),
        ("Cake", "", ""),
    ],
)
def test_the_quote_is_the_sentence_that_shares_most(said: str, passage: str, quote: str) -> None:
    assert fitting(said, passage) == quote


def test_a_long_sentence_is_cut_between_words() -> None:
    quote = fitting("cake", "cake " * 200)
    assert quote == ("cake " * 60).strip()
    assert len(fitting("cake", "cake" + "x" * 9999 + " cake")) == LONGEST


@given(st.text(max_size=400), st.text(max_size=800))
def test_a_quote_is_exact_and_short(said: str, passage: str) -> None:
    quote = fitting(said, passage)
    assert quote in passage
    assert len(quote) <= LONGEST

"""The language of a text, as far as the search for words depends on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.backends.vectors.languages import NEUTRAL, UNSPACED, detect
from adlatus.backends.vectors.sparse import coverage, encode_document, encode_query

TEXTS = {
    "english": "The report that was published in March is about the harbour and its ships.",
    "german": "Der Bericht, der im März erschien, handelt von dem Hafen und den Schiffen, die dort liegen.",
    "french": "Le rapport publié en mars est sur le port et les navires qui sont dans la ville.",
    "spanish": "El informe que se publicó en marzo es sobre el puerto y los barcos de la ciudad.",
    "portuguese": "O relatório que foi publicado em março é sobre o porto e os navios da cidade, mas não mais.",
    "italian": "Il rapporto che è stato pubblicato nel mese di marzo è sul porto della città e sulle navi.",
    "dutch": "Het rapport dat in maart verscheen, gaat over de haven en de schepen van de stad.",
    "swedish": "Rapporten som kom i mars är om hamnen och de skepp som inte har varit här från början.",
    "finnish": "Raportti on satamasta ja se oli maaliskuussa, mutta laivat ovat myös tämä kun niin.",
    "hungarian": "A jelentés az volt, hogy a kikötő és a hajók nem csak egy városban vannak.",
    "romanian": "Raportul care a fost publicat în martie este despre port și despre navele din oraș.",
    "turkish": "Mart ayında yayımlanan rapor bir liman ve gemiler için çok daha fazla bilgi verir.",
    "russian": "Отчёт, опубликованный в марте, рассказывает о порте и кораблях.",
    "greek": "Η έκθεση που δημοσιεύτηκε τον Μάρτιο αφορά το λιμάνι.",
    "arabic": "التقرير الذي نشر في مارس عن الميناء والسفن",
    NEUTRAL: "मार्च में प्रकाशित रिपोर्ट बंदरगाह के बारे में है",
}
UNSPACED_TEXTS = (
    "三月发表的报告是关于港口和船只的。",
    "3月に発表された報告書は港と船についてです。",
    "รายงานที่ตีพิมพ์ในเดือนมีนาคมเกี่ยวกับท่าเรือ",
    "GPU 内存 manager 的报告",
)


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert detect(TEXTS[language]) == language


@pytest.mark.parametrize("text", UNSPACED_TEXTS)
def test_languages_without_spaces_are_told_by_their_letters(text: str) -> None:
    assert detect(text) == UNSPACED
    assert len(encode_document(text, UNSPACED).indices) > 3


def test_what_tells_nothing_is_english_or_neutral() -> None:
    assert detect("Haushaltsplan") == "english"
    assert detect("") == detect("12 + 34 = 46") == NEUTRAL


@given(st.text())
def test_any_text_can_be_encoded(text: str) -> None:
    document = encode_document(text, detect(text))
    query = encode_query(text, ["german"])
    assert set(document.indices) <= set(query.indices)
    assert len(document.indices) == len(document.values)


def test_a_query_is_cut_as_the_documents_of_each_language_are() -> None:
    document = encode_document("Häuser", "german")
    assert not set(document.indices) & set(encode_query("Häusern", []).indices)
    assert set(document.indices) & set(encode_query("Häusern", ["german"]).indices)


def test_the_stop_words_of_a_query_are_searched_in_no_language() -> None:
    german = encode_document("the of where Hafen", "german")
    query = encode_query("Where is the end of the Hafen?", ["german"])
    assert len(set(german.indices) & set(query.indices)) == 1


def test_coverage_is_the_share_of_the_telling_words_of_a_query() -> None:
    query = "Where are the harbours of the north?"
    assert coverage(query, "A harbour in the north.", "english") == 1
    assert coverage(query, "A harbour in the south.", "english") == 0.5
    assert coverage(query, "where are the of", "english") == coverage("where are the", "harbour", "english") == 0


@given(st.text(), st.text())
def test_any_two_texts_have_a_coverage(query: str, document: str) -> None:
    assert 0 <= coverage(query, document, detect(document)) <= 1

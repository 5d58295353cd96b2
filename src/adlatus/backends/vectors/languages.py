"""Which language a text is in, as far as the search for its words depends on it: by its script, then by its commonest
words. A language is the name by which the BM25 encoding knows its stemmer."""

import re
from functools import cache

NEUTRAL = "neutral"
"""No stemmer fits: words are taken as they are."""
UNSPACED = "unspaced"
"""Words are not divided by spaces (Chinese, Japanese, Thai and their like), so a dictionary has to find them."""

_SAMPLE = 4000  # characters; more would not change the verdict
_SCRIPTS = {
    UNSPACED: "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f",
    "russian": "\u0400-\u052f",
    "arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    NEUTRAL: "\u0530-\u05ff\u0700-\u074f\u0780-\u0dff\u0f00-\u0fff\u10a0-\u10ff\u1200-\u137f",
}
_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_WORD = re.compile(f"[{_SCRIPTS['latin']}]+")

_COMMONEST = {
    "english": "the of and to in is that it for was on are with as this be at by from have which not you an",
    "german": "der die und das ist von zu den mit sich nicht ein eine auf für dem im des auch es wird bei sind oder",
    "french": "le la les de des et est en que une un pour dans qui pas sur au du par avec il elle sont cette",
    "spanish": "el la los las de que y en un una es por con para del se no al lo como más su son pero",
    "portuguese": "o a os as de que e em um uma é por com para do da não se no na mais como dos das ao são",
    "italian": "il la di che e è un una per in non con del della si da le dei nel sono alla più gli come",
    "dutch": "de het een van en in is dat op te zijn met voor niet aan er ook als bij door naar uit wordt deze",
    "swedish": "och att det i en som är av för på med den till inte ett om har de från kan vi var eller också",
    "danish": "og at det i en som er af for på med den til ikke et om har de fra kan vi var eller også blev",
    "norwegian": "og at det i en som er av for på med den til ikke et om har de fra kan vi var eller også ble",
    "finnish": "ja on ei että se oli hän joka mutta myös tai kun ovat niin kuin sen ole voi sekä jos mukaan tämä",
    "hungarian": "a az és hogy nem is egy ez volt meg de csak már van mint vagy azt el ki még lehet amely ezt",
    "romanian": "și în de la a cu pe nu că din este o un pentru care mai sau au sunt se prin ca fi lui",
    "turkish": "ve bir bu da de için ile olarak çok daha olan gibi en ne kadar o sonra ya olduğu ise var mi",
}


def detect(text: str) -> str:
    """The language of a text; English where nothing in a text of Latin letters tells. Never fails."""
    sample = text[:_SAMPLE]
    letters = {name: len(pattern.findall(sample)) for name, pattern in _LETTERS.items()}
    letters[UNSPACED] *= 3  # one such letter is about half a word
    script = max(letters, key=lambda name: letters[name])
    if not letters[script]:
        return NEUTRAL
    return _by_words(sample) if script == "latin" else script


def _by_words(sample: str) -> str:
    scores = dict.fromkeys(_COMMONEST, 0.0)
    for word in _WORD.findall(sample.lower()):
        speakers = _speakers().get(word, ())
        for language in speakers:
            scores[language] += 1 / len(speakers)  # a word of many languages tells little
    return max(scores, key=lambda language: scores[language])  # the first, English, where all are 0


@cache
def _speakers() -> dict[str, list[str]]:
    speakers: dict[str, list[str]] = {}
    for language, words in _COMMONEST.items():
        for word in words.split():
            speakers.setdefault(word, []).append(language)
    return speakers

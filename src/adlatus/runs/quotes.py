"""Which sentence of a passage a model has drawn on, told from what it said. Pure; compares words, understands none."""

import re
from collections import Counter
from collections.abc import Iterator
from math import sqrt

LONGEST = 300
"""Characters of a quote."""

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])[」』”’）]*\s*|(?<!\s)\s*\n\s*")
_WORD = re.compile(r"[^\W_]+")
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def fitting(said: str, passage: str) -> str:
    """The sentence of a passage that shares most with the last sentence of what was said, exactly as it stands there.

    One that is too long is cut. Empty where nothing is shared.
    """
    last = next(reversed(list(_sentences(said))), "")
    wanted = _terms(last)
    found = [(sentence, _terms(sentence)) for sentence in _sentences(passage)]
    common = Counter(term for _, terms in found for term in terms)
    best, most = "", 0.0
    for sentence, terms in found:
        if shared := wanted & terms:  # a word that stands everywhere tells little, and long sentences have all words
            score = sum(sorted(1 / common[term] for term in shared)) / sqrt(len(terms))
            if score > most:
                best, most = sentence, score
    return _cut(best)


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        closed = text[start : end.end()].strip()
        start = end.end()
        if closed:
            yield closed
    if rest := text[start:].strip():
        yield rest


def _terms(sentence: str) -> set[str]:
    """The words of a sentence; pairs of signs where words are written without spaces."""
    terms: set[str] = set()
    for word in _WORD.findall(sentence.casefold()):
        if len(word) > 1 and _SPACELESS.search(word):
            terms.update(word[at : at + 2] for at in range(len(word) - 1))
        else:
            terms.add(word)
    return terms


def _cut(sentence: str) -> str:
    if len(sentence) <= LONGEST:
        return sentence
    kept = sentence[:LONGEST]
    words, space, _ = kept.rpartition(" ")
    return words.rstrip() if space and len(words) > LONGEST // 2 else kept

"""Texts as sparse BM25 vectors: the weights of their words; the engines add the rarity of each word (IDF).

Encoded here for every engine, so that an index means the same wherever it is kept, and no model hub is asked.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet, TokenizerType

from adlatus.backends.vectors.languages import NEUTRAL, UNSPACED, detect

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Sparse:
    """Weights by the hashes of words; empty where a text has no word that tells anything."""

    indices: list[int]
    values: list[float]


def encode_document(text: str, language: str) -> Sparse:
    """A chunk in its language, as `languages.detect` names it."""
    vector = _encoder(language).embed_document(encodable(text))
    return Sparse(vector.indices, vector.values)


def encode_query(text: str, languages: Iterable[str]) -> Sparse:
    """A query in all languages of what is searched, and in its own.

    A stemmer cuts the same word in two languages in two ways, and only the way of the document finds it. Its own
    language's stop words are left out in all of them: in a document of another language "the" is a rare word.
    """
    clean = encodable(text)
    own = detect(clean)
    told = _told(clean, own)
    indices = set(_encoder(own).embed_query(clean).indices)
    for language in {*languages} - {own}:
        indices.update(_encoder(language).embed_query(told).indices)
    return Sparse(sorted(indices), [1.0] * len(indices))


def of_store(words: Sparse, vector_store_id: str) -> Sparse:
    """The same weights by hashes of the store's own: different words stay different, other stores have others.

    Where two stores' hashes meet after all, the filter on the store tells them apart.
    """
    own = crc32(vector_store_id.encode(errors="replace"))
    return Sparse([index ^ own for index in words.indices], words.values)


def coverage(query: str, document: str, language: str) -> float:
    """The share of a query's words that a document in this language has, from 0 to 1."""
    clean = encodable(query)
    wanted = set(_encoder(language).embed_query(_told(clean, detect(clean))).indices)
    return len(wanted.intersection(encode_document(document, language).indices)) / len(wanted) if wanted else 0.0


def _told(text: str, language: str) -> str:
    """The text without the words that tell nothing in its language."""
    if language in (NEUTRAL, UNSPACED):
        return text
    encoder = _encoder(language)
    return " ".join(word for word in _WORD.findall(text) if encoder.embed_query(word).indices)


def encodable(text: str) -> str:
    """The text with its lone surrogates replaced, which no engine takes."""
    return text.encode(errors="replace").decode()


@cache
def _encoder(language: str) -> Bm25:
    if language not in (NEUTRAL, UNSPACED):
        return Bm25(Bm25Config(language=language))
    tokenizer = TokenizerType.Word if language == NEUTRAL else TokenizerType.Multilingual
    return Bm25(Bm25Config(tokenizer=tokenizer, stopwords=StopwordsSet(), stemmer=DisabledStemmer()))

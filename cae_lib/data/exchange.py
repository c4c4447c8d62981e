"""Exchanging two parts of a caption so that it stays English and becomes false.

The parts and their grammar are read from spaCy's parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from spacy.tokens import Doc, Span, Token

from cae_lib.words.dependency import NOUNS, PLACE_NOUNS

KINDS = ("noun", "phrase", "adjective")
MUTUAL = frozenset("alongside and beside near next opposite or with".split())
"""Words between two nouns that may be exchanged without making the caption false."""

AMOUNTS = frozenset("few many more most much other same several such".split())
"""Words tagged as adjectives that do not say what something is like."""

AN_BEFORE_H = re.compile(r"(hour|honest|honor|honour|heir)", re.IGNORECASE)
A_BEFORE_VOWEL = re.compile(r"(uni([^mn]|que)|us[aeiu]|ut[ei]|eu|ewe|one\b|once)", re.IGNORECASE)


def exchanges(doc: Doc) -> Iterator[tuple[str, str]]:
    """Kind and outcome of every exchange of two nouns, noun phrases or adjectives of a caption.

    Both parts agree in number or degree. Left out are place nouns ("on top of"), nouns with an "of"
    phrase ("a group of"), adjectives of one noun, and parts joined by a mutual relation ("and",
    "next to") that nothing tells apart. No outcome equals the caption.
    """
    for kind, first, second in _pairs(doc):
        text = _exchanged(doc, first, second)
        if text.lower() != doc.text.lower():
            yield kind, text


def _pairs(doc: Doc) -> Iterator[tuple[str, Span, Span]]:
    """Kind and parts of every exchange, the earlier part first."""
    nouns = [token for token in doc if _is_movable(token)]
    for first, second in combinations(nouns, 2):
        agree = first.tag_ == second.tag_ and _is_counted(first) == _is_counted(second)
        if agree and not _is_interchangeable(first, second):
            yield "noun", _with_compounds(first), _with_compounds(second)
    chunks = [chunk for chunk in doc.noun_chunks if _is_movable(chunk.root) and not _owned(chunk)]
    for first, second in combinations(chunks, 2):
        same_number = _is_plural(first.root) == _is_plural(second.root)
        if same_number and not _are_mutual(first.root, second.root):
            yield "phrase", first, second
    adjectives = [
        token for token in doc
        if token.pos_ == "ADJ" and token.dep_ in ("amod", "acomp") and token.lower_ not in AMOUNTS
    ]
    for first, second in combinations(adjectives, 2):
        if first.tag_ == second.tag_ and first.dep_ == second.dep_ and first.head != second.head:
            yield "adjective", doc[first.i : first.i + 1], doc[second.i : second.i + 1]


def _is_movable(token: Token) -> bool:
    """Whether a noun can stand elsewhere: not one of a compound, of "top of", or of "group of"."""
    if token.pos_ not in NOUNS or token.dep_ in ("compound", "nmod") or token.lower_ in PLACE_NOUNS:
        return False
    if token.i + 1 < len(token.doc) and token.nbor().pos_ in NOUNS:
        return False
    return not any(child.dep_ == "prep" and child.lower_ == "of" for child in token.children)


def _with_compounds(noun: Token) -> Span:
    """A noun with the nouns right before it that it forms a compound with."""
    start = noun.i
    while start > 0 and noun.doc[start - 1].dep_ == "compound":
        start -= 1
    return noun.doc[start : noun.i + 1]


def _is_counted(noun: Token) -> bool:
    return any(child.dep_ == "nummod" for child in noun.children)


def _owned(chunk: Span) -> bool:
    """Whether a phrase starts with "its" or "their", which must follow its owner."""
    return any(token.tag_ == "PRP$" for token in chunk)


def _is_plural(noun: Token) -> bool:
    joined = any(child.dep_ == "conj" for child in noun.children)
    return joined or "Plur" in noun.morph.get("Number")


def _is_interchangeable(first: Token, second: Token) -> bool:
    """Whether two nouns in a mutual relation have nothing with them that tells them apart."""
    return _are_mutual(first, second) and not (_has_modifier(first) or _has_modifier(second))


def _has_modifier(noun: Token) -> bool:
    return any(
        child.dep_ in ("amod", "nummod", "poss", "acl", "relcl") and child.lower_ not in AMOUNTS
        for child in noun.children
    )


def _are_mutual(first: Token, second: Token) -> bool:
    """Whether the second noun hangs on the first by "and", "next to" or the like."""
    between = first.doc[first.i + 1 : second.i]
    if second.dep_ == "conj" and first in second.ancestors:
        return True
    return any(token.lower_ in MUTUAL for token in between) and not any(
        token.pos_ == "NOUN" and token.dep_ != "compound" for token in between
    )


def _exchanged(doc: Doc, first: Span, second: Span) -> str:
    """The caption with two parts exchanged; articles, capitals and spaces are set right."""
    text = doc.text
    articles = [_article_before(first), _article_before(second)]
    starts = [a.idx if a else s.start_char for a, s in zip(articles, (first, second), strict=True)]
    parts = [_lowered(first), _lowered(second)][::-1]
    placed = [f"{_article(p, a)} {p}" if a else p for p, a in zip(parts, articles, strict=True)]
    whole = (
        text[: starts[0]] + placed[0] + text[first.end_char : starts[1]]
        + placed[1] + text[second.end_char :]
    )
    capital = doc[0].text[:1].isupper() and starts[0] == doc[0].idx
    return whole[:1].upper() + whole[1:] if capital else whole


def _lowered(part: Span) -> str:
    """The part's text, without the capital that only the caption's start gave it."""
    text = part.text
    starts_caption = part.start == 0 and part[0].pos_ != "PROPN" and text[1:2].islower()
    starts_caption |= part.start == 0 and text.split()[0] in ("A", "An", "The")
    return text[:1].lower() + text[1:] if starts_caption else text


def _article_before(part: Span) -> Token | None:
    before = part.doc[part.start - 1] if part.start else None
    return before if before is not None and before.lower_ in ("a", "an") else None


def _article(part: str, model: Token) -> str:
    """ "a" or "an" as the part's first sound wants it, with the capital of `model`."""
    vowel = part[:1].lower() in "aeiou" and not A_BEFORE_VOWEL.match(part)
    article = "an" if vowel or AN_BEFORE_H.match(part) else "a"
    return article.capitalize() if model.text[0].isupper() else article


"""Make hard negatives like NegCLIP's: captions with two parts swapped.

NegCLIP swaps nouns, phrases or adjectives, but its generator is not public. The rules here that
decide which words may be swapped are therefore our own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from spacy.about import __version__ as SPACY_VERSION
from spacy.tokens import Doc, Span, Token

from cae_lib.runtime import write_atomic
from cae_lib.words.alignment import check_captions
from cae_lib.words.articles import indefinite_article
from cae_lib.words.entities import plain_text
from cae_lib.words.lexicon import (
    COMPOUND_PREPOSITION_NOUNS,
    MUTUAL_WORDS_OF_NEGATIVES,
    NON_DESCRIPTIVE_ADJECTIVES,
    NOUN_POS,
)
from cae_lib.words.pipeline import load_pipeline, parse_captions, spacy_model_name
from cae_lib.words.versions import NEGATIVES_VERSION

BARE_NOUN_DEPENDENCIES = ("det", "cc", "conj", "compound")  # of children that describe nothing
MODIFIER_DEPENDENCIES = ("amod", "nummod", "poss", "acl", "relcl")  # of children that describe


def swap_negatives(
    captions: Sequence[str], seed: int = 0, limit: int = 5, preserve_meaning: bool = False
) -> list[list[str]]:
    """Swap two parts of each caption, by default to make hard negatives like NegCLIP's.

    Hard negatives are the results of `meaning_changing_swaps`: two nouns, noun phrases or
    adjectives are swapped. With `preserve_meaning`, `meaning_preserving_swaps` is used instead.

    Args:
        captions: The captions.
        seed: Seed of the random choice among the possible swaps. The choice for a caption depends
            only on the seed and on this caption.
        limit: Largest number of results for a caption.
        preserve_meaning: Whether the swaps should keep the meaning of the caption, for a control,
            instead of making it false.

    Returns:
        For each caption, a list of different captions in random order, each with two parts swapped.
        The list has at most `limit` captions and is empty if no swap is possible. White space at
        both ends of a caption is removed; other runs of white space become single spaces.

    Raises:
        ConfigError: If no English spaCy model is installed.
        DataError: If the captions are not a list of texts.
    """
    check_captions(captions)
    nlp = load_pipeline()
    # Single spaces: a run of them would be a token of its own to spaCy, between article and noun.
    plain = [" ".join(plain_text(caption).text.split()) for caption in captions]

    def swaps(doc: Doc) -> list[str]:
        texts = (
            meaning_preserving_swaps(doc)
            if preserve_meaning
            else (text for _, text in meaning_changing_swaps(doc))
        )
        return _sample(doc, texts, seed, limit)

    return list(parse_captions(nlp, plain, swaps))


def stored_swap_negatives(
    captions: Sequence[str], folder: Path, preserve_meaning: bool
) -> list[list[str]]:
    """Return `swap_negatives` of captions, which are stored in a file of a folder."""
    # Another parser or version gives other swaps, and therefore another file.
    inputs = [NEGATIVES_VERSION, parser_identity(), *captions]
    key = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    path = folder / f"{key}.json"
    if not path.is_file():
        write_atomic(path, json.dumps(swap_negatives(captions, preserve_meaning=preserve_meaning)))
    return json.loads(path.read_text(encoding="utf-8"))


def parser_identity() -> str:
    """Return the version of spaCy, and the name and version of the model that parses captions."""
    # From the metadata of the package, without loading the model.
    name = spacy_model_name()
    return f"spacy {SPACY_VERSION}, {name} {importlib.metadata.version(name)}"


def _sample(doc: Doc, texts: Iterable[str], seed: int, limit: int) -> list[str]:
    """Draw up to `limit` distinct texts at random; the seed and the caption fix the choice."""
    texts = list(dict.fromkeys(texts))
    # A generator for each caption, so that the choice does not depend on the other captions. Hashed
    # by SHA-256, because Python's own hash of a text differs between processes.
    digest = hashlib.sha256(f"{seed} {doc.text}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return [texts[i] for i in rng.permutation(len(texts))[:limit]]


def meaning_changing_swaps(doc: Doc) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of all swaps of two parts that should make a caption false.

    Two nouns are swapped if they agree in part of speech and numeral, two noun phrases if they
    agree in number, and two adjectives of different nouns if they agree in degree and position; a
    compound ("sports car") is swapped as a whole. Parts that a symmetric relation joins ("and",
    "next to") are not swapped, except for nouns with modifiers.

    A kind is "noun", "phrase" or "adjective". The same text may be yielded more than once.
    """
    for kind, first, second in _pairs(doc):
        text = _swap_parts(doc, first, second)
        # Equal parts, such as "a dog behind a dog", leave the caption as it is.
        if text.lower() != doc.text.lower():
            yield kind, text


def _pairs(doc: Doc) -> Iterator[tuple[str, Span, Span]]:
    """Yield the kind and the two parts of each possible swap, the earlier part first."""
    nouns = [token for token in doc if _is_movable(token)]
    for first, second in combinations(nouns, 2):
        # The tag tells singular and plural, common and proper nouns apart.
        agree = first.tag_ == second.tag_ and _has_child(first, "nummod") == _has_child(
            second, "nummod"
        )
        has_modifier = any(
            child.dep_ in MODIFIER_DEPENDENCIES and child.lower_ not in NON_DESCRIPTIVE_ADJECTIVES
            for child in (*first.children, *second.children)
        )
        # "a black cat and a white dog": the swapped nouns get other adjectives, so it is false.
        if agree and (has_modifier or not _are_mutual(first, second)):
            yield "noun", _with_compounds(first), _with_compounds(second)
    # Without possessives, because "its ball" has to follow its owner.
    chunks = [
        chunk
        for chunk in doc.noun_chunks
        if _is_movable(chunk.root) and not any(token.tag_ == "PRP$" for token in chunk)
    ]
    for first, second in combinations(chunks, 2):
        # Otherwise the verb no longer agrees: "two cats chases a dog".
        same_number = _is_plural(first.root) == _is_plural(second.root)
        if same_number and not _are_mutual(first.root, second.root):
            yield "phrase", first, second
    adjectives = [
        token
        for token in doc
        if token.pos_ == "ADJ"
        and token.lower_ not in NON_DESCRIPTIVE_ADJECTIVES
        and token.dep_ in ("amod", "acomp")
    ]
    for first, second in combinations(adjectives, 2):
        # Of one degree, in the same position, and not of one noun ("small red car").
        if first.tag_ == second.tag_ and first.dep_ == second.dep_ and first.head != second.head:
            yield "adjective", doc[first.i : first.i + 1], doc[second.i : second.i + 1]


def meaning_preserving_swaps(doc: Doc) -> Iterator[str]:
    """Yield the results of all swaps of two words that keep the meaning of a caption.

    They are bare nouns that a conjunction joins, or adjectives before one noun. Of a list of more
    than two, only the first two are swapped.
    """
    for first, second in combinations(doc, 2):
        joined = second.dep_ == "conj" and second.head == first and first.tag_ == second.tag_
        # Bare: in "a tall man and a woman", a swap would make the woman tall.
        nouns = (
            joined
            and _is_movable(first)
            and _is_movable(second)
            and all(
                child.dep_ in BARE_NOUN_DEPENDENCIES
                for child in (*first.children, *second.children)
            )
        )
        # "small red car", or "black and white dog", where spaCy hangs "white" on "black".
        adjectives = (
            first.pos_ == second.pos_ == "ADJ"
            and first.dep_ == "amod"
            and (joined or second.dep_ == "amod" and second.head == first.head)
        )
        if (nouns or adjectives) and first.lower_ != second.lower_:
            parts = (
                map(_with_compounds, (first, second))
                if nouns
                else (doc[token.i : token.i + 1] for token in (first, second))
            )
            yield _swap_parts(doc, *parts)


def _is_movable(token: Token) -> bool:
    """Return whether a token is a noun that can be moved."""
    # A noun that modifies another one, or the "top" of "on top of". "top" and its like stay even
    # where they belong to no preposition.
    if (
        token.pos_ not in NOUN_POS
        or token.dep_ in ("compound", "nmod")
        or token.lower_ in COMPOUND_PREPOSITION_NOUNS
    ):
        return False
    # A noun right before another one is part of a compound, whatever its label.
    if token.i + 1 < len(token.doc) and token.nbor().pos_ in NOUN_POS:
        return False
    # "a group of people".
    return not any(child.dep_ == "prep" and child.lower_ == "of" for child in token.children)


def _with_compounds(noun: Token) -> Span:
    """Return a noun with the words directly before it that form a compound with it."""
    start = noun.i
    while start > 0 and noun.doc[start - 1].dep_ == "compound":
        start -= 1
    return noun.doc[start : noun.i + 1]


def _is_plural(noun: Token) -> bool:
    # "a cat and a dog" takes the verb of a plural.
    return _has_child(noun, "conj") or "Plur" in noun.morph.get("Number", [])


def _has_child(noun: Token, relation: str) -> bool:
    return any(child.dep_ == relation for child in noun.children)


def _are_mutual(first: Token, second: Token) -> bool:
    """Return whether a conjunction or a symmetric relation such as "next to" joins two nouns."""
    if second.dep_ == "conj" and first in second.ancestors:
        return True
    between = first.doc[first.i + 1 : second.i]
    # A noun between the two: the symmetric word may join that one with either of them.
    apart = any(token.pos_ == "NOUN" and token.dep_ != "compound" for token in between)
    return not apart and any(token.lower_ in MUTUAL_WORDS_OF_NEGATIVES for token in between)


def _swap_parts(doc: Doc, first: Span, second: Span) -> str:
    """Return the caption with two parts swapped, `first` being the earlier one.

    Indefinite articles and the capital at the start of the caption are corrected.
    """
    text = doc.text
    # The articles stay in place, and each takes the form that the new word behind it needs.
    articles = [_article_before(first), _article_before(second)]
    starts = [a.idx if a else s.start_char for a, s in zip(articles, (first, second), strict=True)]
    parts = [_lowered(first), _lowered(second)][::-1]
    placed = [f"{_article(p, a)} {p}" if a else p for p, a in zip(parts, articles, strict=True)]
    between, end = text[first.end_char : starts[1]], text[second.end_char :]
    whole = text[: starts[0]] + placed[0] + between + placed[1] + end
    capital = doc[0].text[:1].isupper() and starts[0] == doc[0].idx
    return whole[:1].upper() + whole[1:] if capital else whole


def _lowered(part: Span) -> str:
    """Return the part's text, without the capital that only the caption's start gave it."""
    text = part.text
    # "TV" keeps its capitals, as its second letter is one, too.
    starts_caption = part.start == 0 and part[0].pos_ != "PROPN" and text[1:2].islower()
    # An article is lowered in any case: the letter after "A" is a space.
    starts_caption |= part.start == 0 and text.split()[0] in ("A", "An", "The")
    return text[:1].lower() + text[1:] if starts_caption else text


def _article_before(part: Span) -> Token | None:
    before = part.doc[part.start - 1] if part.start else None
    return before if before is not None and before.lower_ in ("a", "an") else None


def _article(part: str, model: Token) -> str:
    """Return the indefinite article for a part, capitalised if the article `model` is."""
    article = indefinite_article(part)
    return article.capitalize() if model.text[0].isupper() else article

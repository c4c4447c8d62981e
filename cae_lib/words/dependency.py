"""Find object, attribute and relation words by rules on spaCy's dependency tree.

Unlike SceneGraphParser 0.1.0, the paper's parser, the rules also find predicate adjectives and
other words that it leaves out, and the position of every mention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from spacy.tokens import Doc, Token

from cae_lib.words.lexicon import COMPOUND_PREPOSITION_NOUNS, NOUN_POS
from cae_lib.words.pipeline import load_pipeline, spacy_versions, tag_captions
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span, Swap
from cae_lib.words.swaps import find_swaps
from cae_lib.words.versions import DEPENDENCY_VERSION, SWAPS_VERSION

NOUN_OR_PRONOUN_POS = (*NOUN_POS, "PRON")


class DependencyTagger:
    """Tagger that finds roles by rules on spaCy's dependency tree.

    - Objects: common and proper nouns that are not part of a relation and are no attribute.
      Pronouns do not count. Adjacent nouns form one span.
    - Attributes: adjectives and participles that modify a noun, numbers, predicate adjectives, and
      adjectives, verbs and numbers conjoined with one of these. Determiners do not count. Each
      word is a span.
    - Relations: prepositions that govern a noun, a pronoun or another preposition, and verbs with
      an object, an agent or such a preposition. Forms of "be" do not count. A preposition includes
      its noun ("on top of"), adjective or adverb ("next to"); a verb includes its particle ("pick
      up"). Adjacent words form one span, even those of two relations ("standing next to").

    HTML entities are replaced before a caption is parsed.
    """

    def __init__(self) -> None:
        self._nlp = load_pipeline()

    @property
    def identity(self) -> str:
        """Versions of the rules, of spaCy and of its model."""
        rules = f"rules {DEPENDENCY_VERSION} swaps {SWAPS_VERSION}"
        return f"dependency {rules} ({spacy_versions(self._nlp)})"

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption: objects, attributes, relations; without `arguments`."""
        return [spans for spans, _ in tag_captions(self._nlp, captions, lambda d: (_spans(d), []))]

    def tag_with_swaps(self, captions: Sequence[str]) -> list[tuple[list[Span], list[Swap]]]:
        """Return the spans of each caption and its swaps; see `find_swaps`."""
        return tag_captions(self._nlp, captions, lambda doc: (_spans(doc), find_swaps(doc)))


def _spans(doc: Doc) -> list[Span]:
    # Relations come first: "top" in "on top of" is a noun and "next" in "next to" an adjective.
    relations = {token for start in doc for token in _relation_words(start)}
    attributes = [token for token in doc if _is_attribute(token) and token not in relations]
    objects = [t for t in doc if t.pos_ in NOUN_POS and t not in relations and t not in attributes]
    # One span for each attribute: "small red" are two properties, "fire hydrant" is one object.
    single = [span for token in attributes for span in _runs([token], ATTRIBUTE)]
    return [*_runs(objects, OBJECT), *single, *_runs(relations, RELATION)]


def _runs(tokens: Iterable[Token], role: int) -> list[Span]:
    """Return a span for each run of adjacent tokens."""
    spans: list[Span] = []
    last = -2
    for token in sorted(tokens, key=lambda token: token.i):
        start = spans.pop().start if token.i == last + 1 else token.idx
        spans.append(Span(start, token.idx + len(token), role))
        last = token.i
    return spans


def _is_attribute(token: Token) -> bool:
    if token.dep_ in ("nummod", "acomp") or (token.dep_ == "amod" and token.head.pos_ in NOUN_POS):
        return not _begins_preposition(token)
    # "brown and white": the second adjective hangs on the first, not on the noun.
    if token.dep_ == "conj":
        return token.pos_ in ("ADJ", "VERB", "NUM") and _is_attribute(token.head)
    # `attr` is the label of predicate nouns, which some predicate adjectives get, too.
    return token.dep_ == "attr" and token.pos_ == "ADJ"


def _relation_words(token: Token) -> Iterator[Token]:
    """Yield the words of the relation whose verb or preposition is `token`, if there is one."""
    # A verb without a second noun ("a player is running") relates nothing.
    if token.pos_ == "VERB" and token.lemma_ != "be" and _has_second_noun(token):
        yield token
        # "picks up"
        yield from (child for child in token.children if child.dep_ == "prt")
    elif _is_preposition(token):
        yield token
        # "next to"
        if token.head.pos_ in ("ADJ", "ADV") and token.head.i + 1 == token.i:
            yield token.head
        # "on top of": spaCy reads "top" as the object of "on", and "of" as a preposition at "top".
        if _begins_compound_preposition(token):
            yield next(child for child in token.children if child.dep_ == "pobj")


def _has_second_noun(verb: Token) -> bool:
    return any(
        child.dep_ in ("dobj", "dative")
        and child.pos_ in NOUN_OR_PRONOUN_POS
        or _is_preposition(child)
        or _begins_preposition(child)
        for child in verb.children
    )


def _is_preposition(token: Token) -> bool:
    """Return whether a token is a preposition that governs a noun, a pronoun or a preposition."""
    # `agent` is the "by" of a passive, `conj` the second of "on or under". spaCy tags some
    # prepositions as SCONJ.
    if token.dep_ not in ("prep", "agent", "conj") or token.pos_ not in ("ADP", "SCONJ"):
        return False
    # "out of": the first preposition governs the second.
    return any(
        child.dep_ == "prep" or child.dep_ == "pobj" and child.pos_ in NOUN_OR_PRONOUN_POS
        for child in token.children
    )


def _begins_preposition(token: Token) -> bool:
    """Return whether an adjective or adverb begins a preposition, as "next" does in "next to"."""
    return token.pos_ in ("ADJ", "ADV") and any(
        child.i == token.i + 1 and _is_preposition(child) for child in token.children
    )


def _begins_compound_preposition(preposition: Token) -> bool:
    """Return whether the preposition continues as in "on top of" or "to the left of"."""
    return any(
        child.dep_ == "pobj"
        and child.lower_ in COMPOUND_PREPOSITION_NOUNS
        and any(c.dep_ == "prep" and c.lower_ == "of" for c in child.children)
        for child in preposition.children
    )

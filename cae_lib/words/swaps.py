"""Find pairs of parts of a caption that make it false but leave it grammatical if swapped.

A pair is the two arguments of a relation, or two attributes. Pairs are found by rules on spaCy's
dependency tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from spacy.tokens import Doc, Token

from cae_lib.words.lexicon import (
    COUNT_WORDS,
    DETERMINERS,
    IMAGE_NOUNS,
    MUTUAL_PREPOSITIONS,
    MUTUAL_VERBS,
    MUTUAL_VERBS_TO,
    MUTUAL_WORDS_AFTER_NOUN,
    NON_OBJECT_NOUNS,
    NOUN_POS,
    PLACE_NOUNS,
    POSSESSIVES,
    POSTURE_VERBS,
    QUANTIFIERS,
    UNSWAPPED_PREPOSITIONS,
    WORDS_WITH_DIRECTED_OF,
    are_contradictory,
)
from cae_lib.words.roles import NO_OFFSETS, Offsets, Swap

_PLACE_PATTERN = "|".join(sorted(PLACE_NOUNS, key=len, reverse=True))
# Prepositions of several words, and positions in the image ("on the left").
COMPOUND_PREPOSITION = re.compile(
    rf"\b((?:(?:to|on|at|in|from|near|by|along|around|of) )?(?:the )?(?:other |left |right )?"
    rf"(?:{_PLACE_PATTERN}) of|(?:next|close|adjacent|attached|connected) to|across from|far from"
    r"|away from|along with|together with|close by|out of|off of|up against"
    r"|(?:to|on|at|in|from) the (?:left|right|top|bottom|back|front|side|middle|background"
    r"|foreground|distance|corner)(?! of))\b",
    re.IGNORECASE,
)

CLOSE_UP_OF = re.compile(
    r"\bclose ?-? ?up (?:view |shot |picture |photo |image )?of\b", re.IGNORECASE
)


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase in a parsed caption, as a range of tokens."""

    start: int
    end: int
    head: Token  # "group" in "a group of people"
    # The range of the head and its compound modifiers; None if it cannot be moved without its
    # phrase, as in "a group of people".
    noun: tuple[int, int] | None

    @property
    def determiner(self) -> str:
        """The first word in lower case if it is a determiner, quantifier or number, else ""."""
        first = self.head.doc[self.start]
        text = first.lower_
        return text if text in DETERMINERS | COUNT_WORDS | QUANTIFIERS else ""

    @property
    def is_plural(self) -> bool:
        """Whether the head noun is plural."""
        return "Plur" in self.head.morph.get("Number", [])


def find_swaps(doc: Doc) -> list[Swap]:
    """Return every swap in a caption, first those of arguments of a relation, then of attributes.

    - A relation is a preposition of one or several words, with the verb, adjective or adverb right
      before it, or a verb with an object. Mutual relations ("near") have no swap, nor have those
      whose reversal would not be false ("during").
    - An argument is a noun phrase that names an object. Nouns or whole phrases are swapped only if
      articles, number and possessives still fit.
    - Two attributes are swapped if they contradict each other (`are_contradictory`) and describe
      objects that differ in more than these attributes.
    """
    reader = _Reader(doc)
    return [*reader.relation_swaps(), *reader.attribute_swaps()]


class _Reader:
    """Reader of the noun phrases, compound prepositions and swaps of a parsed caption."""

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        # `char_span` gives None if spaCy's tokens do not begin and end where the match does.
        self.compounds = [
            span
            for match in COMPOUND_PREPOSITION.finditer(doc.text)
            if (span := doc.char_span(*match.span())) is not None
        ]
        self.compound_of = {token.i: span for span in self.compounds for token in span}
        views = [doc.char_span(*match.span()) for match in CLOSE_UP_OF.finditer(doc.text)]
        self.view_words = {token.i for span in views if span is not None for token in span}
        self.phrase_of = self._phrases()

    def _phrases(self) -> dict[int, NounPhrase]:
        """Return the noun phrase of each token that belongs to one, by the index of the token."""
        phrases: list[NounPhrase] = []
        for chunk in self.doc.noun_chunks:
            # "the top" of "on the top of" is a noun chunk for spaCy, but names no object here.
            blocked = self.compound_of.keys() | self.view_words
            tokens = [token for token in chunk if token.i not in blocked]
            nouns = [token for token in tokens if token.pos_ in NOUN_POS]
            # Tokens with a gap: a blocked word stands within the chunk.
            if not nouns or tokens[-1].i - tokens[0].i + 1 != len(tokens):
                continue
            head = chunk.root if chunk.root in nouns else nouns[-1]
            start = head.i
            while start > tokens[0].i and self._is_compound(start - 1):
                start -= 1
            phrases.append(NounPhrase(tokens[0].i, head.i + 1, head, (start, head.i + 1)))
        phrase_of: dict[int, NounPhrase] = {}
        # Backwards, so that "people" is known where "a group" is read.
        for phrase in reversed(phrases):
            after = phrase_of.get(phrase.end + 1)
            if after is not None and self._is_of(phrase.end):
                # In "a view of a giraffe", the words "a view" stand for the giraffe.
                if phrase.head.lower_ in IMAGE_NOUNS:
                    phrase_of |= dict.fromkeys(range(phrase.start, phrase.end), after)
                    continue
                # "a group of people" is moved as a whole.
                phrase = NounPhrase(phrase.start, after.end, phrase.head, None)
            phrase_of |= dict.fromkeys(range(phrase.start, phrase.end), phrase)
        return phrase_of

    def _is_compound(self, place: int) -> bool:
        """Return whether a token belongs to the noun that comes after it."""
        token = self.doc[place]
        if token.text == "-" or self.doc[place + 1].text == "-":
            return True
        return token.dep_ == "compound" and token.pos_ in NOUN_POS and not _is_colour(token)

    def _is_of(self, place: int) -> bool:
        return (
            place < len(self.doc)
            and self.doc[place].lower_ == "of"
            and place not in self.compound_of
        )

    def relation_swaps(self) -> Iterator[Swap]:
        """Yield one swap for each pair of arguments of directed relations that can be swapped."""
        seen: set[tuple[int, int]] = set()
        for binder, subject, target in self._relations():
            if subject is None or target is None:
                continue
            first, second = sorted((subject, target), key=lambda phrase: phrase.start)
            # The phrases must not overlap, nor hold the words of the relation.
            apart = first.end <= second.start and not any(
                phrase.start <= place < phrase.end
                for phrase in (first, second)
                for place in range(*binder)
            )
            # A parse may take the noun after "riding on top of" for the object of "riding", too;
            # the two objects are swapped once.
            if not apart or (first.start, second.start) in seen:
                continue
            swap = self._swap(first, second, binder)
            if swap.allowed_pairs:
                seen.add((first.start, second.start))
                yield swap

    def _relations(self) -> Iterator[tuple[tuple[int, int], NounPhrase | None, NounPhrase | None]]:
        """Yield the range of tokens, the subject and the object of each directed relation.

        Subject and object are None if they are not found.
        """
        # Prepositions of several words first: of two relations that join the same objects,
        # `relation_swaps` takes the first.
        for span in self.compounds:
            target = self._first_phrase(span.end)
            binder = self._with_verb(span.start, span.end)
            # Those with other last words are mutual ("next to") or have no object ("on the left").
            if span[-1].lower_ in ("of", "from", "against") and not self._is_mutual(*binder):
                yield binder, self._subject(self.doc[span.start]), target
        for token in self.doc:
            if token.i in self.compound_of or token.i in self.view_words:
                continue
            if token.pos_ in ("ADP", "SCONJ") and token.dep_ in ("prep", "agent", "conj"):
                target = self._object(token, "pobj")
                binder = self._with_verb(token.i, token.i + 1)
                if self._is_directed(token) and not self._is_mutual(*binder):
                    yield binder, self._subject(token), target
            elif token.pos_ == "VERB" and token.lemma_ not in MUTUAL_VERBS | {"be"}:
                yield (token.i, token.i + 1), self._subject(token), self._object(token, "dobj")

    def _is_directed(self, preposition: Token) -> bool:
        """Return whether a preposition of one word states a relation that could be reversed."""
        # "a bowl full of lemons", but not "a bowl of lemons".
        if preposition.lower_ == "of":
            return preposition.head.lower_ in WORDS_WITH_DIRECTED_OF
        return preposition.lower_ not in UNSWAPPED_PREPOSITIONS

    def _is_mutual(self, start: int, end: int) -> bool:
        """Return whether a relation holds in both directions."""
        words = [token.lower_ for token in self.doc[start:end]]
        last = self.doc[end - 1]
        # "held by" is directed; "standing by" and "parked by" are not, even if spaCy takes what
        # follows for an agent.
        if last.lower_ == "by":
            verb = last.head
            return last.dep_ != "agent" or verb.tag_ == "VBG" or verb.lemma_ in POSTURE_VERBS
        # "filled with" is directed, "playing with" is not.
        if last.lower_ == "with":
            return last.head.tag_ != "VBN" and self.doc[end - 2].tag_ != "VBN"
        if last.lower_ == "to" and last.head.lemma_ in MUTUAL_VERBS_TO:
            return True
        if last.lower_ in MUTUAL_WORDS_AFTER_NOUN and last.head.pos_ in NOUN_POS:
            return True
        # The binder may begin with a verb: of "sitting next to", "next_to" is mutual.
        return any("_".join(words[at:]) in MUTUAL_PREPOSITIONS for at in range(len(words)))

    def _with_verb(self, start: int, end: int) -> tuple[int, int]:
        """Extend a preposition by the verb, adjective or adverb right before it, if any."""
        if start and self.doc[start - 1].pos_ in ("VERB", "ADJ", "ADV"):
            before = self.doc[start - 1]
            # An adjective within a noun phrase or another preposition belongs to that.
            if before.i not in self.compound_of and before.i not in self.phrase_of:
                return before.i, end
        return start, end

    def _object(self, token: Token, relation: str) -> NounPhrase | None:
        for child in token.children:
            if child.dep_ == relation and self._names_object(child):
                return self.phrase_of[child.i]
        return None

    def _first_phrase(self, start: int) -> NounPhrase | None:
        """Return the noun phrase that begins at token `start`, if it names an object."""
        phrase = self.phrase_of.get(start)
        if phrase is None or phrase.start != start or not self._names_object(phrase.head):
            return None
        return phrase

    def _subject(self, token: Token) -> NounPhrase | None:
        """Return the noun phrase that is the subject of a preposition or verb, found up the tree.

        The result is None if there is no such phrase or it names no object.
        """
        start, word = token, token
        for _ in range(len(self.doc)):
            if word.pos_ in ("VERB", "AUX") or word.dep_ in ("relcl", "acl"):
                subjects = [
                    child for child in word.children if child.dep_ in ("nsubj", "nsubjpass")
                ]
                if subjects and subjects[0].pos_ != "PRON":
                    return self._object_phrase(subjects[0])
                # "there is a dog on a mat": the predicate noun is what is on the mat.
                predicates = [child for child in word.children if child.dep_ == "attr"]
                if subjects == [] and predicates and predicates[0].i < start.i:
                    return self._object_phrase(predicates[0])
                # A pronoun names no object. That of a relative clause ("who") stands for the noun
                # that the clause hangs on, so the search goes on up.
                if subjects and word.dep_ != "relcl":
                    break
            # The root of the tree is its own head.
            if word.head == word:
                break
            word = word.head
            # A noun that `token` hangs on, as in "a cat on".
            if word.i < start.i and word.i in self.phrase_of and word.pos_ in NOUN_POS:
                return self._object_phrase(word)
        # Without a subject in the tree, the phrase right before the relation has to do.
        before = self.phrase_of.get(start.i - 1)
        return before if before and self._names_object(before.head) else None

    def _object_phrase(self, noun: Token) -> NounPhrase | None:
        if self._names_object(noun):
            return self.phrase_of[noun.i]
        # "a close up of a bowl" is about the first object after these words.
        view = noun.i in self.view_words or noun.lower_ in IMAGE_NOUNS
        after = min((i for i in self.phrase_of if i > noun.i), default=None) if view else None
        return None if after is None else self.phrase_of[after]

    def _names_object(self, noun: Token) -> bool:
        phrase = self.phrase_of.get(noun.i)
        if phrase is None or noun.pos_ not in NOUN_POS:
            return False
        head = phrase.head
        # "a man in black", "two tan and white dogs"; but "an orange" is an object.
        if _is_colour(head) and phrase.determiner in {"", *COUNT_WORDS}:
            return False
        # "a pair of dogs" names objects, though "pair" alone does not.
        partitive = phrase.noun is None
        return partitive or head.lower_ not in NON_OBJECT_NOUNS | PLACE_NOUNS

    def _swap(self, first: NounPhrase, second: NounPhrase, binder: tuple[int, int]) -> Swap:
        """Return the swap of two arguments, with `NO_OFFSETS` for parts that cannot be swapped."""
        nouns = phrases = (NO_OFFSETS, NO_OFFSETS)
        if first.noun and second.noun and self._can_swap_nouns(first, second):
            nouns = (self._character_offsets(*first.noun), self._character_offsets(*second.noun))
        if self._can_swap_phrases(first, second):
            phrases = (
                self._character_offsets(first.start, first.end),
                self._character_offsets(second.start, second.end),
            )
        return Swap(
            self._unless_same(nouns), self._unless_same(phrases), self._character_offsets(*binder)
        )

    def _can_swap_nouns(self, first: NounPhrase, second: NounPhrase) -> bool:
        """Return whether each noun can be moved and can follow the determiner of the other."""
        if first.noun is None or second.noun is None or first.is_plural != second.is_plural:
            return False
        if self._has_possessive(first) or self._has_possessive(second):
            return False
        # A plural can do without a determiner, a singular cannot: "a man holding fruit".
        return bool(first.determiner) == bool(second.determiner) or first.is_plural

    def _can_swap_phrases(self, first: NounPhrase, second: NounPhrase) -> bool:
        """Return whether two whole phrases can be swapped."""
        if self._has_possessive(first) or self._has_possessive(second):
            return False
        # "a group of people sit on a bench": the subject is singular in form, but not its verb.
        if _has_plural_verb(first) and not second.is_plural:
            return False
        # If one of them is a subject, the verb has to agree with the other one, too.
        governs = any(
            phrase.head.dep_ in ("nsubj", "nsubjpass", "attr") for phrase in (first, second)
        )
        return not governs or first.is_plural == second.is_plural

    def _has_possessive(self, phrase: NounPhrase) -> bool:
        """Return whether a phrase has a possessive."""
        # A swap would move it before its owner: "his dog walking a man".
        words = self.doc[phrase.start : phrase.end]
        return any(token.lower_ in POSSESSIVES or token.tag_ == "POS" for token in words)

    def _unless_same(self, ranges: tuple[Offsets, Offsets]) -> tuple[Offsets, Offsets]:
        first, second = (self.doc.text[slice(*bounds)].lower() for bounds in ranges)
        return (NO_OFFSETS, NO_OFFSETS) if first == second else ranges

    def _character_offsets(self, start: int, end: int) -> Offsets:
        last = self.doc[end - 1]
        return self.doc[start].idx, last.idx + len(last)

    def attribute_swaps(self) -> Iterator[Swap]:
        """Yield a swap for each pair of attributes that can be swapped; see `find_swaps`."""
        described = [
            (token, phrase)
            for token in self.doc
            if (phrase := self._described_phrase(token)) is not None
        ]
        for (first, of_first), (second, of_second) in combinations(described, 2):
            if of_first == of_second or not are_contradictory(first.lower_, second.lower_):
                continue
            # "a red dog near a blue dog" would say the same after the swap.
            if of_first.head.lower_ == of_second.head.lower_ and not self._differ(
                of_first, of_second, first, second
            ):
                continue
            # "two" counts no houses in "a two story house".
            if first.lower_ in COUNT_WORDS and not (of_first.is_plural and of_second.is_plural):
                continue
            places = (
                self._character_offsets(first.i, first.i + 1),
                self._character_offsets(second.i, second.i + 1),
            )
            yield Swap(places, places)

    def _differ(self, first: NounPhrase, second: NounPhrase, *left_out: Token) -> bool:
        """Return whether two phrases differ in other words than `left_out` and determiners."""
        texts = [
            [
                token.lower_
                for token in self.doc[phrase.start : phrase.end]
                if token not in left_out and token.lower_ not in DETERMINERS
            ]
            for phrase in (first, second)
        ]
        return texts[0] != texts[1]

    def _described_phrase(self, token: Token) -> NounPhrase | None:
        """Return the noun phrase that a token describes as an attribute; None if there is none."""
        # "red" of "red-haired" is no attribute of its own.
        if token.i in self.compound_of or self._is_hyphenated(token):
            return None
        # Any word before the head, whatever its part of speech; `are_contradictory` knows only
        # attributes.
        phrase = self.phrase_of.get(token.i)
        if phrase is not None and token.i < phrase.head.i:
            return phrase
        if token.dep_ == "acomp" and token.pos_ == "ADJ":
            return self._subject(token)
        return None

    def _is_hyphenated(self, token: Token) -> bool:
        around = self.doc[max(0, token.i - 1) : token.i + 2]
        return any(each.text == "-" for each in around)


def _has_plural_verb(phrase: NounPhrase) -> bool:
    """Return whether a quantity ("a group of people") is the subject of a plural verb."""
    if phrase.noun is not None or phrase.head.dep_ not in ("nsubj", "nsubjpass"):
        return False
    verb = phrase.head.head
    # Of "are waiting", the auxiliary agrees with the subject.
    finite = [verb, *(word for word in verb.children if word.dep_ in ("aux", "auxpass"))]
    return any(word.tag_ == "VBP" or word.lower_ == "were" for word in finite)


def _is_colour(token: Token) -> bool:
    # Every other colour contradicts black, and black does not contradict itself.
    return are_contradictory(token.lower_, "black") or token.lower_ == "black"

"""Write texts about a scene, and decide whether anybody could take a text for true.

A caption leaves out most attributes and often the relation, so that a bag of words does well on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Content, Rng, Scene, Thing
from data.recipes.synthetic_scenes.vocabulary import ADJECTIVES, KIND_OF, RELATIONS, VAGUE_RELATIONS

# Differences of position below this share of the image's side show nothing.
CLEAR = 0.02
# Things whose squares are closer than this may be in contact.
NEAR = 0.03
KINDS = tuple(ADJECTIVES)
PREFIXES = ("a photo of", "a picture of", "an image of", "there is", "this is", "we see")


@dataclass(frozen=True)
class Mention:
    """A noun phrase; the article None is "a" or "an" as the next word requires; "no" denies it."""

    noun: str
    attributes: tuple[str, ...] = ()
    article: str | None = None

    @cached_property
    def text(self) -> str:
        """The phrase, with its adjectives in their English order."""
        ordered = sorted(self.attributes, key=lambda word: KINDS.index(KIND_OF[word]))
        words = " ".join((*ordered, self.noun))
        return f"{self.article or ('an' if words[0] in 'aeiou' else 'a')} {words}"


@dataclass(frozen=True)
class Statement:
    """Noun phrases, with the words before, between and after them."""

    mentions: tuple[Mention, ...]
    pieces: tuple[str, ...]
    relation: str | None = None  # name of the first mention's relation to the second, if stated

    @cached_property
    def text(self) -> str:
        """The whole text."""
        pairs = zip(self.mentions, self.pieces[1:], strict=True)
        rest = (words for mention, piece in pairs for words in (mention.text, piece))
        return " ".join(filter(None, (self.pieces[0], *rest)))

    def changed(self, index: int, **changes: str | tuple[str, ...] | None) -> Statement:
        """Return the statement with fields of one noun phrase replaced."""
        one = replace(self.mentions[index], **changes)
        return replace(self, mentions=(*self.mentions[:index], one, *self.mentions[index + 1 :]))

    def with_piece(self, index: int, words: str) -> Statement:
        """Return the statement with the words before noun phrase `index` replaced."""
        return replace(self, pieces=(*self.pieces[:index], words, *self.pieces[index + 1 :]))

    def may_be_true(self, scene: Scene) -> bool:
        """Return whether anybody could take the statement for true of a scene."""
        things = {thing.noun: thing for thing in scene.content.things}
        for mention in self.mentions:
            thing = things.get(mention.noun)
            # What is denied has to be absent, and everything else present.
            if (thing is None) != (mention.article == "no"):
                return False
            if thing is not None and not all(may_have(thing, word) for word in mention.attributes):
                return False
        # A vague relation such as "near" is never false.
        if self.relation is None:
            return True
        subject, obj = (list(things).index(mention.noun) for mention in self.mentions[:2])
        return may_hold(scene, subject, self.relation, obj)


def stated(
    content: Content, attributes: Sequence[Sequence[str]] = ((), ()), article: str | None = None
) -> Statement:
    """State `subject is relation object` for the main pair, with these adjectives of each."""
    pairs = zip(content.things[:2], attributes, strict=False)
    mentions = tuple(Mention(thing.noun, tuple(words), article) for thing, words in pairs)
    return Statement(mentions, ("", f"is {content.relation}", ""), content.relation)


def _in_contact(a: Placement, b: Placement) -> bool:
    reach = (a.scale + b.scale) / 2 + NEAR
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach


def _supported(a: Placement, b: Placement) -> bool:
    return b.y - a.y > CLEAR and abs(a.x - b.x) < (a.scale + b.scale) / 2


_READINGS: Mapping[str, Callable[[Placement, Placement], bool]] = {
    "left of": lambda a, b: b.x - a.x > CLEAR,
    "right of": lambda a, b: a.x - b.x > CLEAR,
    "above": lambda a, b: b.y - a.y > CLEAR,
    "below": lambda a, b: a.y - b.y > CLEAR,
    "on": _supported,
    "under": lambda a, b: _supported(b, a),
    "riding": _supported,
    "in front of": lambda a, b: True,
    "behind": lambda a, b: True,
    "holding": _in_contact,
    "touching": _in_contact,
    "chasing": lambda a, b: a.motion != 0,
}


def may_hold(scene: Scene, subject: int, relation: str, obj: int) -> bool:
    """Return whether things `subject` and `obj` of a scene could be said to be in a relation."""
    main = scene.content.relation
    if {subject, obj} == {0, 1}:
        # The main relation holds in its order alone, and its inverse in the other one.
        if relation in (main, RELATIONS[main].inverse):
            return (relation == main) == (subject == 0)
        # Things in depth overlap: no position is certain to be false of them.
        if main in ("in front of", "behind") and not RELATIONS[relation].action:
            return True
    return _READINGS[relation](scene.placements[subject], scene.placements[obj])


def may_have(thing: Thing, attribute: str) -> bool:
    """Return whether an adjective could be said of a thing."""
    kind = KIND_OF[attribute]
    actual = getattr(thing, kind)
    # A thing of no notable size may be called small or large.
    return attribute == actual or (actual is None and kind == "size")


def false_attributes(thing: Thing, kind: str) -> list[str]:
    """Return the adjectives of a kind, such as "size", that are certainly false of a thing."""
    return [word for word in ADJECTIVES[kind] if not may_have(thing, word)]


@dataclass(frozen=True)
class CaptionStyle:
    """How much a caption tells; all fields are probabilities."""

    attribute: float  # each attribute of a named thing is stated
    second: float  # the second thing of the main pair is named
    relation: float  # the main relation is stated, given that both things are named
    vague: float = 0.4  # an unstated relation is worded "with", "near", ... rather than "and"
    extra: float = 0.3  # each further thing is named
    position: float = 0.3  # a named further thing gets a phrase that places it ("on the left")
    prefix: float = 0.2  # the caption opens with "a photo of", "there is", ...
    copula: float = 0.3  # a relation is worded "X is on Y" rather than "X on Y"


def position_phrase(place: Placement) -> str:
    """Return where a thing is in the image, or "" if it is not clearly on one side."""
    sides = {
        "on the left": 0.5 - place.x,
        "on the right": place.x - 0.5,
        "at the top": 0.5 - place.y,
        "at the bottom": place.y - 0.5,
    }
    words = max(sides, key=sides.__getitem__)
    return words if sides[words] > 0.2 else ""


def describe(scene: Scene, style: CaptionStyle, rng: Rng) -> Statement:
    """Write one caption of a scene in a style; its `relation` is None if its wording is vague."""
    things, name = scene.content.things, scene.content.relation
    pieces = [str(rng.choice(PREFIXES)) if rng.random() < style.prefix else ""]
    mentions: list[Mention] = []
    relation = None

    def mention(index: int) -> None:
        words = (word for word in things[index].attributes if rng.random() < style.attribute)
        mentions.append(Mention(things[index].noun, tuple(words)))

    # In any order, unless the relation is stated.
    order = [1, 0] if rng.random() < 0.5 else [0, 1]
    names_second, states_relation = rng.random() < style.second, rng.random() < style.relation
    if names_second and states_relation:
        order = [0, 1]
    mention(order[0])
    if names_second:
        piece = "and"
        if states_relation:
            relation = name
            piece = str(rng.choice(RELATIONS[name].wordings))
            piece = f"is {piece}" if rng.random() < style.copula else piece
        elif rng.random() < style.vague:
            piece = str(rng.choice(VAGUE_RELATIONS))
        pieces.append(piece)
        mention(order[1])
    last = ""
    for index in range(2, len(things)):
        if rng.random() < style.extra:
            pieces.append(f"{last} and".strip())
            mention(index)
            last = position_phrase(scene.placements[index])
            last = last if last and rng.random() < style.position else ""
    return Statement(tuple(mentions), (*pieces, last), relation)


def paraphrase(statement: Statement, rng: Rng) -> Statement:
    """Say the same in other words: by the inverse relation, another wording, or another opening."""
    kind = RELATIONS[statement.relation] if statement.relation else None
    if kind is None or (kind.inverse is None and len(kind.wordings) == 1):
        openings = [words for words in ("", *PREFIXES) if words != statement.pieces[0]]
        return statement.with_piece(0, str(rng.choice(openings)))
    copula = statement.pieces[1].startswith("is ")
    wording = statement.pieces[1].removeprefix("is ")
    # "b right of a" for "a left of b"
    if kind.inverse is not None:
        first, second, *rest = statement.mentions
        statement = replace(statement, mentions=(second, first, *rest), relation=kind.inverse)
        kind = RELATIONS[kind.inverse]
    words = str(rng.choice([words for words in kind.wordings if words != wording]))
    return statement.with_piece(1, f"is {words}" if copula else words)


def canonical(relation: str) -> tuple[str, bool]:
    """Return the name that a relation shares with its inverse, and whether it swaps arguments.

    "a right of b" shows what "b left of a" shows.
    """
    inverse = RELATIONS[relation].inverse
    if inverse is not None and inverse < relation:
        return inverse, True
    return relation, False


def true_spans(caption: Statement) -> list[Span]:
    """Return the character spans of those words of a caption that have a role."""
    roles = [OTHER] * len(caption.pieces[0].split())
    for index, mention in enumerate(caption.mentions):
        roles += [OTHER, *[ATTRIBUTE] * len(mention.attributes), OBJECT]
        piece = caption.pieces[index + 1]
        # The words between the main pair have a role, except for "is" and, in "to the left of", all
        # but "left".
        link = index == 0 and piece != "and"
        function_words = {"is"} | ({"to", "the", "of"} if "to the" in piece else set())
        roles += [RELATION if link and w not in function_words else OTHER for w in piece.split()]
    spans, start = [], 0
    for word, role in zip(caption.text.split(), roles, strict=True):
        if role != OTHER:
            spans.append(Span(start, start + len(word), role))
        start += len(word) + 1
    return spans

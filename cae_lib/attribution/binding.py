"""Attribute similarity to words by the drop in similarity when parts of a caption are swapped."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError
from cae_lib.words.alignment import CLIP_VOCABULARY, END_OF_WORD
from cae_lib.words.articles import indefinite_article
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION

Moved = Literal["noun", "phrase", "half"]


@dataclass(frozen=True)
class BindingAttribution(AttributionMethod):
    """Attribution to words that bind others, which is zero for any bag-of-words model.

    The method is not the paper's. The score of a relation word is `a_j = S(I, T) - S(I, T with its
    two arguments swapped)`. The score of an attribute word is the mean of `S(I, T) - S(I, T with it
    and an attribute of another object swapped)` over all such attributes. Scores are zero where S
    is a sum over words. Object words, and words without such a swap, have no score; see
    `Attribution.has_score`. Both similarities are computed with dropout disabled.

    The tagger determines which swaps there are if it knows them (`Alignment.swaps`, see
    `swapped_captions`). Without `swaps` they are read from the roles (see `exchanges`); this swaps
    mutual relations, too, and makes captions that are not grammatical.

    Attributes:
        samples: Largest number of swaps of a caption, which are drawn at random; None takes all.
        exchange: "bound", or "any" for a placebo that swaps two random words each time.
        swap: What a swap of the tagger moves: the "noun" alone, the whole noun "phrase" with its
            attributes, or each in "half" of the cases. Where one of the two is not grammatical, it
            is the other. It does not affect swaps that are read from roles.
    """

    scores_words: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False
    positive_parameters: ClassVar[tuple[str, ...]] = ("samples",)
    samples: int | None = None
    exchange: Literal["bound", "any"] = "bound"
    swap: Moved = "noun"

    def score(self, captions: Captions) -> Attribution:
        """Score relation and attribute words by the drop in similarity that their swaps cause.

        Args:
            captions: Captions with their words and roles, and swaps if the tagger knows of any.

        Raises:
            ConfigError: If the captions have no roles.
        """
        if captions.roles is None:
            raise ConfigError("binding needs roles: 1 object, 2 attribute, 3 relation.")
        tokens = captions.tokens
        if captions.swaps is not None:
            caption, inside, variants = swapped_captions(
                tokens,
                captions.word_numbers(tokens.shape[1]),
                captions.swaps,
                self.swap,
                self.samples,
                self.exchange,
                captions.requested,
                captions.encoder.vocabulary_size,
            )
            return captions.score_variants(variants, caption, inside)
        caption, inside, variants = exchanges(
            tokens,
            captions.word_numbers(tokens.shape[1]),
            captions.roles,
            captions.arguments,
            self.samples,
            self.exchange,
            captions.requested,
            captions.encoder.vocabulary_size,
        )
        return captions.score_variants(variants, caption, inside)


class Unit(NamedTuple):
    """Adjacent tokens `start` to `end` (exclusive) of one role, with their first and last word."""

    start: int
    end: int
    role: int
    first: int
    last: int


def swapped_captions(
    tokens: Tensor,
    words: Tensor,
    swaps: Tensor,
    moved: Moved = "noun",
    samples: int | None = None,
    kind: str = "bound",
    requested: Tensor | None = None,
    vocabulary: int | None = CLIP_VOCABULARY,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry out the swaps that a tagger found, and return the captions that they make.

    Args:
        tokens: Token ids `(B, C)`, see `Alignment`.
        words: Number of each token's word `(B, C)`, see `Alignment`.
        swaps: Swaps of each caption `(B, W, 5, 2)`, see `Alignment`.
        moved: What a swap moves, see `BindingAttribution.swap`.
        samples: Largest number of swaps of a caption, drawn at random; None takes all.
        kind: "bound", or "any" for equally many swaps of two random words, scored for the same
            words.
        requested: Bool `(B, C)`; swaps that no requested token binds are left out.
        vocabulary: Size of the vocabulary. In CLIP's, "a" and "an" are adapted to the word that
            comes after them.
        generator: Source of random numbers; None takes torch's own.

    Returns:
        The row of each swap's caption `(V,)`; the tokens of the words that bind, bool `(V, C)`; and
        the captions with two parts swapped `(V, C)`.
    """
    rows, binding, orders = [], [], []
    length = tokens.shape[1]
    requested_rows = None if requested is None else requested.tolist()
    ids, numbers = (tokens.tolist(), words.tolist()) if kind == "any" else ([], [])
    for row, row_swaps in enumerate(swaps.tolist()):
        candidates = []
        for places in filter(_is_swap, row_swaps):
            inside = _binding_tokens(places, length)
            if requested_rows is None or any(
                is_requested and binds
                for is_requested, binds in zip(requested_rows[row], inside, strict=True)
            ):
                candidates.append((places, inside))
        if samples is not None and len(candidates) > samples:
            drawn = torch.rand(len(candidates), generator=generator).argsort()[:samples].tolist()
            candidates = [candidates[number] for number in drawn]
        pairs: list[tuple[Unit, Unit]] = []
        if kind == "any" and candidates:
            single = _units(numbers[row], numbers[row])
            pairs = [pair for pair in combinations(single, 2) if _differ(ids[row], *pair)]
        for places, inside in candidates:
            if kind == "any":
                first, second = pairs[int(torch.rand((), generator=generator) * len(pairs))]
                bounds = (first.start, first.end), (second.start, second.end)
            else:
                bounds = _moved_parts(places, moved, generator)
            rows.append(row)
            binding.append(inside)
            orders.append(_order_after_swap(length, *sorted(bounds)))
    caption = torch.tensor(rows, dtype=torch.long, device=tokens.device)
    binders = torch.tensor(binding, dtype=torch.bool, device=tokens.device).view(-1, length)
    order = torch.tensor(orders, dtype=torch.long, device=tokens.device).view_as(binders)
    variants = tokens[caption].gather(1, order)
    if vocabulary == CLIP_VOCABULARY:
        variants = _with_articles(variants, order.roll(-1, dims=1) != order + 1, by_sound=True)
    return caption, binders, variants


def _is_swap(places: list[list[int]]) -> bool:
    """Return whether a row of `Alignment.swaps` is a swap; the other rows are padding."""
    return any(end > 0 for _, end in places)


def _binding_tokens(places: list[list[int]], length: int) -> list[bool]:
    """Return which tokens bind what a swap moves.

    They are the relation's tokens, or the two attributes themselves.
    """
    binders = [places[4]] if places[4][1] else places[:2]
    return [any(start <= token < end for start, end in binders) for token in range(length)]


def _moved_parts(
    places: list[list[int]], moved: Moved, generator: torch.Generator | None
) -> tuple[list[int], list[int]]:
    """Return the two parts that a swap moves, nouns or phrases.

    If one of the two cannot be moved, the other is returned.
    """
    nouns, phrases = places[:2], places[2:4]
    if moved == "half":
        takes_nouns = bool(torch.rand((), generator=generator) < 0.5)
    else:
        takes_nouns = moved == "noun"
    first, second = nouns if takes_nouns and nouns[0][1] or not phrases[0][1] else phrases
    return first, second


def exchanges(
    tokens: Tensor,
    words: Tensor,
    roles: Tensor,
    arguments: Tensor | None = None,
    samples: int | None = None,
    kind: str = "bound",
    requested: Tensor | None = None,
    vocabulary: int | None = CLIP_VOCABULARY,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make all swaps of two parts of a caption that should make false what a word says of them.

    A relation binds its subject and its object: those that `arguments` name, else the nearest
    object words before and after it. Two attributes are swapped if their bearers differ by
    `arguments`, or else if an object word is between them, because adjectives of one noun can
    change places. A part is an attribute word, or all adjacent words of another role ("fire
    hydrant", "sitting on"). A change that leaves the tokens as they are does not count as a swap.

    Args:
        tokens: Token ids `(B, C)`, see `Alignment`.
        words: Number of each token's word `(B, C)`, see `Alignment`.
        roles: Role of each token's word `(B, C)`, see `Alignment`.
        arguments: Words that a token's word is said of `(B, C, 2)`, see `Alignment`.
        samples: Largest number of swaps of a caption, drawn at random; None takes all.
        kind: "bound", or "any" for equally many swaps of two random words, scored for the same
            words.
        requested: Bool `(B, C)`; swaps of words without a requested token are left out.
        vocabulary: Size of the vocabulary. In CLIP's, "a" and "an" are adapted to the word that
            comes after them.
        generator: Source of random numbers; None takes torch's own.

    Returns:
        The row of each swap's caption `(V,)`; the tokens of the words that bind, bool `(V, C)`; and
        the captions with two parts swapped `(V, C)`.
    """
    rows = [words.tolist(), roles.tolist(), tokens.tolist()]
    rows.append([None] * len(tokens) if arguments is None else arguments.tolist())
    caption, binding, orders = [], [], []
    for row, (numbers, of_tokens, ids, said_of) in enumerate(zip(*rows, strict=True)):
        bound = [
            (binders, pair)
            for binders, pair in _bound(_units(numbers, of_tokens), said_of)
            if _differ(ids, *pair)
            and (
                requested is None
                or any(bool(requested[row, u.start : u.end].any()) for u in binders)
            )
        ]
        if samples is not None and len(bound) > samples:
            order = torch.rand(len(bound), generator=generator).argsort()
            bound = [bound[i] for i in order[:samples].tolist()]
        alone = _units(numbers, numbers) if kind == "any" else []
        others = [pair for pair in combinations(alone, 2) if _differ(ids, *pair)]
        for binders, pair in bound:
            if kind == "any":
                pair = others[int(torch.rand((), generator=generator) * len(others))]
            caption.append(row)
            binding.append([any(u.start <= i < u.end for u in binders) for i in range(len(ids))])
            first, second = sorted(pair)
            orders.append(
                _order_after_swap(len(ids), (first.start, first.end), (second.start, second.end))
            )
    at = torch.tensor(caption, dtype=torch.long, device=tokens.device)
    inside = torch.tensor(binding, dtype=torch.bool, device=tokens.device).view(-1, tokens.shape[1])
    order = torch.tensor(orders, dtype=torch.long, device=tokens.device).view_as(inside)
    variants = tokens[at].gather(1, order)
    if vocabulary == CLIP_VOCABULARY:
        variants = _with_articles(variants, order.roll(-1, dims=1) != order + 1)
    return at, inside, variants


def _units(words: list[int], roles: list[int]) -> list[Unit]:
    """Return the parts of a caption that have a role, in their order."""
    units, start = [], 0
    both = [*zip(words, roles, strict=True), (0, OTHER)]
    for place, ((word, role), after) in enumerate(pairwise(both)):
        if (word, role) != after if role == ATTRIBUTE else role != after[1]:
            if role != OTHER:
                units.append(Unit(start, place + 1, role, words[start], word))
            start = place + 1
    return units


def _bound(
    units: list[Unit], said_of: list[list[int]] | None
) -> Iterator[tuple[list[Unit], tuple[Unit, Unit]]]:
    """Yield the words that bind, and the two parts that are swapped, for every swap."""
    objects = [unit for unit in units if unit.role == OBJECT]

    def named(unit: Unit) -> list[Unit | None]:
        """Return the objects that a word is said of, None for those that are unknown."""
        words = said_of[unit.start] if said_of else (0, 0)
        return [next((o for o in objects if o.first <= word <= o.last), None) for word in words]

    for unit in units:
        if unit.role == RELATION:
            before = next((o for o in reversed(objects) if o.end <= unit.start), None)
            after = next((o for o in objects if o.start >= unit.end), None)
            subject, target = named(unit)
            subject, target = subject or before, target or after
            if subject and target and subject != target:
                yield [unit], (subject, target)
    for first, second in combinations([u for u in units if u.role == ATTRIBUTE], 2):
        bearers = named(first)[0], named(second)[0]
        between = any(first.end <= o.start and o.end <= second.start for o in objects)
        if between if None in bearers else bearers[0] != bearers[1]:
            yield [first, second], (first, second)


def _differ(ids: list[int], first: Unit, second: Unit) -> bool:
    return ids[first.start : first.end] != ids[second.start : second.end]


def _order_after_swap(length: int, first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return the original positions of a caption's tokens after two parts of it are swapped.

    Each part is given by its first token and end.
    """
    ends = (0, *first, *second, length)
    stretches = [range(*pair) for pair in pairwise(ends)]
    return [place for i in (0, 3, 2, 1, 4) for place in stretches[i]]


def _with_articles(variants: Tensor, other: Tensor, by_sound: bool = False) -> Tensor:
    """Adapt "a" and "an" to the token that comes after them, where a swap has changed that token.

    Args:
        variants: Texts of CLIP's tokens `(V, C)`.
        other: Bool `(V, C)`: whether another token than before follows.
        by_sound: Whether the sound decides ("an hour", "a uniform") instead of the first letter.
    """
    a, an, vowels = _articles(by_sound)
    following = vowels.to(variants.device)[variants.roll(-1, dims=1)]
    article = other & ((variants == a) | (variants == an))
    return torch.where(article, torch.where(following, an, a), variants)


@functools.cache
def _articles(by_sound: bool) -> tuple[int, int, Tensor]:
    """Return CLIP's tokens for "a" and "an", and which tokens require "an" before them `(V,)`."""
    tokenizer = SimpleTokenizer()
    texts = [
        tokenizer.decoder[i].removesuffix(END_OF_WORD) or "." for i in range(tokenizer.vocab_size)
    ]
    if by_sound:
        vowels = [indefinite_article(text) == "an" for text in texts]
    else:
        vowels = [text[0] in "aeiou" for text in texts]
    a, an = (tokenizer.encoder[f"{text}{END_OF_WORD}"] for text in ("a", "an"))
    return a, an, torch.tensor(vowels)

"""Attribute similarity to words by the drop in similarity when parts of a caption are swapped."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE, END_OF_WORD
from cae_lib.words.articles import indefinite_article
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION

SwapKind = Literal["noun", "phrase", "half"]


@dataclass(frozen=True)
class BindingAttribution(AttributionMethod):
    """Attribution to relation and attribute words by the drop in similarity after a swap.

    This method is not in the paper. The score of a relation word is `a_j = S(I, T) - S(I, T with
    the two arguments of the relation swapped)`, where S(I, T) is the cosine similarity of image I
    and caption T. An attribute word can be swapped with attributes of other objects; its score is
    `S(I, T) - S(I, T with both attributes swapped)`. If several swaps score a word, its score is
    the mean over them. All similarities are computed with dropout disabled.

    A bag-of-words model, whose S does not depend on the order of words, scores 0, except where a
    swap changes "a" to "an" or the reverse. Object words and words without a swap have no score;
    see `Attribution.has_score`.

    The swaps are those of `Captions.swaps`, which a tagger has found. If `Captions.swaps` is None,
    swaps are derived from the roles (see `swapped_captions`). Derived swaps include those of mutual
    relations such as "near", and some of them make a caption ungrammatical.

    Attributes:
        samples: Maximum number of swaps of a caption, drawn with torch's global generator; None
            uses all swaps.
        exchange: "bound" for the swaps above, or "any" for a placebo that scores the same words
            but swaps two random words in place of each of these swaps.
        swap: What a swap of the tagger moves: the "noun" alone, the whole noun "phrase" with its
            attributes, or either one with probability 0.5 ("half"). If the swap of one kind would
            be ungrammatical or change nothing, the other kind is swapped. The setting does not
            affect swaps that are derived from roles, nor the random swaps of `exchange="any"`.
    """

    scores_words: ClassVar[bool] = True
    scores_objects: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    positive_parameters: ClassVar[tuple[str, ...]] = ("samples",)
    samples: int | None = None
    exchange: Literal["bound", "any"] = "bound"
    swap: SwapKind = "noun"

    def score(self, captions: Captions) -> Attribution:
        """Score relation and attribute words by the drop in similarity that their swaps cause."""
        if captions.roles is None:
            raise ConfigError("binding needs roles: 1 object, 2 attribute, 3 relation.")
        swapped = swapped_captions(
            captions.tokens,
            captions.word_numbers(captions.tokens.shape[1]),
            captions.roles,
            captions.arguments,
            captions.swaps,
            swap_kind=self.swap,
            samples=self.samples,
            exchange=self.exchange,
            requested=captions.requested,
            vocabulary_size=captions.encoder.vocabulary_size,
        )
        return captions.score_by_variants(*swapped)


class RoleChunk(NamedTuple):
    """Adjacent tokens `[start, end)` of one role; each attribute word is a chunk of its own.

    `first_word` and `last_word` are the numbers of its words, from 1 in each caption.
    """

    start: int
    end: int
    role: int
    first_word: int
    last_word: int


class SwapCandidate(NamedTuple):
    """A possible swap of two parts of a caption; a part is its token positions `[start, end)`.

    Attributes:
        scored_parts: The parts whose words the swap scores: a relation, or both attributes.
        nouns: The two nouns or attributes to swap; None if they cannot be swapped alone.
        phrases: The two noun phrases to swap; None if they cannot be, or if roles suggest the swap.
    """

    scored_parts: Sequence[Sequence[int]]
    nouns: Sequence[Sequence[int]] | None
    phrases: Sequence[Sequence[int]] | None = None


def swapped_captions(
    tokens: Tensor,
    words: Tensor,
    roles: Tensor,
    arguments: Tensor | None = None,
    swaps: Tensor | None = None,
    *,
    swap_kind: SwapKind = "noun",
    samples: int | None = None,
    exchange: str = "bound",
    requested: Tensor | None = None,
    vocabulary_size: int | None = CLIP_VOCABULARY_SIZE,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return variants of captions in which two parts are swapped.

    With `swaps`, a tagger has found them, and each makes a relation or two attributes false. With
    None, they are derived from roles and `arguments`; see `_role_candidates`. `Alignment` describes
    the tensors, and `BindingAttribution` the settings. A swap is left out if it scores no token of
    `requested` `(B, C)`. Articles are adapted in CLIP's vocabulary alone.

    Returns:
        For each of V variants: the row of its caption `(V,)`, the tokens of this caption that the
        swap scores `(V, C)` bool, and the token ids of the variant `(V, C)`.
    """
    length = tokens.shape[1]
    rows, scored, orders = [], [], []
    # Read as lists at once, since each reading waits for a GPU.
    all_ids, all_words, all_roles = tokens.tolist(), words.tolist(), roles.tolist()
    all_arguments = None if arguments is None else arguments.tolist()
    all_swaps = None if swaps is None else swaps.tolist()
    requested_rows = None if requested is None else requested.tolist()
    for row, ids in enumerate(all_ids):
        if all_swaps is not None:
            candidates = _tagger_candidates(all_swaps[row])
        else:
            word_arguments = None if all_arguments is None else all_arguments[row]
            candidates = _role_candidates(
                _chunks(all_words[row], all_roles[row]), word_arguments, ids
            )
        if requested_rows is not None:
            candidates = [
                candidate
                for candidate in candidates
                if any(
                    any(requested_rows[row][slice(*bounds)]) for bounds in candidate.scored_parts
                )
            ]
        if samples is not None and len(candidates) > samples:
            # The first of a random order: a sample without replacement.
            drawn = torch.rand(len(candidates), generator=generator).argsort()[:samples].tolist()
            candidates = [candidates[number] for number in drawn]
        word_pairs: list[tuple[RoleChunk, RoleChunk]] = []
        if exchange == "any" and candidates:
            single_words = _single_words(all_words[row])
            # A caption that has a swap has two different words, so that there is a pair to draw.
            word_pairs = [pair for pair in combinations(single_words, 2) if _differ(ids, *pair)]
        for candidate in candidates:
            if exchange == "any":
                number = int(torch.rand((), generator=generator) * len(word_pairs))
                parts = [chunk[:2] for chunk in word_pairs[number]]
            else:
                # Swaps that are derived from roles know no phrases, and need no draw for "half".
                parts = _moved_parts(candidate, "noun" if swaps is None else swap_kind, generator)
            rows.append(row)
            scored.append(
                [
                    any(start <= i < end for start, end in candidate.scored_parts)
                    for i in range(length)
                ]
            )
            # The object of a relation may come before its subject: "a ball that a dog chases".
            orders.append(_order_after_swap(length, *sorted(parts, key=tuple)))
    caption_rows = torch.tensor(rows, dtype=torch.long, device=tokens.device)
    # (V, C); without any swap, the view turns the empty list into (0, C).
    scored_tokens = torch.tensor(scored, dtype=torch.bool, device=tokens.device).view(-1, length)
    order = torch.tensor(orders, dtype=torch.long, device=tokens.device).view_as(scored_tokens)
    variants = tokens[caption_rows].gather(1, order)
    if vocabulary_size == CLIP_VOCABULARY_SIZE:
        # True where another token than in the caption comes next
        has_new_follower = order.roll(-1, dims=1) != order + 1
        # By the letter where swaps are derived: the stored models of the paper's parser saw it so.
        variants = _with_articles(variants, has_new_follower, by_sound=swaps is not None)
    return caption_rows, scored_tokens, variants


def _tagger_candidates(swaps: list[list[list[int]]]) -> list[SwapCandidate]:
    """Return the swaps of one caption from its part of `Alignment.swaps`, without the padding."""
    candidates = []
    for first, second, first_phrase, second_phrase, binder in swaps:
        # A range that does not exist is (0, 0); no other range ends at 0.
        nouns = [first, second] if first[1] else None
        phrases = [first_phrase, second_phrase] if first_phrase[1] else None
        if nouns or phrases:
            # A swap of two attributes has no relation, and scores both of them.
            scored_parts = [binder] if binder[1] else [first, second]
            candidates.append(SwapCandidate(scored_parts, nouns, phrases))
    return candidates


def _moved_parts(
    candidate: SwapCandidate, swap: SwapKind, generator: torch.Generator | None
) -> Sequence[Sequence[int]]:
    """Return the two nouns or phrases to swap, as `swap` says, or those of the other kind."""
    if swap == "half":
        takes_nouns = bool(torch.rand((), generator=generator) < 0.5)
    else:
        takes_nouns = swap == "noun"
    if takes_nouns and candidate.nouns:
        return candidate.nouns
    parts = candidate.phrases or candidate.nouns
    assert parts is not None  # a candidate has at least one of them
    return parts


def _chunks(words: list[int], roles: list[int]) -> list[RoleChunk]:
    """Return the chunks of one caption in order, from the word number and role of each token."""
    chunks, start = [], 0
    # The last pair is a sentinel, which ends the last chunk.
    tokens = [*zip(words, roles, strict=True), (0, OTHER)]
    for position, ((word, role), following) in enumerate(pairwise(tokens)):
        # Nouns in a row are one object ("fire hydrant"); attributes in a row are swapped singly.
        is_end = (word, role) != following if role == ATTRIBUTE else role != following[1]
        if is_end:
            if role != OTHER:
                chunks.append(RoleChunk(start, position + 1, role, words[start], word))
            start = position + 1
    return chunks


def _single_words(words: list[int]) -> list[RoleChunk]:
    """Return a chunk for each word of one caption in order, of no role."""
    bounds = {number: (words.index(number), words.count(number)) for number in words if number}
    return [
        RoleChunk(start, start + n_tokens, OTHER, number, number)
        for number, (start, n_tokens) in bounds.items()
    ]


def _role_candidates(
    chunks: list[RoleChunk], word_arguments: list[list[int]] | None, ids: list[int]
) -> list[SwapCandidate]:
    """Return the swaps that roles and arguments suggest, and that change the tokens `ids`.

    A relation has its subject and object swapped: the words that the arguments name, or else the
    nearest objects before and after it. Two attributes are swapped if they describe different
    objects. Swaps of mutual relations such as "near" leave a caption true.
    """
    objects = [chunk for chunk in chunks if chunk.role == OBJECT]

    def arguments_of(chunk: RoleChunk) -> list[RoleChunk | None]:
        """Return the objects that `chunk` relates or describes, two entries; None if unknown."""
        words = word_arguments[chunk.start] if word_arguments else (0, 0)
        return [
            next((o for o in objects if o.first_word <= word <= o.last_word), None)
            for word in words
        ]

    swaps: list[tuple[list[RoleChunk], RoleChunk, RoleChunk]] = []
    for chunk in chunks:
        if chunk.role == RELATION:
            before = next((o for o in reversed(objects) if o.end <= chunk.start), None)
            after = next((o for o in objects if o.start >= chunk.end), None)
            subject, target = arguments_of(chunk)
            subject, target = subject or before, target or after
            if subject and target and subject != target:
                swaps.append(([chunk], subject, target))
    for first, second in combinations([u for u in chunks if u.role == ATTRIBUTE], 2):
        # Swapping two adjectives of one noun changes nothing. If an object is not known, an object
        # word between the two attributes shows that they describe different objects.
        bearers = arguments_of(first)[0], arguments_of(second)[0]
        if None in bearers:
            differ = any(first.end <= o.start and o.end <= second.start for o in objects)
        else:
            differ = bearers[0] != bearers[1]
        if differ:
            swaps.append(([first, second], first, second))
    return [
        SwapCandidate([chunk[:2] for chunk in scored], [first[:2], second[:2]])
        for scored, first, second in swaps
        if _differ(ids, first, second)
    ]


def _differ(ids: list[int], first: RoleChunk, second: RoleChunk) -> bool:
    return ids[first.start : first.end] != ids[second.start : second.end]


def _order_after_swap(
    length: int, first_place: Sequence[int], second_place: Sequence[int]
) -> list[int]:
    """Return the original position of each token after the swap of two places `[start, end)`."""
    ends = (0, *first_place, *second_place, length)
    stretches = [range(*pair) for pair in pairwise(ends)]
    # before, later part, between, earlier part, after
    swapped = (0, 3, 2, 1, 4)
    return [position for i in swapped for position in stretches[i]]


def _with_articles(variants: Tensor, has_new_follower: Tensor, by_sound: bool) -> Tensor:
    """Adapt "a" and "an" `(V, C)` where a swap has changed the token that comes after them.

    `by_sound` goes by the sound ("an hour", "a uniform") instead of the first letter.
    """
    a, an, vowels = _articles(by_sound)
    following = vowels.to(variants.device)[variants.roll(-1, dims=1)]
    article = has_new_follower & ((variants == a) | (variants == an))
    return torch.where(article, torch.where(following, an, a), variants)


@functools.cache
def _articles(by_sound: bool) -> tuple[int, int, Tensor]:
    """Return CLIP's ids of "a" and "an", and which tokens require "an" before them; cached."""
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

"""Align the character spans of captions with tokens, and tokens with words."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, get_clean_fn
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import atomic_file
from cae_lib.words.entities import plain_text
from cae_lib.words.roles import NO_OFFSETS, RELATION, ROLE_NAMES, Offsets, Span, Swap

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger

END_OF_WORD = "</w>"  # suffix of the last token of a word in CLIP's vocabulary
CACHE_VERSION = 5  # of the files that `token_roles` stores
MAX_CONTEXT = 2**15 - 1  # int16 holds it; a `model_max_length` above it means "no limit"
CLIP_VOCABULARY_SIZE = 49408  # number of tokens in CLIP's vocabulary; the last one ends a text
# The entity, quotes, capitals, underscore and line end show how a tokenizer cleans a caption.
PROBE_CAPTION = "A dog&#39;s \u201cred\u201d T-shirt_1\n"
WORD_PATTERN = SimpleTokenizer().pat  # pattern by which CLIP's tokenizer splits a text into words
# open_clip's wrappers of Hugging Face tokenizers
TOKENIZER_WRAPPERS = (
    HFTokenizer,
    SigLipTokenizer,
)
LETTERS = re.compile(r"[^\W\d_]+")  # a word of a caption, as far as capitals matter
# Words of so many letters are capitalised in Title Case; shorter ones, such as "on", may not be.
SHORTEST_LONG_WORD = 4


@dataclass(frozen=True)
class Alignment:
    """Tokens of n captions, each with its word and the word's role.

    Words count from 1 in each caption. Start, end and padding tokens have word and role 0.

    Attributes:
        tokens: Token ids, int64 `(n, context_length)`.
        roles: Role of each token's word, int8 `(n, context_length)`: 0 other, 1 object, 2
            attribute, 3 relation.
        n_truncated: Number of captions that were too long for the context.
        n_unmatched: Number of spans without a token: their words were not found in the caption, or
            cleaning or truncation removed them.
        n_spans: Number of all spans.
        words: Word number of each token, int64 `(n, context_length)`.
        arguments: Numbers of the words that each token's word relates or describes, int16
            `(n, context_length, 2)`: subject and object of a relation; the object of an attribute,
            then 0. Of several words, the first counts. An argument without a token is 0. None for
            placebos (`placebo_roles`).
        swaps: Up to W swaps of each caption, int16 `(n, W, 5, 2)`. A swap is five ranges of tokens
            (first, after last): the two nouns, the two phrases and the binder of a `Swap`. What
            does not exist is 0. None without a tagger that finds swaps, and for placebos.
    """

    tokens: Tensor
    roles: Tensor
    n_truncated: int
    n_unmatched: int
    n_spans: int
    words: Tensor
    arguments: Tensor | None = None
    swaps: Tensor | None = None

    def take(self, rows: Tensor) -> Alignment:
        """Return the alignment of captions `rows` `(M,)`; counts remain those of all captions."""
        tensors = {name: v[rows] for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def token_roles(
    captions: Sequence[str],
    tokenizer: Any,
    tagger: Tagger | str | None = None,
    cache_dir: str | Path | None = None,
    context_length: int | None = None,
) -> Alignment:
    """Find the roles of the words in captions and align them with tokens; see `align`.

    A stored result in `cache_dir` is used if it was computed from the same captions, with a tagger
    of the same identity, and with a tokenizer of the same vocabulary, cleaning and context length.

    The taggers replace HTML entities before they parse a caption, as tokenizers of open_clip do.
    They read capitals, which most tokenizers ignore: a warning is issued if more than half of the
    captions are in Title Case or capitals. Swaps that contradict the roles are left out.

    Args:
        captions: The captions.
        tokenizer: A tokenizer that `align` accepts.
        tagger: The tagger that finds the words, or its name: "scene-graph" (the default) is the
            paper's parser, and "dependency" is ours, which also finds swaps.
        cache_dir: Folder of stored results. If None, nothing is stored.
        context_length: Number of tokens that captions are padded or cut to. If None, the context
            length of the tokenizer is used.

    Raises:
        ConfigError: If `align` does not accept the tokenizer or the context length, if the name of
            the tagger is unknown, or if no English spaCy model is installed.
        DataError: If the captions are not a list of texts, if the tagger does not accept one of the
            captions, or if the stored result is damaged.
        WriteError: If the result cannot be stored.
    """
    check_captions(captions)
    warn_of_title_case(captions)
    if tagger is None or isinstance(tagger, str):
        tagger = named_tagger(tagger or "scene-graph")
    if cache_dir is None:
        return _tag_and_align(captions, tagger, tokenizer, context_length)
    path = Path(cache_dir) / f"roles-{_key(captions, tagger, tokenizer, context_length)}.pt"
    if path.exists():
        try:
            stored = torch.load(path, weights_only=True)
            return Alignment(**stored | {name: stored[name].long() for name in ("tokens", "words")})
        # torch.load raises many types on a damaged file.
        except Exception as error:
            raise DataError(
                f"{path}: damaged cache of word roles ({error}). Delete the file and run again."
            ) from error
    alignment = _tag_and_align(captions, tagger, tokenizer, context_length)
    # Stored in fewer bytes than the int64 that models and indexing take.
    compact = {"tokens": alignment.tokens.int(), "words": alignment.words.short()}
    with atomic_file(path) as partial:
        torch.save({**vars(alignment), **compact}, partial)
    return alignment


def _tag_and_align(
    captions: Sequence[str], tagger: Tagger, tokenizer: Any, context_length: int | None
) -> Alignment:
    """Find spans, and swaps if the tagger is a `SwapTagger`, and align them with tokens."""
    # Imported here, because `align` with spans of one's own does not need spaCy.
    from cae_lib.words.pipeline import SwapTagger

    if not isinstance(tagger, SwapTagger):
        return align(captions, tagger.tag(captions), tokenizer, context_length)
    tagged = tagger.tag_with_swaps(captions)
    spans, swaps = [spans for spans, _ in tagged], [swaps for _, swaps in tagged]
    alignment = align(captions, spans, tokenizer, context_length, swaps)
    assert alignment.swaps is not None
    # `CAELoss` refuses misplaced swaps. None of 47,000 swaps in captions of COCO and Flickr8k is
    # one, but a caption may hold the text of an end token, behind which the tagger reads on.
    # In blocks of 10,000 captions, which bounds the memory of the check.
    tables = (table.split(10_000) for table in (alignment.swaps, alignment.words, alignment.roles))
    for swap_rows, words, roles in zip(*tables, strict=True):
        # `split` returns views, so this changes the alignment itself.
        swap_rows[misplaced_swaps(swap_rows, words > 0, roles)] = 0
    return alignment


def named_tagger(name: str) -> Tagger:
    """Return a new tagger: "scene-graph" (the paper's parser) or "dependency" (ours)."""
    # Each parser is imported only if it is used.
    if name == "scene-graph":
        from cae_lib.words.scene_graph import SceneGraphTagger

        return SceneGraphTagger()
    if name == "dependency":
        from cae_lib.words.dependency import DependencyTagger

        return DependencyTagger()
    raise ConfigError(f"unknown tagger {name!r}: expected 'scene-graph' or 'dependency'")


def align(
    captions: Sequence[str],
    spans: Sequence[Sequence[Span]],
    tokenizer: Any,
    context_length: int | None = None,
    swaps: Sequence[Sequence[Swap]] | None = None,
) -> Alignment:
    """Find the word that each token belongs to, and the role of the span that the token lies in.

    The tokens of each caption are those that a call of the tokenizer returns. Tokenizers of
    open_clip clean a caption (mojibake, HTML entities, white space), but spans refer to the caption
    as given. If spans share a token, the first span in the list determines the role and the
    arguments of the token.

    With CLIP's vocabulary, `word_numbers` finds the words. For other tokenizers, words are defined
    as in CLIP's: runs of letters, single digits, endings such as "'s", and runs of other
    characters. A token then belongs to the word in which its first non-space character lies.

    Args:
        captions: The captions.
        spans: Spans of each caption.
        tokenizer: Either open_clip's `SimpleTokenizer` without a reduction mask, or a fast Hugging
            Face tokenizer that has a padding token. The Hugging Face tokenizer may be passed alone
            or wrapped in open_clip's `HFTokenizer` or `SigLipTokenizer`.
        context_length: Number of tokens that captions are padded or cut to, 3 to `MAX_CONTEXT`. If
            None, the context length of the tokenizer is used.
        swaps: Swaps of each caption, to be converted to positions of tokens. A swap is left out if
            cleaning removes one of its parts or truncation cuts one. None if no swaps are known.

    Raises:
        ConfigError: If the tokenizer is of another kind, or if the context length is out of range.
        DataError: If captions or spans are not lists of the expected form, or if there is not
            exactly one list of spans, and of swaps if any, for each caption.
    """
    length = _checked(tokenizer, context_length)
    check_captions(captions)
    _check_spans(spans, len(captions))
    if swaps is not None and len(swaps) != len(captions):
        raise DataError(
            f"{len(swaps)} lists of swaps for {len(captions)} captions: expected one for each"
        )
    tokens = torch.zeros(len(captions), length, dtype=torch.long)
    roles, words = torch.zeros_like(tokens, dtype=torch.int8), torch.zeros_like(tokens)
    arguments = tokens.new_zeros(*tokens.shape, 2, dtype=torch.int16)
    has_clip_vocabulary = _vocabulary_size(tokenizer) == CLIP_VOCABULARY_SIZE
    token_swaps: list[list[list[Offsets]]] = []
    n_truncated = n_unmatched = 0
    for i, (caption, caption_spans) in enumerate(zip(captions, spans, strict=True)):
        cleaned, row, is_cut = _encode(caption, tokenizer, length)
        n_truncated += is_cut
        tokens[i, : len(row)] = torch.tensor([piece.token for piece in row])
        # CLIP's words follow from the tokens alone, as in a loss that is given no word numbers.
        if has_clip_vocabulary:
            words[i] = word_numbers(tokens[i : i + 1], CLIP_VOCABULARY_SIZE)[0]
        else:
            words[i, : len(row)] = torch.tensor(_words(row, cleaned))
        numbers = words[i].tolist()
        # Backwards, so that the first of the spans that share a token is written last and stays.
        for span in reversed(_carry_over(caption_spans, caption, cleaned)):
            # Without the tokens behind an end token that the caption's text holds: they have no
            # word, because a model reads nothing behind its first end token.
            inside = [n for n in _overlapping_tokens(row, span.start, span.end) if numbers[n]]
            n_unmatched += not inside
            roles[i, inside] = span.role
            # A later span of the list may have left its arguments here.
            arguments[i, inside] = 0
            for k, bounds in enumerate(span.arguments[:2]):
                bearer = _overlapping_tokens(row, *bounds)
                arguments[i, inside, k] = numbers[bearer[0]] if bearer else 0
        if swaps is not None:
            token_swaps.append(_align_swaps(swaps[i], caption, cleaned, row))
    n_spans = sum(map(len, spans))
    table = None if swaps is None else _swap_table(token_swaps)
    return Alignment(tokens, roles, n_truncated, n_unmatched, n_spans, words, arguments, table)


def _align_swaps(
    swaps: Sequence[Swap], caption: str, cleaned: str, row: list[TokenSpan]
) -> list[list[Offsets]]:
    """Convert the five character ranges of each swap to ranges of tokens.

    A swap is left out if cleaning has removed one of its parts or truncation has cut one.
    """
    aligned = []
    for swap in swaps:
        # 2 nouns, 2 phrases, 1 binder
        places = [*swap.nouns, *swap.phrases, swap.binder]
        spans = _carry_over([Span(*bounds, role=0) for bounds in places], caption, cleaned)
        tokens = [_overlapping_tokens(row, span.start, span.end) for span in spans]
        # A part that the tagger left out may lack; of every other, the last token must be there.
        is_complete = all(
            inside and row[inside[-1]].end >= span.end or bounds == NO_OFFSETS
            for inside, span, bounds in zip(tokens, spans, places, strict=True)
        )
        if is_complete:
            aligned.append([(inside[0], inside[-1] + 1) if inside else (0, 0) for inside in tokens])
    return aligned


def _swap_table(swaps: Sequence[Sequence[Sequence[Offsets]]]) -> Tensor:
    """Return the swaps of n captions as one tensor `(n, W, 5, 2)`, padded with 0 to W swaps."""
    table = torch.zeros(len(swaps), max(map(len, swaps), default=0), 5, 2, dtype=torch.int16)
    for row, places in enumerate(swaps):
        if places:
            table[row, : len(places)] = torch.tensor(places, dtype=torch.int16)
    return table


def misplaced_swaps(swaps: Tensor, is_word: Tensor, roles: Tensor | None = None) -> Tensor:
    """Return which swaps cannot be those of their captions, bool `(B, W)`.

    Each range has to begin and end with a word, both nouns (and both phrases) exist in order or
    neither, and a binder holds a relation word, if `roles` are given.

    Args:
        swaps: Up to W swaps of each of B captions `(B, W, 5, 2)`; see `Alignment`.
        is_word: Bool `(B, T)`, the tokens that belong to a word.
        roles: Role of each token's word `(B, T)`.
    """
    length = is_word.shape[1]
    is_outside = (swaps < 0) | (swaps > length)
    # (B, W, 5) each, clamped, because `gather` does not accept the positions out of range.
    starts, ends = swaps.long().clamp(0, length).unbind(-1)

    # (B, T) and (B, W, 5) -> (B, W, 5)
    def at(values: Tensor, positions: Tensor) -> Tensor:
        return values.gather(1, positions.flatten(1)).view_as(positions)

    exists = (starts > 0) | (ends > 0)
    last = (ends - 1).clamp(min=0)
    # Only the ends: white space within a phrase may have a token without a word.
    holds_words = (starts < ends) & at(is_word, starts.clamp(max=length - 1)) & at(is_word, last)
    is_wrong = is_outside.any(-1) | exists & ~holds_words
    # Of (noun, noun, phrase, phrase, binder): the first noun and phrase, and the second ones.
    earlier, later = slice(0, 4, 2), slice(1, 4, 2)
    overlaps = exists[..., earlier] & (ends[..., earlier] > starts[..., later])
    # (B, W, 5) -> (B, W)
    is_wrong = is_wrong.any(-1) | (overlaps | (exists[..., earlier] != exists[..., later])).any(-1)
    if roles is None:
        return is_wrong
    # The number of relation tokens before each position, (B, T + 1). Only the binder's role is
    # checked: the dependency tagger finds the attributes of swaps and of roles by different rules.
    before = F.pad((roles == RELATION).long().cumsum(1), (1, 0))
    n_relation = at(before, ends[..., 4]) - at(before, starts[..., 4])
    return is_wrong | exists[..., 4] & (n_relation == 0)


def word_numbers(tokens: Tensor, vocabulary_size: int) -> Tensor:
    """Return the number of the word that each token of CLIP's tokenizer belongs to, int64 `(B, T)`.

    Words count from 1 in each caption. Start, end and padding tokens have 0, and so have all tokens
    of a caption without an end-of-text token. Another vocabulary is a ConfigError.
    """
    if vocabulary_size != CLIP_VOCABULARY_SIZE:
        raise ConfigError(
            f"the model has {vocabulary_size} tokens, CLIP's tokenizer {CLIP_VOCABULARY_SIZE}: "
            "pass words (B, T), the number of the word each token belongs to, and 0 for no word."
        )
    ends = _ends_word(tokens.device)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    # The first end token, as in CLIP's readout, (B,); 0 if there is none. There is no argmax of
    # booleans.
    eot = (tokens == vocabulary_size - 1).int().argmax(dim=-1)
    # (B, T)
    inside = (position > 0) & (position < eot[:, None])
    # The clamp only avoids an index out of range; `check_annotations` refuses such ids.
    closed = ends[tokens.clamp(0, vocabulary_size - 1)] & inside
    # Words that end before this token. A word that truncation cut has no end and gets a number too.
    before = closed.cumsum(dim=1) - closed.long()
    return (before + 1) * inside


@functools.cache
def _ends_word(device: torch.device) -> Tensor:
    """Return which tokens of CLIP's vocabulary are the last of a word, bool `(V,)`."""
    # Cached, so that a training step neither builds it nor copies it to the device.
    tokenizer = SimpleTokenizer()
    marks = [tokenizer.decoder[i].endswith(END_OF_WORD) for i in range(tokenizer.vocab_size)]
    return torch.tensor(marks, device=device)


def check_captions(captions: Sequence[str]) -> None:
    """Check that captions are a list of texts, or another sequence of them."""
    # Not `isinstance(captions, Sequence)`, which arrays of NumPy and series of pandas are not.
    is_ordered = hasattr(captions, "__len__") and hasattr(captions, "__getitem__")
    # A single text would be read as a list of one-letter captions.
    if isinstance(captions, str | bytes | Mapping) or not is_ordered:
        raise DataError(
            f"captions are {captions!r:.40}, a {type(captions).__name__}: expected a list of "
            "texts, such as [caption] for one caption."
        )
    for number, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise DataError(
                f"caption {number} is {caption!r}, a {type(caption).__name__}: expected a text."
            )


def has_title_case(caption: str) -> bool:
    """Return whether a caption is in Title Case or capitals, rather than a sentence with names."""
    # Without the first word, which any sentence capitalises, and without "A" and "I".
    words = [word for word in LETTERS.findall(caption)[1:] if len(word) > 1]
    n_capital = sum(word[0].isupper() for word in words)
    n_small = sum(not word[0].isupper() and len(word) >= SHORTEST_LONG_WORD for word in words)
    # One capital may be a name, as in "Two Dachshunds".
    return n_capital >= 2 and n_capital > n_small


def warn_of_title_case(captions: Sequence[str]) -> None:
    """Warn once if more than half of the captions are in Title Case or capitals."""
    count = sum(map(has_title_case, captions))
    if 2 * count > len(captions):
        warnings.warn(
            f"{count:,} of {len(captions):,} captions are in Title Case or capitals. Roles depend "
            "on capitals, because a parser reads capitalised words as names; tokens do not. Lower "
            "them first, for example [caption.lower() for caption in captions].",
            # The warning names the line that called `token_roles`.
            stacklevel=3,
        )


def _check_spans(spans: Sequence[Sequence[Span]], count: int) -> None:
    """Check that there is a list of spans with roles 0 to 3 for each of `count` captions."""
    if len(spans) != count:
        raise DataError(f"{count} captions with {len(spans)} lists of spans.")
    for number, caption_spans in enumerate(spans):
        # A span alone, without a list around it, is the likely mistake and is named in the message.
        is_list = isinstance(caption_spans, Sequence) and not isinstance(caption_spans, str)
        for span in caption_spans if is_list else [caption_spans]:
            if not is_list or not isinstance(span, Span):
                raise DataError(
                    f"the spans of caption {number} hold {span!r}: expected a list of "
                    "Span(start, end, role) for each caption, an empty one for none."
                )
            if span.role not in range(len(ROLE_NAMES)):
                raise DataError(
                    f"caption {number} has {span!r}: expected role 0 other, 1 object, 2 attribute "
                    "or 3 relation."
                )


class TokenSpan(NamedTuple):
    """A token id and the range of characters of the cleaned caption, without white space around it.

    `end` is `start` or less for a token without characters, such as a special token.
    """

    token: int
    start: int
    end: int


def tokenize_with_offsets(cleaned_caption: str, tokenizer: SimpleTokenizer) -> list[TokenSpan]:
    """Tokenize a cleaned caption as the tokenizer's `encode` does, with character offsets.

    Start and end tokens are not added.
    """
    result = []
    for match in tokenizer.pat.finditer(cleaned_caption):
        word = match.group()
        # CLIP's BPE joins bytes, each written as one character. `owners` holds the place in the
        # caption of each byte's character; a character of several bytes may belong to two tokens.
        owners = [i for i, c in enumerate(word, match.start()) for _ in c.encode()]
        encoded = "".join(tokenizer.byte_encoder[byte] for byte in word.encode())
        first = 0
        for piece in tokenizer.bpe(encoded).split(" "):
            length = len(piece.removesuffix(END_OF_WORD))
            last = owners[min(first + length, len(owners)) - 1]
            result.append(TokenSpan(tokenizer.encoder[piece], owners[first], last + 1))
            first += length
    return result


def _key(captions: Sequence[str], tagger: Tagger, tokenizer: Any, length: int | None) -> str:
    # The probe's tokens show how the tokenizer cleans and pads, and its context length.
    probe = align([PROBE_CAPTION], [[]], tokenizer, length).tokens.tolist()
    if isinstance(tokenizer, SimpleTokenizer):
        vocabulary = "\n".join(tokenizer.encoder)
    else:
        # The text holds the padding and truncation of the last call, which was the probe: earlier
        # calls of the tokenizer do not change the key.
        vocabulary = unwrap_tokenizer(tokenizer).backend_tokenizer.to_str()
    vocabulary = hashlib.sha256(vocabulary.encode()).hexdigest()
    text = json.dumps([[CACHE_VERSION, tagger.identity, vocabulary, probe], list(captions)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unwrap_tokenizer(tokenizer: Any) -> Any:
    """Return the Hugging Face tokenizer in a wrapper of open_clip; any other tokenizer itself."""
    return tokenizer.tokenizer if isinstance(tokenizer, TOKENIZER_WRAPPERS) else tokenizer


def _checked(tokenizer: Any, context_length: int | None) -> int:
    """Check that `_encode` supports the tokenizer, and return the context length."""
    if isinstance(tokenizer, SimpleTokenizer):
        # A reduction mask drops tokens from within a long caption, which no offsets describe.
        readable = tokenizer.reduction_fn is None
    else:
        # Only fast tokenizers return offsets, which say which characters a token covers.
        fast = unwrap_tokenizer(tokenizer)
        readable = getattr(fast, "is_fast", False) and fast.pad_token_id is not None
    if not readable:
        raise ConfigError(
            f"tokenizer is {type(tokenizer).__name__}; expected open_clip's SimpleTokenizer "
            "without a reduction mask, or a fast Hugging Face tokenizer with a padding token, "
            "alone or in open_clip's HFTokenizer or SigLipTokenizer. With any other, pass `roles` "
            "and `words` tensors of your own to the loss."
        )
    default = getattr(tokenizer, "context_length", getattr(tokenizer, "model_max_length", None))
    length = default if context_length is None else context_length
    # 3: a start token, one token of text, and an end token.
    if length is None or not 3 <= length <= MAX_CONTEXT:
        raise ConfigError(
            f"context length is {length}; expected 3 to {MAX_CONTEXT}: pass "
            "context_length, the number of tokens that the model takes."
        )
    return length


def _encode(caption: str, tokenizer: Any, length: int) -> tuple[str, list[TokenSpan], bool]:
    """Return the cleaned caption, its row of tokens, and whether it was too long for the context.

    The row has at most `length` tokens, special tokens included.
    """
    if isinstance(tokenizer, SimpleTokenizer):
        cleaned = tokenizer.clean_fn(caption)
        row = tokenize_with_offsets(cleaned, tokenizer)
        first, last = (
            TokenSpan(tokenizer.sot_token_id, 0, 0),
            TokenSpan(tokenizer.eot_token_id, 0, 0),
        )
        return cleaned, [first, *row[: length - 2], last], len(row) > length - 2
    wrapped = isinstance(tokenizer, TOKENIZER_WRAPPERS)
    # `SigLipTokenizer` canonicalises without an attribute that says so; a Hugging Face tokenizer
    # alone reads the caption as given.
    clean = getattr(tokenizer, "clean_fn", get_clean_fn("canonicalize")) if wrapped else str
    cleaned = clean(caption)
    read = unwrap_tokenizer(tokenizer)(
        cleaned, max_length=length, padding="max_length", truncation=True
    )
    (encoding,) = read.encodings
    # The ids of the wrapper itself, which may add special tokens of its own (`tokenizer_mode`
    # "clips") or take some away (`strip_sep_token`); the offsets of the tokenizer within it.
    ids = tokenizer([caption], length)[0].tolist() if wrapped else encoding.ids
    row, is_cut = [], bool(encoding.overflowing)
    for token, fast_token, (start, end) in zip(ids, encoding.ids, encoding.offsets, strict=True):
        # The wrapper put a special token here, which has no characters.
        is_replaced = token != fast_token
        text = "" if is_replaced else cleaned[start:end]
        # A token may hold the space before its word. Of white space alone, `end` is below `start`.
        row.append(TokenSpan(token, end - len(text.lstrip()), start + len(text.rstrip())))
        # A special token in the place of a token of the text has cut the text, too.
        is_cut = is_cut or is_replaced and start < end
    return cleaned, row, is_cut


def _vocabulary_size(tokenizer: Any) -> int:
    simple = isinstance(tokenizer, SimpleTokenizer)
    return tokenizer.vocab_size if simple else len(unwrap_tokenizer(tokenizer))


def _words(row: list[TokenSpan], cleaned: str) -> list[int]:
    """Return the word number of each token in `row`; words without a token are not counted."""
    owners = [0] * len(cleaned)
    for number, match in enumerate(WORD_PATTERN.finditer(cleaned), start=1):
        owners[slice(*match.span())] = [number] * len(match.group())
    # Numbered anew from 1, because the tokenizer may have cut or dropped words.
    counted = {0: 0}
    first = (owners[piece.start] if piece.start < piece.end else 0 for piece in row)
    return [counted.setdefault(word, len(counted)) for word in first]


def _overlapping_tokens(row: list[TokenSpan], start: int, end: int) -> list[int]:
    """Return the indices of the tokens that share a character with the range `start` to `end`."""
    return [i for i, p in enumerate(row) if max(p.start, start) < min(p.end, end)]


def _carry_over(spans: Sequence[Span], caption: str, cleaned: str) -> list[Span]:
    """Convert spans and their arguments to offsets in the cleaned caption; (0, 0) if removed."""
    # Letter by letter, because lower case may have more letters ("İ" gives two).
    caption_letters, cleaned_letters = [c.lower() for c in caption], [c.lower() for c in cleaned]
    # The usual case: cleaning has changed nothing but capitals.
    if not spans or caption_letters == cleaned_letters:
        return list(spans)
    # Without entities and white space, only mojibake and removed punctuation are left to match: a
    # match could otherwise take the letters of "&amp;" for those of a word.
    plain = plain_text(caption)
    kept, cleaned_kept = _non_spaces(plain.text), _non_spaces(cleaned)
    # `autojunk` would ignore the frequent letters of captions of 200 letters or more.
    matcher = SequenceMatcher(
        None,
        [plain.text[i].lower() for i in kept],
        [cleaned_letters[i] for i in cleaned_kept],
        autojunk=False,
    )
    blocks = matcher.get_matching_blocks()
    # From offsets in the plain text to offsets in the cleaned caption.
    places = {
        kept[block.a + i]: cleaned_kept[block.b + i] for block in blocks for i in range(block.size)
    }

    def moved(start: int, end: int) -> tuple[int, int]:
        new = [places[i] for i in range(*plain.in_text((start, end))) if i in places]
        return (new[0], new[-1] + 1) if new else (0, 0)

    return [
        Span(*moved(s.start, s.end), s.role, tuple(moved(*bounds) for bounds in s.arguments))
        for s in spans
    ]


def _non_spaces(text: str) -> list[int]:
    return [i for i, character in enumerate(text) if not character.isspace()]

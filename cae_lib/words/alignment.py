"""Align the character spans of captions with tokens, and tokens with words."""

from __future__ import annotations

import functools
import hashlib
import json
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
from cae_lib.words.capitals import warn_of_title_case
from cae_lib.words.entities import plain_text
from cae_lib.words.roles import NO_OFFSETS, RELATION, ROLE_NAMES, Offsets, Span, Swap

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger

END_OF_WORD = "</w>"  # suffix of the last token of a word in CLIP's vocabulary
CACHE_VERSION = 5  # of the files that `token_roles` stores
MAX_CONTEXT = 2**15 - 1  # int16 holds it; a `model_max_length` above it means "no limit"
CLIP_VOCABULARY_SIZE = 49408  # number of tokens in CLIP's vocabulary; the last one ends a text
PROBE_CAPTION = (
    "A dog&#39;s \u201cred\u201d T-shirt_1\n"  # a caption that reveals how a tokenizer cleans
)
WORD_PATTERN = SimpleTokenizer().pat  # pattern by which CLIP's tokenizer splits a text into words
TOKENIZER_WRAPPERS = (
    HFTokenizer,
    SigLipTokenizer,
)  # open_clip's wrappers of Hugging Face tokenizers


@dataclass(frozen=True)
class Alignment:
    """Tokens of n captions, each with its word and the word's role.

    Words count from 1 in each caption. Start, end and padding tokens have word and role 0.

    Attributes:
        tokens: Token ids, int64 `(n, context_length)`.
        roles: Role of each token's word, int8 `(n, context_length)`: 0 other, 1 object, 2
            attribute, 3 relation.
        n_truncated: Number of captions that were too long for the context.
        n_unmatched: Number of spans without a token. Their words were not found in the caption, or
            cleaning or truncation of the caption removed them.
        n_spans: Number of all spans.
        words: Word number of each token, int64 `(n, context_length)`.
        arguments: Word numbers of the arguments of each token's word, int16
            `(n, context_length, 2)`. For a relation they are its subject and its object; for an
            attribute, the object that it describes, then 0. An argument of several words has the
            number of its first word. An argument has 0 if the tagger does not find it, or if
            cleaning or truncation removes it. All other tokens have 0. None for placebos, whose
            roles are shuffled (see `placebo_roles`).
        swaps: Up to W swaps of each caption, int16 `(n, W, 5, 2)`. A swap is five ranges of tokens,
            each as its first token and the position after its last: the two nouns, the two noun
            phrases, and the words of the relation. If two attributes are swapped, they stand in the
            place of the nouns and of the phrases (see `Swap`). Ranges and swaps that do not exist
            are 0. None if the tagger does not find swaps, and for placebos. The swaps that
            `token_roles` returns fit the roles (see `misplaced_swaps`); it leaves out all others.
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
    captions are in Title Case or capitals.

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
        except Exception as error:  # torch.load raises many types on a damaged file
            raise DataError(
                f"{path}: damaged cache of word roles ({error}). Delete the file and run again."
            ) from error
    alignment = _tag_and_align(captions, tagger, tokenizer, context_length)
    compact = {"tokens": alignment.tokens.int(), "words": alignment.words.short()}
    with atomic_file(path) as partial:
        torch.save({**vars(alignment), **compact}, partial)
    return alignment


def _tag_and_align(
    captions: Sequence[str], tagger: Tagger, tokenizer: Any, context_length: int | None
) -> Alignment:
    """Find spans, and swaps if the tagger is a `SwapTagger`, and align them with tokens."""
    from cae_lib.words.pipeline import SwapTagger

    if not isinstance(tagger, SwapTagger):
        return align(captions, tagger.tag(captions), tokenizer, context_length)
    tagged = tagger.tag_with_swaps(captions)
    spans, swaps = [spans for spans, _ in tagged], [swaps for _, swaps in tagged]
    alignment = align(captions, spans, tokenizer, context_length, swaps)
    assert alignment.swaps is not None
    # `CAELoss` refuses misplaced swaps. None of 47,000 swaps in captions of COCO and Flickr8k is
    # one, but a caption may hold the text of an end token, behind which the tagger reads on.
    tables = (table.split(10_000) for table in (alignment.swaps, alignment.words, alignment.roles))
    for swap_rows, words, roles in zip(*tables, strict=True):
        swap_rows[misplaced_swaps(swap_rows, words > 0, roles)] = 0  # in the alignment's memory
    return alignment


def named_tagger(name: str) -> Tagger:
    """Return a new tagger: "scene-graph" (the paper's parser) or "dependency" (ours).

    Raises:
        ConfigError: If the name is unknown, or no English spaCy model is installed.
    """
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
            exactly one list of spans for each caption.
    """
    length = _checked(tokenizer, context_length)
    check_captions(captions)
    _check_spans(spans, len(captions))
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
        if has_clip_vocabulary:
            words[i] = word_numbers(tokens[i : i + 1], CLIP_VOCABULARY_SIZE)[0]
        else:
            words[i, : len(row)] = torch.tensor(_words(row, cleaned))
        numbers = words[i].tolist()
        for span in reversed(_carry_over(caption_spans, caption, cleaned)):
            inside = [n for n in _inside(row, span.start, span.end) if numbers[n]]
            n_unmatched += not inside
            roles[i, inside] = span.role
            arguments[i, inside] = 0
            for k, bounds in enumerate(span.arguments[:2]):
                bearer = _inside(row, *bounds)
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
        places = [*swap.nouns, *swap.phrases, swap.binder]
        spans = _carry_over([Span(*bounds, role=0) for bounds in places], caption, cleaned)
        tokens = [_inside(row, span.start, span.end) for span in spans]
        is_complete = all(
            inside and row[inside[-1]].end >= span.end or bounds == NO_OFFSETS
            for inside, span, bounds in zip(tokens, spans, places, strict=True)
        )
        if is_complete:
            aligned.append([(inside[0], inside[-1] + 1) if inside else (0, 0) for inside in tokens])
    return aligned


def _swap_table(swaps: Sequence[Sequence[Sequence[Offsets]]]) -> Tensor:
    """Return the swaps of n captions as one tensor `(n, W, 5, 2)`, padded with 0.

    W is the largest number of swaps of a caption.
    """
    table = torch.zeros(len(swaps), max(map(len, swaps), default=0), 5, 2, dtype=torch.int16)
    for row, places in enumerate(swaps):
        if places:
            table[row, : len(places)] = torch.tensor(places, dtype=torch.int16)
    return table


def misplaced_swaps(swaps: Tensor, is_word: Tensor, roles: Tensor | None = None) -> Tensor:
    """Return which swaps cannot be those of their captions, bool `(B, W)`.

    A swap fits if each of its ranges begins and ends with a token of a word, if both nouns exist or
    neither, the first ending before the second begins, if the same holds for the phrases, and if a
    token of the binder has the role of a relation. The attributes of a swap are not compared with
    the roles, because the dependency tagger finds the two by different rules.

    Args:
        swaps: Up to W swaps of each of B captions `(B, W, 5, 2)`; see `Alignment`.
        is_word: Bool `(B, T)`, the tokens that belong to a word.
        roles: Role of each token's word `(B, T)`; None leaves the binder's role unchecked.
    """
    length = is_word.shape[1]
    is_outside = (swaps < 0) | (swaps > length)
    starts, ends = swaps.long().clamp(0, length).unbind(-1)  # (B, W, 5) each

    def at(values: Tensor, positions: Tensor) -> Tensor:
        return values.gather(1, positions.flatten(1)).view_as(positions)

    exists = (starts > 0) | (ends > 0)
    last = (ends - 1).clamp(min=0)
    holds_words = (starts < ends) & at(is_word, starts.clamp(max=length - 1)) & at(is_word, last)
    is_wrong = is_outside.any(-1) | exists & ~holds_words
    earlier, later = slice(0, 4, 2), slice(1, 4, 2)  # the nouns and the phrases
    overlaps = exists[..., earlier] & (ends[..., earlier] > starts[..., later])
    is_wrong = is_wrong.any(-1) | (overlaps | (exists[..., earlier] != exists[..., later])).any(-1)
    if roles is None:
        return is_wrong
    before = F.pad((roles == RELATION).long().cumsum(1), (1, 0))  # relation tokens before each
    n_relation = at(before, ends[..., 4]) - at(before, starts[..., 4])
    return is_wrong | exists[..., 4] & (n_relation == 0)


def word_numbers(tokens: Tensor, vocabulary_size: int) -> Tensor:
    """Return the number of the word that each token of B captions belongs to, int64 `(B, T)`.

    Words count from 1 in each caption. Start, end and padding tokens have 0, and so have all tokens
    of a caption without an end-of-text token.

    Args:
        tokens: Token ids `(B, T)` of CLIP's tokenizer.
        vocabulary_size: Size of the vocabulary that the ids belong to.

    Raises:
        ConfigError: If `vocabulary_size` is not the size of CLIP's vocabulary.
    """
    if vocabulary_size != CLIP_VOCABULARY_SIZE:
        raise ConfigError(
            f"the model has {vocabulary_size} tokens, CLIP's tokenizer {CLIP_VOCABULARY_SIZE}: "
            "pass words (B, T), the number of the word each token belongs to, and 0 for no word."
        )
    ends = _ends_word(tokens.device)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    eot = (tokens == vocabulary_size - 1).int().argmax(dim=-1)
    inside = (position > 0) & (position < eot[:, None])
    closed = (
        ends[tokens.clamp(0, vocabulary_size - 1)] & inside
    )  # `check_annotations` refuses other ids
    before = closed.cumsum(dim=1) - closed.long()  # words finished before this token
    return (before + 1) * inside


@functools.cache
def _ends_word(device: torch.device) -> Tensor:
    """Return which tokens of CLIP's vocabulary `(V,)` are the last of a word; cached by device."""
    tokenizer = SimpleTokenizer()
    marks = [tokenizer.decoder[i].endswith(END_OF_WORD) for i in range(tokenizer.vocab_size)]
    return torch.tensor(marks, device=device)


def check_captions(captions: Sequence[str]) -> None:
    """Check that captions are a list of texts.

    Raises:
        DataError: If they are a single text, not a sequence, or hold anything but texts.
    """
    is_ordered = hasattr(captions, "__len__") and hasattr(captions, "__getitem__")
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


def _check_spans(spans: Sequence[Sequence[Span]], count: int) -> None:
    """Check that there is a list of spans with roles 0 to 3 for each of `count` captions.

    Raises:
        DataError: If there are more or fewer lists than captions, or one has another content.
    """
    if len(spans) != count:
        raise DataError(f"{count} captions with {len(spans)} lists of spans.")
    for number, caption_spans in enumerate(spans):
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
    """A token and the range of characters of the cleaned caption that it covers.

    Attributes:
        token: Token id.
        start: Offset of the first character that is not white space.
        end: Offset after the last such character. It is `start` or less for a token without such
            characters, such as a special token.
    """

    token: int
    start: int
    end: int


def tokenize_with_offsets(cleaned_caption: str, tokenizer: SimpleTokenizer) -> list[TokenSpan]:
    """Tokenize a cleaned caption as the tokenizer's `encode` does, with character offsets.

    A character whose bytes are split over several tokens belongs to each of them. Start and end
    tokens are not added.

    Args:
        cleaned_caption: Caption that the tokenizer's `clean_fn` has cleaned.
        tokenizer: CLIP's tokenizer in open_clip.
    """
    result = []
    for match in tokenizer.pat.finditer(cleaned_caption):
        word = match.group()
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
    probe = align([PROBE_CAPTION], [[]], tokenizer, length).tokens.tolist()
    if isinstance(tokenizer, SimpleTokenizer):
        vocabulary = "\n".join(tokenizer.encoder)
    else:  # with padding and truncation as the probe left them
        vocabulary = unwrap_tokenizer(tokenizer).backend_tokenizer.to_str()
    vocabulary = hashlib.sha256(vocabulary.encode()).hexdigest()
    text = json.dumps([[CACHE_VERSION, tagger.identity, vocabulary, probe], list(captions)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unwrap_tokenizer(tokenizer: Any) -> Any:
    """Return the Hugging Face tokenizer in a wrapper of open_clip; any other tokenizer itself."""
    return tokenizer.tokenizer if isinstance(tokenizer, TOKENIZER_WRAPPERS) else tokenizer


def _checked(tokenizer: Any, context_length: int | None) -> int:
    """Check that `_encode` supports the tokenizer, and return the context length.

    Raises:
        ConfigError: If the tokenizer is not supported, or the context length is out of range.
    """
    if isinstance(tokenizer, SimpleTokenizer):
        readable = tokenizer.reduction_fn is None
    else:  # without offsets (not fast) a token's characters are unknown
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
    if length is None or not 3 <= length <= MAX_CONTEXT:
        raise ConfigError(
            f"context length is {length}; expected 3 to {MAX_CONTEXT}: pass "
            "context_length, the number of tokens that the model takes."
        )
    return length


def _encode(caption: str, tokenizer: Any, length: int) -> tuple[str, list[TokenSpan], bool]:
    """Return the cleaned caption, its row of tokens, and whether it was too long for the context.

    The row contains the special tokens and at most `length` tokens.
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
    clean = getattr(tokenizer, "clean_fn", get_clean_fn("canonicalize")) if wrapped else str
    cleaned = clean(caption)
    read = unwrap_tokenizer(tokenizer)(
        cleaned, max_length=length, padding="max_length", truncation=True
    )
    (encoding,) = read.encodings
    ids = tokenizer([caption], length)[0].tolist() if wrapped else encoding.ids
    row, is_cut = [], bool(encoding.overflowing)
    for token, fast_token, (start, end) in zip(ids, encoding.ids, encoding.offsets, strict=True):
        is_replaced = token != fast_token  # the wrapper put a special token here
        text = "" if is_replaced else cleaned[start:end]  # special tokens have no characters
        row.append(TokenSpan(token, end - len(text.lstrip()), start + len(text.rstrip())))
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
    counted = {0: 0}
    first = (owners[piece.start] if piece.start < piece.end else 0 for piece in row)
    return [counted.setdefault(word, len(counted)) for word in first]


def _inside(row: list[TokenSpan], start: int, end: int) -> list[int]:
    """Return the indices of the tokens that share a character with the range `start` to `end`."""
    return [i for i, p in enumerate(row) if max(p.start, start) < min(p.end, end)]


def _carry_over(spans: Sequence[Span], caption: str, cleaned: str) -> list[Span]:
    """Convert spans and their arguments to offsets in the cleaned caption; (0, 0) if removed."""
    caption_letters, cleaned_letters = [c.lower() for c in caption], [c.lower() for c in cleaned]
    if not spans or caption_letters == cleaned_letters:
        return list(spans)
    plain = plain_text(caption)  # so that entities and white space are matched exactly
    kept, cleaned_kept = _non_spaces(plain.text), _non_spaces(cleaned)
    matcher = SequenceMatcher(
        None,
        [plain.text[i].lower() for i in kept],
        [cleaned_letters[i] for i in cleaned_kept],
        autojunk=False,
    )
    blocks = matcher.get_matching_blocks()
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

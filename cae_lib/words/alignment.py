"""Character spans of captions on the token positions of CLIP's byte-pair encoding."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.words.roles import OTHER, Span

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger

END_OF_WORD = "</w>"
CACHE_VERSION = 1


@dataclass(frozen=True)
class Alignment:
    """Tokens of n captions, each with the role of the word it belongs to.

    `tokens` (n, context_length) long; `roles` (n, context_length) int8, 0 other, 1 object,
    2 attribute, 3 relation; start, end and padding are always 0. `n_truncated` captions were too
    long for the context, `n_unmatched` of the `n_spans` spans have no token: their word was not
    found in the caption, or was cut off with its end.
    """

    tokens: Tensor
    roles: Tensor
    n_truncated: int
    n_unmatched: int
    n_spans: int


@dataclass(frozen=True)
class Piece:
    """One BPE token and the characters of the cleaned caption that it covers."""

    token: int
    start: int
    end: int


def pieces(cleaned: str, tokenizer: SimpleTokenizer) -> list[Piece]:
    """BPE tokens of a cleaned caption with their characters; special tokens are not included.

    The token ids are those of `tokenizer.encode`. A character that is split into bytes belongs to
    each of its tokens.
    """
    result = []
    for match in tokenizer.pat.finditer(cleaned):
        word = match.group()
        owners = [i for i, c in enumerate(word, match.start()) for _ in c.encode("utf-8")]
        encoded = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))
        place = 0
        for piece in tokenizer.bpe(encoded).split(" "):
            length = len(piece.removesuffix(END_OF_WORD))
            last = owners[min(place + length, len(owners)) - 1]
            result.append(Piece(tokenizer.encoder[piece], owners[place], last + 1))
            place += length
    return result


def align(
    captions: Sequence[str], spans: Sequence[Sequence[Span]], tokenizer: SimpleTokenizer
) -> Alignment:
    """Give each token of each caption the role of the span it lies in.

    The tokenizer works on a cleaned caption (mojibake and HTML entities resolved, white space
    collapsed, lower case); spans refer to the caption as given and are carried over. Where two
    spans share a token, the first one in the list decides.

    Raises:
        ConfigError: the tokenizer is not open_clip's BPE tokenizer.
        DataError: captions and spans differ in number.
    """
    if not isinstance(tokenizer, SimpleTokenizer) or tokenizer.reduction_fn is not None:
        raise ConfigError(
            f"tokenizer is {type(tokenizer).__name__}; expected open_clip's SimpleTokenizer, "
            "without a reduction mask: word roles need its byte-pair encoding."
        )
    if len(captions) != len(spans):
        raise DataError(f"{len(captions)} captions with {len(spans)} lists of spans.")
    tokens = torch.zeros(len(captions), tokenizer.context_length, dtype=torch.long)
    roles = torch.zeros(len(captions), tokenizer.context_length, dtype=torch.int8)
    n_truncated = n_unmatched = 0
    for i, (caption, marked) in enumerate(zip(captions, spans, strict=True)):
        cleaned = tokenizer.clean_fn(caption)
        found = pieces(cleaned, tokenizer)
        n_truncated += len(found) > tokenizer.context_length - 2
        found = found[: tokenizer.context_length - 2]
        row, unmatched = _roles(found, _carry_over(marked, caption, cleaned))
        n_unmatched += unmatched
        ids = [tokenizer.sot_token_id, *(piece.token for piece in found), tokenizer.eot_token_id]
        tokens[i, : len(ids)] = torch.tensor(ids)
        roles[i, 1 : len(row) + 1] = torch.tensor(row, dtype=torch.int8)
    return Alignment(tokens, roles, n_truncated, n_unmatched, sum(map(len, spans)))


def token_roles(
    captions: Sequence[str],
    tagger: Tagger,
    tokenizer: SimpleTokenizer,
    cache_dir: str | Path | None = None,
) -> Alignment:
    """Tag and align a corpus, or load what an earlier call with the same input left in `cache_dir`.

    The cache key is a hash of the captions, the tagger's identity and the tokenizer's vocabulary
    and context length. Raises what `align` and the tagger raise.
    """
    if cache_dir is None:
        return align(captions, tagger.tag(captions), tokenizer)
    path = Path(cache_dir) / f"roles-{_key(captions, tagger, tokenizer)}.pt"
    if path.exists():
        return _load(path)
    alignment = align(captions, tagger.tag(captions), tokenizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    torch.save({**vars(alignment), "tokens": alignment.tokens.int()}, partial)
    os.replace(partial, path)
    return alignment


def _load(path: Path) -> Alignment:
    try:
        stored = torch.load(path, weights_only=True)
        return Alignment(**{**stored, "tokens": stored["tokens"].long()})
    except Exception as error:  # torch.load raises many types on a damaged file
        raise DataError(
            f"{path}: damaged cache of word roles ({error}). Delete the file and run again."
        ) from error


def _key(captions: Sequence[str], tagger: Tagger, tokenizer: SimpleTokenizer) -> str:
    vocabulary = hashlib.sha256("\n".join(tokenizer.encoder).encode("utf-8")).hexdigest()
    setting = [CACHE_VERSION, tagger.identity, vocabulary, tokenizer.context_length]
    text = json.dumps([setting, list(captions)])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _roles(found: list[Piece], spans: list[Span]) -> tuple[list[int], int]:
    """Role of each piece, and the number of spans that cover none."""
    row, unmatched = [OTHER] * len(found), 0
    for span in spans:
        inside = [i for i, p in enumerate(found) if p.start < span.end and span.start < p.end]
        unmatched += not inside
        for i in inside:
            row[i] = row[i] or span.role
    return row, unmatched


def _carry_over(spans: Sequence[Span], caption: str, cleaned: str) -> list[Span]:
    """Spans in characters of the cleaned caption; of a span that vanished, an empty one."""
    lowered = [c.lower() for c in caption]
    if not spans or (len(caption) == len(cleaned) and "".join(lowered) == cleaned):
        return list(spans)
    places: dict[int, int] = {}
    for block in SequenceMatcher(
        None, lowered, list(cleaned), autojunk=False
    ).get_matching_blocks():
        places.update((block.a + i, block.b + i) for i in range(block.size))
    carried = []
    for span in spans:
        new = [places[i] for i in range(span.start, span.end) if i in places]
        carried.append(Span(new[0], new[-1] + 1, span.role) if new else Span(0, 0, span.role))
    return carried

"""Tokens of texts, remembered by the process: every model with one vocabulary shares them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

Kind = tuple[object, ...]

_ROWS: dict[Kind, dict[str, np.ndarray]] = {}
_KINDS: WeakKeyDictionary[SimpleTokenizer, Kind] = WeakKeyDictionary()


def tokenize(tokenizer: Callable[[list[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """Token ids `(n, context_length)`, long: what `tokenizer(texts)` gives, each text read once.

    Texts are remembered for the life of the process under the vocabulary, the cleaning and the
    context length of the tokenizer. Other tokenizers than open_clip's byte-pair encoding, and those
    that mask texts at random, are called as they are.
    """
    if type(tokenizer) is not SimpleTokenizer or tokenizer.reduction_fn is not None:
        return tokenizer(list(texts))
    known = _ROWS.setdefault(_kind(tokenizer), {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known.update(zip(new, _trimmed(tokenizer, new), strict=True))
    result = np.zeros((len(texts), tokenizer.context_length), dtype=np.int64)
    for row, text in zip(result, texts, strict=True):
        ids = known[text]
        row[: len(ids)] = ids
    return torch.from_numpy(result)


def forget_tokens() -> None:
    """Forget all texts, to free their memory or to measure from a fresh start."""
    _ROWS.clear()


def _trimmed(tokenizer: SimpleTokenizer, texts: list[str]) -> list[np.ndarray]:
    """Ids of each text up to its last end-of-text token; only padding, which is 0, follows it."""
    rows = tokenizer(texts).numpy().astype(np.int32)
    after = (rows[:, ::-1] == tokenizer.eot_token_id).argmax(axis=1)
    return [row[: len(row) - n].copy() for row, n in zip(rows, after, strict=True)]


def _kind(tokenizer: SimpleTokenizer) -> Kind:
    """All that decides the tokens of a text."""
    if tokenizer not in _KINDS:
        content = "\x1f".join((*tokenizer.encoder, "\x1e", *map(" ".join, tokenizer.bpe_ranks)))
        vocabulary = hashlib.sha256(content.encode()).hexdigest()
        _KINDS[tokenizer] = (vocabulary, tokenizer.context_length, tokenizer.clean_fn)
    return _KINDS[tokenizer]

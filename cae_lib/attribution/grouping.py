"""Which tokens form a word, by the end-of-word marks of CLIP's encoding."""

from __future__ import annotations

import functools

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.text_encoder import TextEncoder
from cae_lib.words.alignment import END_OF_WORD


def word_index(tokens: Tensor, vocabulary_size: int) -> Tensor:
    """Number of the word each token of CLIP's encoding belongs to `(B, T)`, from 1; 0 for none.
    Another vocabulary than CLIP's is a ConfigError."""
    ends = _ends_word()
    if vocabulary_size != len(ends):
        raise ConfigError(
            f"the model has {vocabulary_size} tokens, CLIP's tokenizer {len(ends)}: pass words "
            "(B, T), the number of the word each token belongs to, and 0 for no word."
        )
    position = torch.arange(tokens.shape[1], device=tokens.device)
    eot = (tokens == vocabulary_size - 1).int().argmax(dim=-1)
    inside = (position > 0) & (position < eot[:, None])
    closed = ends.to(tokens.device)[tokens] & inside
    before = closed.cumsum(dim=1) - closed.long()  # words finished before this token
    return (before + 1) * inside


def words_or_own(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """The words `(B, T)` given, else those of CLIP's encoding; see `word_index`."""
    return word_index(tokens, encoder.vocabulary_size) if words is None else words


def check_shapes(tokens: Tensor, image_features: Tensor, **beside: Tensor | None) -> None:
    """DataError unless there are tokens `(B, C)`, image features `(B, E)`, and what stands `beside`
    each token `(B, C)`, where it is not None; B of 1 or more."""
    shapes = {name: tuple(value.shape) for name, value in beside.items() if value is not None}
    fit = tokens.ndim == 2 and len(tokens) > 0 and set(shapes.values()) <= {tuple(tokens.shape)}
    if not fit or image_features.ndim != 2 or len(image_features) != len(tokens):
        raise DataError(
            "expected tokens (B, C), image features (B, E), and what stands beside each token "
            f"(B, C), of the same B captions; found tokens {tuple(tokens.shape)}, image features "
            f"{tuple(image_features.shape)}{''.join(f', {n} {s}' for n, s in shapes.items())}."
        )


def check_roles(roles: Tensor, words: Tensor | None) -> None:
    """DataError unless roles `(B, C)` are 0 to 3, and 0 where the number of the word is."""
    bad = (roles < 0) | (roles > 3)
    if words is not None:
        bad |= (words < 0) | (roles > 0) & (words == 0)
    if bool(bad.any()):
        row, place = bad.nonzero()[0].tolist()
        word = "" if words is None else f" and word {int(words[row, place])}"
        raise DataError(
            f"caption {row} of the batch has role {int(roles[row, place])}{word} at token {place}: "
            "expected roles 0 to 3, words from 0 on, and a word wherever a role is. Tokens, roles "
            "and words have to be rows of one `token_roles`, in the same order."
        )


@functools.cache
def _ends_word() -> Tensor:
    """Whether each token of the vocabulary is the last of a word `(V,)`."""
    tokenizer = SimpleTokenizer()
    marks = [tokenizer.decoder[i].endswith(END_OF_WORD) for i in range(tokenizer.vocab_size)]
    return torch.tensor(marks)

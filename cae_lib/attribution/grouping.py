"""Which tokens form a word, by the end-of-word marks of CLIP's encoding."""

from __future__ import annotations

import functools

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

END_OF_WORD = "</w>"


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


@functools.cache
def _ends_word() -> Tensor:
    """Whether each token of the vocabulary is the last of a word `(V,)`."""
    tokenizer = SimpleTokenizer()
    marks = [tokenizer.decoder[i].endswith(END_OF_WORD) for i in range(tokenizer.vocab_size)]
    return torch.tensor(marks)

"""Whether tokens, words, roles and arguments belong together, and which tokens form a word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.text_encoder import TextEncoder
from cae_lib.models.text_tower import CLIP_VOCABULARY, no_end_error
from cae_lib.words.alignment import word_index

ADVICE = "Tokens, roles and words have to be rows of one `token_roles`, in the same order."


def words_or_own(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """The words `(B, T)` given, else those of CLIP's encoding; see `word_index`."""
    return word_index(tokens, encoder.vocabulary_size) if words is None else words


def check_tensors(tokens: Any, image_features: Any, **beside: Any) -> None:
    """Check the type, shape and device of what describes a batch of captions.

    Args:
        tokens: ids `(B, C)`, int64 or int32, B of 1 or more.
        image_features: `(B, E)`, of floating point.
        beside: what stands beside each token, None where it is not given: "words" and "roles"
            `(B, C)`, integers; "wanted" `(B, C)`, bool; "arguments" `(B, C, 2)`, integers.

    Raises:
        DataError: a value that is no tensor, or has another shape or type.
        ConfigError: tensors on several devices.
    """
    beside = {name: value for name, value in beside.items() if value is not None}
    given = {"tokens": tokens, "image features": image_features} | beside
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name} are a {type(value).__name__}: expected a tensor.")
    shapes = {name: tuple(value.shape) for name, value in beside.items()}
    rows = tuple(tokens.shape)
    fit = tokens.ndim == 2 and len(tokens) > 0 and all(
        shape == ((*rows, 2) if name == "arguments" else rows) for name, shape in shapes.items())
    if not fit or image_features.ndim != 2 or len(image_features) != len(tokens):
        raise DataError(
            "expected tokens (B, C), image features (B, E), and what stands beside each token "
            "(B, C), arguments (B, C, 2), of the same B captions; found tokens "
            f"{rows}, image features {tuple(image_features.shape)}"
            f"{''.join(f', {n} {s}' for n, s in shapes.items())}."
        )
    for name, value in given.items():
        expected = _expected_type(name, value)
        if expected is not None:
            raise DataError(f"{name} are of type {value.dtype}: expected {expected}.")
        if name in beside and value.device != tokens.device:
            raise ConfigError(
                f"{name} are on {value.device}, tokens on {tokens.device}: move one of them."
            )


def _expected_type(name: str, value: Tensor) -> str | None:
    """The type that a value should have; None for one that has it."""
    if name == "image features":
        return None if value.is_floating_point() else "floating point"
    if name == "tokens":
        return None if value.dtype in (torch.int64, torch.int32) else "int64"
    if name == "wanted":
        return None if value.dtype == torch.bool else "bool, such as roles > 0"
    return None if is_integer(value) else "integers, such as int8 for roles and int64 for words"


def is_integer(value: Tensor) -> bool:
    """Whether a tensor holds integers; truth values are none."""
    return not (value.dtype == torch.bool or value.is_floating_point() or value.is_complex())


def check_words(
    encoder: TextEncoder, tokens: Tensor, words: Tensor | None = None, roles: Tensor | None = None,
    arguments: Tensor | None = None,
) -> None:
    """Check that tokens `(B, C)` are the model's, and that words, roles and arguments are theirs.

    With CLIP's vocabulary the words have to be those that the tokens form (`word_index`). Those of
    another vocabulary are not known: there, words and roles may not be on tokens that the encoder
    knows to be of no word (`TextEncoder.outside_words`), nor two roles on one word. All is looked
    at once, so that a GPU is waited for once.

    Raises:
        DataError: names the caption and the token, for what does not belong to these tokens.
    """
    size, clips = encoder.vocabulary_size, encoder.vocabulary_size == CLIP_VOCABULARY
    unknown = (tokens < 0) | (tokens >= size)
    if words is None and roles is None and arguments is None:
        _raise_if_any({"token": unknown}, tokens, size=size)
        return
    own = word_index(tokens, size) if clips else None
    no_word = own == 0 if clips else encoder.outside_words(tokens)
    wrong = {"token": unknown}
    if roles is not None:
        beyond = no_word if words is None else no_word | (words == 0)
        wrong["role"] = (roles < 0) | (roles > 3) | (roles > 0) & beyond
    if words is not None:
        wrong["word"] = words != own if clips else (words < 0) | (words > 0) & no_word
    if words is not None and roles is not None and not clips:
        wrong["roles"] = _has_other_role(words, roles)
    if arguments is not None:
        numbers = own if words is None else words
        most = tokens.shape[1] if numbers is None else numbers.amax(dim=1)[:, None, None]
        beyond = no_word if numbers is None else numbers == 0
        bad = (arguments < 0) | (arguments > most) | (arguments > 0) & beyond[..., None]
        wrong["arguments"] = bad.any(dim=-1)
    _raise_if_any(wrong, tokens, words, roles, arguments, own, size)


def _has_other_role(words: Tensor, roles: Tensor) -> Tensor:
    """Tokens `(B, C)` with another role than the one before, of the same word."""
    same = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] > 0)
    both = (roles[:, 1:] > 0) & (roles[:, :-1] > 0)
    other = torch.zeros_like(words, dtype=torch.bool)
    other[:, 1:] = same & both & (roles[:, 1:] != roles[:, :-1])
    return other


def _raise_if_any(
    wrong: dict[str, Tensor], tokens: Tensor, words: Tensor | None = None,
    roles: Tensor | None = None, arguments: Tensor | None = None, own: Tensor | None = None,
    size: int = 0,
) -> None:
    """DataError for the first kind of error with a token `(B, C)` that has it."""
    if not bool(torch.stack([*wrong.values()]).any()):
        return
    kind = next(kind for kind, places in wrong.items() if bool(places.any()))
    row, place = wrong[kind].nonzero()[0].tolist()
    where = f"caption {row} of the batch has"
    if kind == "token":
        raise DataError(
            f"{where} the id {int(tokens[row, place])} at token {place}: the model has the ids 0 "
            f"to {size - 1}. Tokenize with the tokenizer of this model."
        )
    if own is not None and not bool((tokens[row] == size - 1).any()):
        raise no_end_error(row)
    word = None if words is None else int(words[row, place])
    word = int(own[row, place]) if word is None and own is not None else word
    beside = "" if word is None else f" and word {word}"
    if kind in ("role", "roles"):
        expected = ("expected roles 0 to 3, and a word wherever a role is" if kind == "role" else
                    "expected one role for all tokens of a word that have one")
        raise DataError(f"{where} role {int(roles[row, place])}{beside} at token {place}: "
                        f"{expected}. {ADVICE}")
    if kind == "word":
        expected = ("no word, for it starts, ends or pads a text" if own is None else
                    f"word {int(own[row, place])}, by the tokens")
        raise DataError(f"{where} word {word} at token {place}: expected {expected}. {ADVICE}")
    raise DataError(
        f"{where} arguments {arguments[row, place].tolist()}{beside} at token {place}: expected "
        f"numbers of words of this caption, and 0 for none and where no word is. {ADVICE}"
    )

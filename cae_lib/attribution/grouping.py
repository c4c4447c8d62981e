"""Checks that tokens, words, roles and arguments belong together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.text_encoder import TextEncoder
from cae_lib.models.text_tower import CLIP_VOCABULARY, no_end_error
from cae_lib.words.alignment import word_index


def words_or_own(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """The words `(B, T)` given, else those of CLIP's encoding; see `word_index`."""
    return word_index(tokens, encoder.vocabulary_size) if words is None else words


def check_tensors(tokens: Any, image_features: Any, **optional: Any) -> None:
    """Check the type, shape and device of the tensors that describe a batch of captions.

    Args:
        tokens: ids `(B, C)`, int64 or int32, B of 1 or more.
        image_features: `(B, E)`, of floating point.
        optional: further tensors, None where they are not given: "words" and "roles" `(B, C)`,
            integers; "wanted" `(B, C)`, bool; "arguments" `(B, C, 2)`, integers; "swaps"
            `(B, W, 5, 2)`, integers, places of tokens.

    Raises:
        DataError: a value is no tensor, or has another shape or type.
        ConfigError: the tensors are on several devices.
    """
    optional = {name: value for name, value in optional.items() if value is not None}
    tensors = {"tokens": tokens, "image features": image_features} | optional
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name}: found a {type(value).__name__}, expected a tensor.")
    size = tuple(tokens.shape)
    shapes = {name: tuple(value.shape) for name, value in optional.items()}
    fit = (
        tokens.ndim == 2
        and len(tokens) > 0
        and all(_fits(name, shape, size) for name, shape in shapes.items())
    )
    if not fit or image_features.ndim != 2 or len(image_features) != len(tokens):
        raise DataError(
            "expected tokens (B, C), image features (B, E), arguments (B, C, 2), swaps "
            "(B, W, 5, 2) and all other tensors (B, C), of the same B captions; found tokens "
            f"{size}, image features {tuple(image_features.shape)}"
            f"{''.join(f', {n} {s}' for n, s in shapes.items())}."
        )
    for name, value in tensors.items():
        if (expected := _expected_type(name, value)) is not None:
            raise DataError(f"{name} are of type {value.dtype}: expected {expected}.")
        if name in optional and value.device != tokens.device:
            raise ConfigError(
                f"{name} are on {value.device}, tokens on {tokens.device}: move one of them."
            )
    swaps = optional.get("swaps")
    if (
        swaps is not None
        and swaps.numel()
        and not 0 <= int(swaps.min()) <= int(swaps.max()) <= size[1]
    ):
        raise DataError(
            f"swaps name tokens {int(swaps.min())} to {int(swaps.max())} of captions of {size[1]} "
            "tokens: pass the rows of one `token_roles`, uncut."
        )


def _fits(name: str, shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return whether a tensor of that name has the shape for tokens of `size (B, C)`."""
    if name == "swaps":
        return len(shape) == 4 and shape[:1] == size[:1] and shape[2:] == (5, 2)
    return shape == ((*size, 2) if name == "arguments" else size)


def _expected_type(name: str, value: Tensor) -> str | None:
    """Return the type that a tensor should have, None if it has it."""
    if name == "image features":
        return None if value.is_floating_point() else "floating point"
    if name == "tokens":
        return None if value.dtype in (torch.int64, torch.int32) else "int64"
    if name == "wanted":
        return None if value.dtype == torch.bool else "bool, such as roles > 0"
    return None if is_integer(value) else "integers, such as int8 for roles and int64 for words"


def is_integer(value: Tensor) -> bool:
    """Return whether a tensor holds integers; bool does not count as integer."""
    return not (value.dtype == torch.bool or value.is_floating_point() or value.is_complex())


def check_words(
    encoder: TextEncoder,
    tokens: Tensor,
    words: Tensor | None = None,
    roles: Tensor | None = None,
    arguments: Tensor | None = None,
) -> None:
    """Check that words, roles and arguments belong to these tokens `(B, C)`, and tokens to a model.

    With CLIP's vocabulary the words have to be those that the tokens form (`word_index`). With
    another vocabulary the words of the tokens are not known. Then words and roles must not lie on
    tokens that the encoder knows to belong to no word (`TextEncoder.outside_words`), and the tokens
    of a word must not have two roles. On a GPU this waits for the device once.

    Raises:
        DataError: names the caption and the token of the first error.
    """
    size = encoder.vocabulary_size
    errors = {"token": (tokens < 0) | (tokens >= size)}
    token_words = None
    if words is not None or roles is not None or arguments is not None:
        if size == CLIP_VOCABULARY:
            token_words = word_index(tokens, size)
            no_word = token_words == 0
        else:
            no_word = encoder.outside_words(tokens)
        numbers = token_words if words is None else words
        if numbers is not None:
            no_word = no_word | (numbers == 0)
        if roles is not None:
            errors["role"] = (roles < 0) | (roles > 3) | (roles > 0) & no_word
        if words is not None and token_words is not None:
            errors["word"] = words != token_words
        elif words is not None:
            errors["word"] = (words < 0) | (words > 0) & no_word
            if roles is not None:
                errors["roles"] = _has_second_role(words, roles)
        if arguments is not None:
            most = tokens.shape[1] if numbers is None else numbers.amax(dim=1)[:, None, None]
            bad = (arguments < 0) | (arguments > most) | (arguments > 0) & no_word[..., None]
            errors["arguments"] = bad.any(dim=-1)
    if bool(torch.stack([*errors.values()]).any()):
        _raise_first(errors, size, tokens, token_words, words, roles, arguments)


def _has_second_role(words: Tensor, roles: Tensor) -> Tensor:
    """Return which tokens `(B, C)` have another role than the token before, of the same word."""
    same_word = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] > 0)
    both = (roles[:, 1:] > 0) & (roles[:, :-1] > 0)
    second = torch.zeros_like(words, dtype=torch.bool)
    second[:, 1:] = same_word & both & (roles[:, 1:] != roles[:, :-1])
    return second


def _raise_first(
    errors: dict[str, Tensor],
    size: int,
    tokens: Tensor,
    token_words: Tensor | None,
    words: Tensor | None,
    roles: Tensor | None,
    arguments: Tensor | None,
) -> None:
    """Raise the DataError of the first kind of `errors (B, C)` that a token has."""
    kind = next(kind for kind, places in errors.items() if bool(places.any()))
    row, place = errors[kind].nonzero()[0].tolist()
    caption = f"caption {row} of the batch has"
    if kind == "token":
        raise DataError(
            f"{caption} the id {int(tokens[row, place])} at token {place}: the model has the ids 0 "
            f"to {size - 1}. Tokenize with the tokenizer of this model."
        )
    if token_words is not None and not bool((tokens[row] == size - 1).any()):
        raise no_end_error(row)
    numbers = token_words if words is None else words
    word = "" if numbers is None else f" and word {int(numbers[row, place])}"
    if kind == "word":
        expected = (
            "no word there, for the token starts, ends or pads a text"
            if token_words is None
            else f"word {int(token_words[row, place])}"
        )
        found = f"word {int(words[row, place])}"
    elif kind == "arguments":
        expected = "numbers of words of this caption, and 0 for none and where no word is"
        found = f"arguments {arguments[row, place].tolist()}{word}"
    else:
        expected = (
            "roles 0 to 3, and a word wherever a role is"
            if kind == "role"
            else "one role for all tokens of a word that have a role"
        )
        found = f"role {int(roles[row, place])}{word}"
    raise DataError(
        f"{caption} {found} at token {place}: expected {expected}. Tokens, roles, words and "
        "arguments have to be rows of one `token_roles`, in the same order."
    )

"""Checks that tokens, words, roles and arguments belong together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.text_tower import TextEncoder, missing_end_error
from cae_lib.words.alignment import CLIP_VOCABULARY, word_index


def check_tensors(tokens: Any, image_features: Any, **optional: Any) -> None:
    """Check the type, shape and device of the tensors that describe a batch of captions.

    Args:
        tokens: Ids `(B, C)`, int64 or int32, B of 1 or more.
        image_features: `(B, E)`, of floating point.
        optional: Further tensors, or None: "words" and "roles" `(B, C)`, integers; "requested"
            `(B, C)`, bool; "arguments" `(B, C, 2)`, integers; "swaps" `(B, W, 5, 2)`, integers,
            positions of tokens.

    Raises:
        DataError: A value is no tensor, or has another shape or type.
        ConfigError: The tensors are on several devices.
    """
    optional = {name: value for name, value in optional.items() if value is not None}
    tensors = {"tokens": tokens, "image features": image_features} | optional
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name}: found a {type(value).__name__}, expected a tensor.")
    size = tuple(tokens.shape)
    shapes = {name: tuple(value.shape) for name, value in optional.items()}
    are_captions = (
        len(size) == 2
        and size[0] > 0
        and all(_has_shape_for(name, shape, size) for name, shape in shapes.items())
    )
    if not are_captions or image_features.ndim != 2 or len(image_features) != size[0]:
        raise DataError(
            "expected tokens (B, C), image features (B, E), arguments (B, C, 2), swaps "
            "(B, W, 5, 2) and all other tensors (B, C), of the same B captions; found tokens "
            f"{size}, image features {tuple(image_features.shape)}"
            f"{''.join(f', {n} {s}' for n, s in shapes.items())}."
        )
    for name, value in tensors.items():
        expected_type = _find_type_error(name, value)
        if expected_type is not None:
            raise DataError(f"{name} are of type {value.dtype}: expected {expected_type}.")
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


def _has_shape_for(name: str, shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return whether a tensor of that name has the shape for tokens of `size (B, C)`."""
    if name == "swaps":
        return len(shape) == 4 and shape[:1] == size[:1] and shape[2:] == (5, 2)
    return shape == ((*size, 2) if name == "arguments" else size)


def _find_type_error(name: str, value: Tensor) -> str | None:
    """Return the type that a tensor should have; None if it has it."""
    if name == "image features":
        return None if value.is_floating_point() else "floating point"
    if name == "tokens":
        return None if value.dtype in (torch.int64, torch.int32) else "int64"
    if name == "requested":
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
    """Check that words, roles and arguments belong to these tokens, and tokens to the model.

    With CLIP's vocabulary the words have to be those that the tokens form (`word_index`). With
    another vocabulary the words of the tokens are not known. Then words and roles must not lie on
    tokens that certainly belong to no word, and the tokens of a word must not have two roles. On a
    GPU this waits for the device once.

    Args:
        encoder: Has the vocabulary, and knows tokens of no word (`TextEncoder.non_word_tokens`).
        tokens: `(B, C)`.
        words: `(B, C)`.
        roles: `(B, C)`.
        arguments: `(B, C, 2)`.

    Raises:
        DataError: Names the caption and the token of the first error.
    """
    vocabulary_size = encoder.vocabulary_size
    errors = {"token": (tokens < 0) | (tokens >= vocabulary_size)}
    token_words = None
    if words is not None or roles is not None or arguments is not None:
        if vocabulary_size == CLIP_VOCABULARY:
            token_words = word_index(tokens, vocabulary_size)
            no_word = token_words == 0
        else:
            no_word = encoder.non_word_tokens(tokens)
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
            highest = tokens.shape[1] if numbers is None else numbers.amax(dim=1)[:, None, None]
            is_wrong = (arguments < 0) | (arguments > highest)
            is_wrong = is_wrong | (arguments > 0) & no_word[..., None]
            errors["arguments"] = is_wrong.any(dim=-1)
    if bool(torch.stack([*errors.values()]).any()):
        _raise_first(errors, vocabulary_size, tokens, token_words, words, roles, arguments)


def _has_second_role(words: Tensor, roles: Tensor) -> Tensor:
    """Return which tokens `(B, C)` have another role than the token before, of the same word."""
    same_word = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] > 0)
    both = (roles[:, 1:] > 0) & (roles[:, :-1] > 0)
    second = torch.zeros_like(words, dtype=torch.bool)
    second[:, 1:] = same_word & both & (roles[:, 1:] != roles[:, :-1])
    return second


def _raise_first(
    errors: dict[str, Tensor],
    vocabulary_size: int,
    tokens: Tensor,
    token_words: Tensor | None,
    words: Tensor | None,
    roles: Tensor | None,
    arguments: Tensor | None,
) -> None:
    """Raise the DataError of the first kind of `errors (B, C)` that a token has."""
    kind = next(kind for kind, has_error in errors.items() if bool(has_error.any()))
    row, column = errors[kind].nonzero()[0].tolist()
    caption = f"caption {row} of the batch has"
    if kind == "token":
        raise DataError(
            f"{caption} the id {int(tokens[row, column])} at token {column}: the model has the ids "
            f"0 to {vocabulary_size - 1}. Tokenize with the tokenizer of this model."
        )
    if token_words is not None and not bool((tokens[row] == vocabulary_size - 1).any()):
        raise missing_end_error(row)
    numbers = token_words if words is None else words
    word = "" if numbers is None else f" and word {int(numbers[row, column])}"
    if kind == "word" and words is not None:
        value = f"word {int(words[row, column])}"
        if token_words is None:
            expected = "no word there, for the token starts, ends or pads a text"
        else:
            expected = f"word {int(token_words[row, column])}"
    elif kind == "arguments" and arguments is not None:
        value = f"arguments {arguments[row, column].tolist()}{word}"
        expected = "numbers of words of this caption, and 0 for none and where no word is"
    else:
        value = f"role {int(roles[row, column])}{word}" if roles is not None else "no role"
        if kind == "role":
            expected = "roles 0 to 3, and a word wherever a role is"
        else:
            expected = "one role for all tokens of a word that have a role"
    raise DataError(
        f"{caption} {value} at token {column}: expected {expected}. Tokens, roles, words and "
        "arguments have to be rows of one `token_roles`, in the same order."
    )

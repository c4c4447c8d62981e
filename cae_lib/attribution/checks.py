"""Check that the tensors of a batch of captions are well-formed and belong together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.text_tower import TextEncoder, missing_eot_error
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE, misplaced_swaps, word_numbers

EXPECTED_DTYPES = {
    "image features": "floating point",
    "tokens": "int64",
    "requested": "bool, such as roles > 0",
}
"""Types that error messages ask for, by name of the tensor; all other tensors hold integers."""

EXPECTED_BY_ERROR_KIND = {
    "role": "roles 0 to 3, and a word wherever a role is",
    "word": "the words that the tokens form, and none where a text starts, ends or is padded",
    "second role": "one role for all tokens of a word that have a role",
    "arguments": "numbers of words of this caption, and 0 for none and where no word is",
    "swaps": "ranges of tokens of words, the first noun and phrase before the second, and a "
    "relation word in the fifth range unless this is 0; or only zeros for no swap",
}
"""What the error messages of `check_annotations` ask for, by kind of error."""


def check_tensors(tokens: Any, image_features: Any, **optional: Any) -> None:
    """Check types, shapes and devices of the tensors of `Captions`; optional ones may be None."""
    optional = {name: value for name, value in optional.items() if value is not None}
    tensors = {"tokens": tokens, "image features": image_features} | optional
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name}: found a {type(value).__name__}, expected a tensor.")
    size = tuple(tokens.shape)
    if (
        len(size) != 2
        or size[0] == 0
        or image_features.ndim != 2
        or len(image_features) != size[0]
        or not all(_has_shape(name, tuple(value.shape), size) for name, value in optional.items())
    ):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise DataError(
            "expected tokens (B, C), image features (B, E), arguments (B, C, 2), swaps "
            f"(B, W, 5, 2) and all other tensors (B, C), of the same B captions; found {shapes}."
        )
    for name, value in tensors.items():
        if not _has_type(name, value):
            expected = EXPECTED_DTYPES.get(
                name, "integers, such as int8 for roles and int64 for words"
            )
            raise DataError(f"{name} are of type {value.dtype}: expected {expected}.")
        # `Captions.validate` compares tokens and image features with the model's device.
        if name in optional and value.device != tokens.device:
            raise ConfigError(
                f"{name} are on {value.device}, tokens on {tokens.device}: move one of them."
            )


def _has_shape(name: str, shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return whether an optional tensor has the shape for tokens of `size` `(B, C)`."""
    if name == "swaps":
        return len(shape) == 4 and shape[0] == size[0] and shape[2:] == (5, 2)
    return shape == ((*size, 2) if name == "arguments" else size)


def _has_type(name: str, value: Tensor) -> bool:
    if name == "image features":
        return value.is_floating_point()
    if name == "tokens":
        return value.dtype in (torch.int64, torch.int32)
    return value.dtype == torch.bool if name == "requested" else is_integer(value)


def is_integer(value: Tensor) -> bool:
    """Return whether a tensor has an integer type; bool does not count as one."""
    return not (value.dtype == torch.bool or value.is_floating_point() or value.is_complex())


def check_annotations(
    encoder: TextEncoder,
    tokens: Tensor,
    words: Tensor | None = None,
    roles: Tensor | None = None,
    arguments: Tensor | None = None,
    swaps: Tensor | None = None,
) -> None:
    """Check that the model has these tokens, and that all annotations can belong to them."""
    vocabulary_size = encoder.vocabulary_size
    optional = {"role": roles, "word": words, "arguments": arguments, "swaps": swaps}
    annotations = {name: value for name, value in optional.items() if value is not None}
    # The first kind with an error is reported; unknown ids make the words look wrong as well.
    errors = {"token": (tokens < 0) | (tokens >= vocabulary_size)}
    if annotations:
        errors.update(_annotation_errors(encoder, tokens, words, roles, arguments, swaps))
    # A single value is read from the GPU for a batch without errors.
    if not bool(torch.stack([has_error.any() for has_error in errors.values()]).any()):
        return
    kind = next(kind for kind, has_error in errors.items() if bool(has_error.any()))
    row, column = errors[kind].nonzero()[0].tolist()
    if kind == "token":
        raise DataError(
            f"caption {row} of the batch has the id {int(tokens[row, column])} at token {column}: "
            f"the model has the ids 0 to {vocabulary_size - 1}. Tokenize with the tokenizer of "
            "this model."
        )
    # A caption that was cut off before its end has wrong words, too: name the cause.
    has_clip_vocabulary = vocabulary_size == CLIP_VOCABULARY_SIZE
    if has_clip_vocabulary and not bool((tokens[row] == vocabulary_size - 1).any()):
        raise missing_eot_error(row)
    if kind == "swaps":
        faulty = f"as swap {column} the ranges {annotations.pop(kind)[row, column].tolist()}"
    else:
        # Swaps are not indexed by token.
        annotations.pop("swaps", None)
        values = ((name, value[row, column].tolist()) for name, value in annotations.items())
        faulty = ", ".join(f"{name} {value}" for name, value in values) + f" at token {column}"
    raise DataError(
        f"caption {row} of the batch has {faulty}: expected {EXPECTED_BY_ERROR_KIND[kind]}. "
        "Tokens, roles, words, arguments and swaps have to be rows of one `token_roles`, in the "
        "same order."
    )


def _annotation_errors(
    encoder: TextEncoder,
    tokens: Tensor,
    words: Tensor | None,
    roles: Tensor | None,
    arguments: Tensor | None,
    swaps: Tensor | None,
) -> dict[str, Tensor]:
    """Return which tokens `(B, C)`, or for "swaps" which swaps `(B, W)`, are wrong, by kind."""
    errors: dict[str, Tensor] = {}
    # CLIP's tokens say which words they form. In another vocabulary only some tokens are known:
    # those that certainly belong to no word.
    if encoder.vocabulary_size == CLIP_VOCABULARY_SIZE:
        token_words = word_numbers(tokens, CLIP_VOCABULARY_SIZE)
        is_no_word = token_words == 0
        numbers = token_words if words is None else words
    else:
        token_words, numbers = None, words
        is_no_word = encoder.non_word_mask(tokens)
    if numbers is not None:
        is_no_word = is_no_word | (numbers == 0)
    if roles is not None:
        errors["role"] = (roles < 0) | (roles > 3) | ((roles > 0) & is_no_word)
    if words is not None and token_words is not None:
        errors["word"] = words != token_words
    elif words is not None:
        errors["word"] = (words < 0) | ((words > 0) & is_no_word)
        if roles is not None:
            # These words cannot be derived from the tokens. Two roles in one word show at least
            # that words and roles are of different captions.
            errors["second role"] = _has_second_role(words, roles)
    if arguments is not None:
        # (B, 1, 1); a caption of C columns has at most C words.
        highest = tokens.shape[1] if numbers is None else numbers.amax(dim=1)[:, None, None]
        is_wrong = (arguments < 0) | (arguments > highest)
        is_wrong = is_wrong | (arguments > 0) & is_no_word[..., None]
        errors["arguments"] = is_wrong.any(dim=-1)
    if swaps is not None:
        errors["swaps"] = misplaced_swaps(swaps, ~is_no_word, roles)
    return errors


def _has_second_role(words: Tensor, roles: Tensor) -> Tensor:
    """Return which tokens have another role than the token before, if it is of the same word."""
    same_word = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] > 0)
    # Role 0 does not count, since a tagger may mark only a part of a word.
    both = (roles[:, 1:] > 0) & (roles[:, :-1] > 0)
    second = torch.zeros_like(words, dtype=torch.bool)
    second[:, 1:] = same_word & both & (roles[:, 1:] != roles[:, :-1])
    return second

"""Choose a text encoder: the packed encoder where it is exact, else the model's own code.

Hooks, adapters and wrappers only act in the model's own code. The results of both encoders are
equal up to rounding.
"""

from __future__ import annotations

import logging
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cae_lib.errors import ConfigError, check_type
from cae_lib.models.packed import PackedEncoder, find_packing_obstacle
from cae_lib.models.reference import ReferenceEncoder, find_text_interface
from cae_lib.models.text_tower import TextEncoder, TextOutput

EncoderImplementation = Literal["auto", "packed", "reference"]
_log = logging.getLogger("cae_lib")
_logged_obstacles: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def text_encoder(
    model: nn.Module | TextEncoder, implementation: EncoderImplementation = "auto"
) -> TextEncoder:
    """Return the text encoder of a model.

    An encoder in place of the model is returned unchanged, whatever `implementation` says. A model
    is inspected in each call, so hooks and adapters that are added later take effect. The logger
    "cae_lib" says which encoder "auto" chooses and why, once for each model and again when the
    model changes. The message is a warning for "reference", which is slower.

    Args:
        model: `CLIP`, `CustomTextCLIP` or `CoCa` of open_clip, or CLIP, SigLIP or SigLIP 2 of
            Hugging Face, each with or without peft adapters; or a `TextEncoder`.
        implementation: "packed", "reference" (the model's own code), or "auto" for "packed" where
            it is exact and else "reference".

    Raises:
        ConfigError: The model is not supported, "packed" is not exact for it, or `implementation`
            has another value.
    """
    check_type("implementation", implementation, EncoderImplementation)
    if not isinstance(model, nn.Module):
        return model
    if implementation == "reference":
        return ReferenceEncoder(find_text_interface(model))
    obstacle = find_packing_obstacle(model)
    if obstacle is not None and implementation == "packed":
        raise ConfigError(
            f"the packed encoder is not exact here: {obstacle}. Use implementation='auto'."
        )
    encoder = (
        PackedEncoder(model) if obstacle is None else ReferenceEncoder(find_text_interface(model))
    )
    if implementation == "auto":
        _log_once(model, obstacle)
    return encoder


def _log_once(model: nn.Module, obstacle: str | None) -> None:
    """Log which encoder a model gets, unless the same was logged for it before."""
    if _logged_obstacles.get(model, "") == obstacle:
        return
    _logged_obstacles[model] = obstacle
    if obstacle is None:
        _log.info("The text is packed: the tower is open_clip's own, causal and unmodified.")
    else:
        _log.warning("The text is encoded by the model's own code, not packed: %s.", obstacle)


def encode_text(model: nn.Module | TextEncoder, tokens: Tensor, **options: Any) -> TextOutput:
    """Encode captions by the text encoder of a model.

    Args:
        model: A model or an encoder, as for `text_encoder`.
        tokens: Ids of B captions in C columns `(B, C)`.
        **options: Options of `TextEncoder.encode`.

    Returns:
        The output of the encoder. Its `features` `(B, E)` are not normalised.

    Raises:
        ConfigError: If the model is not supported, or its attention is requested and cannot be
            read.
        DataError: If a caption has no end-of-text token, and the model reads its features there.
    """
    return text_encoder(model).encode(tokens, **options)

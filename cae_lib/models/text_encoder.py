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
# Weak keys, so that a model can be freed although it was logged.
_logged_obstacles: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def text_encoder(
    model: nn.Module | TextEncoder, implementation: EncoderImplementation = "auto"
) -> TextEncoder:
    """Return the text encoder of a model; a `TextEncoder` is returned unchanged.

    A model is `CLIP`, `CustomTextCLIP` or `CoCa` of open_clip, or CLIP, SigLIP or SigLIP 2 of
    Hugging Face, each with or without peft adapters. "packed" is refused where it is not exact,
    "reference" is the model's own code, and "auto" is "packed" where it is exact, else "reference".
    """
    check_type("implementation", implementation, EncoderImplementation)
    if not isinstance(model, nn.Module):
        return model
    if implementation == "reference":
        return ReferenceEncoder(find_text_interface(model))
    # In each call, so that hooks and adapters that are added later take effect.
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
    # The default differs from None, which stands for the packed encoder.
    if _logged_obstacles.get(model, "") == obstacle:
        return
    _logged_obstacles[model] = obstacle
    if obstacle is None:
        _log.info("The text is packed: the tower is open_clip's own, causal and unmodified.")
    else:
        # A warning, because the model's own code is slower.
        _log.warning("The text is encoded by the model's own code, not packed: %s.", obstacle)


def encode_text(model: nn.Module | TextEncoder, tokens: Tensor, **options: Any) -> TextOutput:
    """Encode captions `(B, C)` by the text encoder of a model; `options` are those of `encode`."""
    return text_encoder(model).encode(tokens, **options)

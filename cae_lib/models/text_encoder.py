"""Choice of a text encoder: packed where that is exact, else the model's own code.

Hooks, adapters and wrappers act in the model's own code only. Both encoders are equal up to
rounding.
"""

from __future__ import annotations

import logging
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cae_lib.errors import ConfigError, check_type
from cae_lib.models.packed import PackedEncoder, find_packing_obstacle
from cae_lib.models.reference import ReferenceEncoder, text_model
from cae_lib.models.text_tower import TextEncoder, TextOutput

EncoderPath = Literal["auto", "packed", "reference"]
_log = logging.getLogger("cae_lib")
_logged_obstacles: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def text_encoder(model: nn.Module | TextEncoder, path: EncoderPath = "auto") -> TextEncoder:
    """Return the encoder of a model's text; an encoder is returned as it is.

    The model is inspected in each call, so a hook or an adapter that is added later takes effect.
    The logger "cae_lib" tells once for each model, and again when it changes, which path "auto"
    takes and why: as a warning where it is the slower one.

    Args:
        model: `CLIP`, `CustomTextCLIP` or `CoCa` of open_clip, or CLIP, SigLIP or SigLIP 2 of
            Hugging Face; each may hold peft adapters.
        path: "reference", "packed", or "auto" for "packed" where it is exact.

    Raises:
        ConfigError: The model is unknown, or "packed" is not exact for it.
    """
    check_type("path", path, EncoderPath)
    if not isinstance(model, nn.Module):
        return model
    if path == "reference":
        return ReferenceEncoder(text_model(model))
    obstacle = find_packing_obstacle(model)
    if obstacle is not None and path == "packed":
        raise ConfigError(f"the packed path is not exact here: {obstacle}. Use path='auto'.")
    encoder = PackedEncoder(model) if obstacle is None else ReferenceEncoder(text_model(model))
    if path == "auto":
        _log_once(model, obstacle)
    return encoder


def _log_once(model: nn.Module, obstacle: str | None) -> None:
    """Log which path a model takes, unless the same was logged for it before."""
    if _logged_obstacles.get(model, "") == obstacle:
        return
    _logged_obstacles[model] = obstacle
    if obstacle is None:
        _log.info("The text is packed: the tower is open_clip's own, causal and unmodified.")
    else:
        _log.warning("The text is encoded by the model's own code, not packed: %s.", obstacle)


def encode_text(model: nn.Module | TextEncoder, tokens: Tensor, **options: Any) -> TextOutput:
    """Encode captions by the path that fits; see `TextEncoder.encode` for the options."""
    return text_encoder(model).encode(tokens, **options)

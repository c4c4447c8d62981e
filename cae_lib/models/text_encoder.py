"""Captions to features and attention: packed where that is exact, else by the model's own code, the
only one that hooks, adapters and wrappers act in. Both are equal up to rounding."""

from __future__ import annotations

import logging
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cae_lib.errors import ConfigError, check_type
from cae_lib.models.packed import PackedEncoder
from cae_lib.models.reference import ReferenceEncoder, text_model
from cae_lib.models.text_tower import TextEncoder, TextOutput, why_not_packed

EncoderPath = Literal["auto", "packed", "reference"]
_log = logging.getLogger("cae_lib")
_told: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def text_encoder(model: nn.Module | TextEncoder, path: EncoderPath = "auto") -> TextEncoder:
    """The encoder of a model's text; an encoder is returned as it is.

    The model is looked at anew in each call, so a hook or an adapter that is added later acts. The
    logger "cae_lib" tells once for each model, and again when it changes, which path "auto" takes
    and why: as a warning where it is the slower one.

    Args:
        model: open_clip `CLIP`, `CustomTextCLIP`, `CoCa`; Hugging Face CLIP, SigLIP, SigLIP 2, or
            BLIP for retrieval; each may hold peft adapters. Else a ConfigError.
        path: "reference", "packed" (ConfigError where that is not exact), or "auto", which chooses.
    """
    check_type("path", path, EncoderPath)
    if not isinstance(model, nn.Module):
        return model
    reason = why_not_packed(model) if path != "reference" else ""
    if reason is not None and path == "packed":
        raise ConfigError(f"the packed path is not exact here: {reason}. Use path='auto'.")
    encoder = PackedEncoder(model) if reason is None else ReferenceEncoder(text_model(model))
    if path == "auto" and _told.get(model, "") != reason:
        _told[model] = reason
        if reason is None:
            _log.info("The text is packed: the tower is open_clip's own, causal and unaltered.")
        else:
            _log.warning("The text is encoded by the model's own code, not packed: %s.", reason)
    return encoder


def encode_text(model: nn.Module | TextEncoder, tokens: Tensor, **options: Any) -> TextOutput:
    """Encode captions by the path that fits; see `TextEncoder.encode`."""
    return text_encoder(model).encode(tokens, **options)

"""Any text tower, run by its own modules, with its embeddings and its attention in reach."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.recording import alone, drops, recording, still
from cae_lib.models.text_tower import (
    Record,
    TextEncoder,
    TextOutput,
    from_end,
    one_hot,
    place_of,
    pool_of,
    read_at,
)

HUGGING_FACE = {"CLIPModel", "SiglipModel", "Siglip2Model"}
WRAPPERS = {"_orig_mod": "torch.compile", "module": "DataParallel"}
SHARDED = {"FSDPModule", "FullyShardedDataParallel"}


@dataclass(frozen=True)
class TextModel:
    """How a model of some library encodes text.

    Attributes:
        features: tokens `(B, C)` -> features `(B, E)`, not normalised.
        embedding: the layer that turns tokens into embeddings.
        tower: the module whose attention counts.
        position: tokens -> the position that is read `(B,)`; None for a mean over the tokens.
        attended: tokens -> which of them a mean is taken over `(B, C)` bool.
        outside: tokens -> which of them belong to no word `(B, C)` bool; None if that is not known.
    """

    model: nn.Module
    features: Callable[[Tensor], Tensor]
    embedding: nn.Module
    tower: nn.Module
    position: Callable[[Tensor], Tensor] | None
    attended: Callable[[Tensor], Tensor] | None = None
    outside: Callable[[Tensor], Tensor] | None = None


class ReferenceEncoder(TextEncoder):
    """The reference implementation; T is what the tower computes, mostly C."""

    path = "reference"

    def __init__(self, text: TextModel) -> None:
        self.text, self.model, self.embedding = text, text.model, text.embedding

    @property
    def table(self) -> Tensor:
        """See `TextEncoder`; adapters of the embedding are in it."""
        with torch.no_grad():
            tokens = torch.arange(self.vocabulary_size, device=self.embedding.weight.device)
            return self.embedding(tokens)

    @contextmanager
    def steady(self) -> Iterator[bool]:
        training = [module for module in self.model.modules() if module.training]
        dropout = any(map(drops, training))
        with still(training) if dropout else nullcontext():
            yield dropout

    def outside_words(self, tokens: Tensor) -> Tensor:
        outside = super().outside_words(tokens)
        return outside if self.text.outside is None else outside | self.text.outside(tokens)

    def columns(self, tokens: Tensor) -> int:
        return tokens.shape[1]

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: Record | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        if embeddings is None:
            embeddings = self.embed(tokens)
        explicit = attention is not None or second_order
        if second_order or attention == "maps":
            self._assert_whole()
        with self._given(embeddings):
            with recording(self.text.tower) if explicit else nullcontext([]) as maps:
                features = self.text.features(tokens)
        if attention is None:
            return TextOutput(features, [], embeddings, self._readout(tokens, tokens.shape[1]))
        if not maps:
            raise ConfigError(
                f"the attention of {type(self.text.tower).__name__} cannot be read: it neither "
                "calls scaled_dot_product_attention nor returns its maps. Use the method "
                "'perturbation' or 'gradient'."
            )
        readout = self._readout(tokens, maps[0].shape[-1])
        if attention == "row":
            with torch.autocast(readout.device.type, enabled=False):
                maps = [torch.einsum("bt,bhts->bhs", readout.to(m.dtype), m) for m in maps]
        return TextOutput(features, maps, embeddings, readout)

    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, stand_in: Tensor
    ) -> Tensor:
        embeddings = self.embed(tokens)
        other = self.embed(stand_in)[caption] if stand_in.ndim == 2 else stand_in.to(embeddings)
        changed = torch.where(masked.unsqueeze(-1), other, embeddings[caption])
        own = torch.arange(len(tokens), device=tokens.device)
        with self._given(torch.cat([embeddings, changed])):
            return self.text.features(tokens[torch.cat([own, caption])])

    def encode_many(self, tokens: Tensor) -> Tensor:
        return self.text.features(tokens)

    def _assert_whole(self) -> None:
        """A ConfigError where FSDP shards layers, whose hooks act in one backward pass only."""
        for module in self.model.modules():
            if SHARDED & {kind.__name__ for kind in type(module).__mro__}:
                raise ConfigError(
                    f"the model's {type(module).__name__} is sharded, so that S has no derivatives "
                    "within a step: use DistributedDataParallel instead, or the method 'attention' "
                    "or 'perturbation'."
                )

    def _readout(self, tokens: Tensor, length: int) -> Tensor:
        """See `TextOutput`; `length` exceeds the tokens where a class token is appended."""
        like = next(self.text.tower.parameters())
        if self.text.position is not None:
            return one_hot(self.text.position(tokens) % length, length, like)
        attended = self.text.attended(tokens).to(torch.promote_types(like.dtype, torch.float32))
        return attended / attended.sum(dim=1, keepdim=True)

    @contextmanager
    def _given(self, embeddings: Tensor) -> Iterator[None]:
        """Put embeddings in the place of those that the tower looks up in this thread."""
        thread = threading.get_ident()
        hook = self.embedding.register_forward_hook(  # a copy: BLIP adds positions in place
            lambda *_: embeddings.clone() if threading.get_ident() == thread else None
        )
        try:
            with alone():
                yield
        finally:
            hook.remove()


def text_model(model: nn.Module) -> TextModel:
    """Find out how a model encodes text; ConfigError for an unknown model or a wrapper of one."""
    if hasattr(model, "get_base_model"):  # peft's wrapper: adapters of layers lie in the model
        if model.active_peft_config.is_prompt_learning:
            raise ConfigError("prompt learning acts in peft's wrapper alone; use layers' adapters.")
        model = model.get_base_model()
    for attribute, wrapper in WRAPPERS.items():
        if isinstance(getattr(model, attribute, None), nn.Module):
            raise ConfigError(
                f"{type(model).__name__} wraps the model ({wrapper}): pass model.{attribute}, "
                "which shares its parameters."
            )
    names = {kind.__name__ for kind in type(model).__mro__}
    if hasattr(model, "encode_text"):
        return _open_clip(model)
    if names & HUGGING_FACE:
        return _hugging_face(model, causal="CLIPModel" in names)
    if "BlipForImageTextRetrieval" in names:
        return _blip(model)
    raise ConfigError(
        f"cannot tell how {type(model).__name__} encodes text: expected a model of open_clip, or "
        "Hugging Face's CLIPModel, SiglipModel, Siglip2Model or BlipForImageTextRetrieval. For "
        "another one, build a TextModel and pass ReferenceEncoder(TextModel(...)) as the model."
    )


def _open_clip(model: nn.Module) -> TextModel:
    def features(tokens: Tensor) -> Tensor:
        return model.encode_text(tokens, normalize=False)

    text = getattr(model, "text", model)
    if hasattr(text, "token_embedding"):
        position = read_at(text)
        outside = partial(from_end, position) if pool_of(text) in ("argmax", "eos") else None
        return TextModel(
            model, features, text.token_embedding, text.transformer, position, outside=outside
        )
    pooler = type(text.pooler).__name__
    if pooler not in ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler"):
        raise ConfigError(f"the text tower is read by {pooler}, at no position and by no mean.")
    padding = text.config.pad_token_id
    embedding = text.transformer.get_input_embeddings()
    position = None if pooler == "MeanPooler" else place_of("first")
    return TextModel(
        model,
        features,
        embedding,
        text.transformer,
        position,
        attended=lambda tokens: tokens != padding,
        outside=_special_tokens(text.config, first=position is not None),
    )


def _hugging_face(model: nn.Module, causal: bool) -> TextModel:
    def features(tokens: Tensor) -> Tensor:
        found: Any = model.get_text_features(input_ids=tokens)
        return getattr(found, "pooler_output", found)  # transformers 4 returns the tensor itself

    text = model.text_model
    eos = getattr(text, "eos_token_id", None)  # 2 in OpenAI's configurations, where it is wrong
    pool = ("argmax" if eos == 2 else "eos") if causal else "last"
    position = place_of(pool, eos, text.config.vocab_size)
    return TextModel(
        model,
        features,
        text.embeddings.token_embedding,
        text,
        position,
        outside=partial(from_end, position) if causal else None,
    )


def _blip(model: nn.Module) -> TextModel:
    encoder = model.text_encoder
    padding = encoder.config.pad_token_id

    def features(tokens: Tensor) -> Tensor:
        output = encoder(input_ids=tokens, attention_mask=(tokens != padding).long())
        return model.text_proj(output.last_hidden_state[:, 0])

    embedding = encoder.get_input_embeddings()
    return TextModel(
        model,
        features,
        embedding,
        encoder,
        place_of("first"),
        outside=_special_tokens(encoder.config, first=True),
    )


def _special_tokens(config: Any, first: bool) -> Callable[[Tensor], Tensor]:
    """Return a function that tells which tokens `(B, C)` start, end or pad a text, by Hugging
    Face's configuration, and with `first` the first token of each row."""
    names = (f"{name}_token_id" for name in ("bos", "eos", "sep", "pad"))
    ids = [value for name in names if isinstance(value := getattr(config, name, None), int)]

    def outside(tokens: Tensor) -> Tensor:
        special = torch.isin(tokens, torch.tensor(ids, dtype=tokens.dtype, device=tokens.device))
        special[:, 0] |= first
        return special

    return outside

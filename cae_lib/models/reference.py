"""Reference text encoder: runs any text tower by its own code.

Hooks give access to the embeddings, and recording gives access to the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.recording import (
    eval_without_checkpointing,
    exclusive_patching,
    has_dropout,
    record_attention,
)
from cae_lib.models.text_tower import (
    AttentionKind,
    TextEncoder,
    TextOutput,
    end_and_padding_mask,
    one_hot,
    open_clip_pooling_position_fn,
    pool_type,
    pooling_position_fn,
)

# Names and not classes, so that transformers need not be installed.
HUGGING_FACE_CLASSES = {"CLIPModel", "SiglipModel", "Siglip2Model"}

WRAPPER_ATTRIBUTES = {"_orig_mod": "torch.compile", "module": "DataParallel"}
"""Names of wrappers of models, by the attribute in which the wrapper holds the model."""


@dataclass(frozen=True)
class TextInterface:
    """A model of any library, with the functions and modules that encode its text.

    Shapes: B texts, C columns of tokens, E the size of the features.

    Attributes:
        model: The model.
        features: Tokens `(B, C)` -> features `(B, E)`, not normalised.
        embedding: The layer that turns tokens into embeddings. Its `weight` has a row for each
            token of the vocabulary.
        tower: The text tower, whose attention is recorded.
        pooling_position: Tokens -> the position at which features are read `(B,)`, -1 for the last;
            None if features are a mean over tokens.
        pooling_mask: Tokens -> mask `(B, C)` of the tokens that the features are a mean over. Used
            only if `pooling_position` is None, and then needed.
        non_word_mask: Tokens -> mask `(B, C)` of the tokens that belong to no word; None if
            unknown.
        n_appended: Number of tokens that the tower appends to a text, such as CoCa's class token.
    """

    model: nn.Module
    features: Callable[[Tensor], Tensor]
    embedding: nn.Module
    tower: nn.Module
    pooling_position: Callable[[Tensor], Tensor] | None
    pooling_mask: Callable[[Tensor], Tensor] | None = None
    non_word_mask: Callable[[Tensor], Tensor] | None = None
    n_appended: int = 0


class ReferenceEncoder(TextEncoder):
    """Reference implementation, which runs the model's own code on all columns of the tokens."""

    implementation = "reference"

    def __init__(self, interface: TextInterface) -> None:
        self.interface, self.model, self.embedding = (
            interface,
            interface.model,
            interface.embedding,
        )

    @property
    def embedding_table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, adapters included, detached."""
        with torch.no_grad():
            device = next(self.embedding.parameters()).device
            # The weight alone would lack an adapter around the layer.
            return self.embedding(torch.arange(self.vocabulary_size, device=device))

    @contextmanager
    def dropout_disabled(self) -> Iterator[bool]:
        """Switch dropout off, and yield whether any was active before."""
        # A part of the model may be in eval mode, and has to stay in it afterwards.
        training = [module for module in self.model.modules() if module.training]
        dropout = any(map(has_dropout, training))
        with eval_without_checkpointing(training) if dropout else nullcontext():
            yield dropout

    def non_word_mask(self, tokens: Tensor) -> Tensor:
        """Return a mask `(B, C)` of the tokens that certainly belong to no word."""
        outside = super().non_word_mask(tokens)
        find = self.interface.non_word_mask
        return outside if find is None else outside | find(tokens)

    def n_used_columns(self, tokens: Tensor) -> int:
        """Return C, the number of columns of the tokens."""
        return tokens.shape[1]

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions by the model's own code."""
        if embeddings is None:
            embeddings = self.embed(tokens)
        # Recording replaces the fused kernel, which has no second derivatives.
        is_explicit = attention is not None or second_order
        recorder = record_attention(self.interface.tower) if is_explicit else nullcontext([])
        with self._with_embeddings(embeddings), recorder as maps:
            features = self.interface.features(tokens)
        if attention is None:
            readout = self._readout(tokens, tokens.shape[1] + self.interface.n_appended)
            return TextOutput(features, [], embeddings, readout)
        if not maps:
            raise ConfigError(
                f"the attention of {type(self.interface.tower).__name__} cannot be read: it does "
                "not call scaled_dot_product_attention. Use the method 'perturbation' or "
                "'gradient'."
            )
        # The maps say how many positions the tower computes.
        readout = self._readout(tokens, maps[0].shape[-1])
        if attention == "row":
            # Autocast would compute the product in half precision, unlike the maps.
            with torch.autocast(readout.device.type, enabled=False):
                maps = [torch.einsum("bt,bhts->bhs", readout.to(m.dtype), m) for m in maps]
        return TextOutput(features, maps, embeddings, readout)

    def encode_variants(
        self, tokens: Tensor, caption_index: Tensor, masked: Tensor, replacement: Tensor
    ) -> Tensor:
        """Encode captions and variants as one batch."""
        embeddings = self.embed(tokens)
        if replacement.ndim == 2:
            stand_in = self.embed(replacement)[caption_index]
        else:
            stand_in = replacement.to(embeddings)
        variants = torch.where(masked.unsqueeze(-1), stand_in, embeddings[caption_index])
        rows = torch.cat([torch.arange(len(tokens), device=tokens.device), caption_index])
        with self._with_embeddings(torch.cat([embeddings, variants])):
            return self.interface.features(tokens[rows])

    def encode_features(self, tokens: Tensor) -> Tensor:
        """Encode texts as one batch."""
        return self.interface.features(tokens)

    def _readout(self, tokens: Tensor, length: int) -> Tensor:
        """Return the readout of `TextOutput` over the `length` positions that are computed."""
        like = next(self.interface.tower.parameters())
        if self.interface.pooling_position is not None:
            # The remainder turns -1 into the last position.
            return one_hot(self.interface.pooling_position(tokens) % length, length, like)
        assert self.interface.pooling_mask is not None, "a mean needs the tokens that it is over"
        attended = self.interface.pooling_mask(tokens).to(
            torch.promote_types(like.dtype, torch.float32)
        )
        return attended / attended.sum(dim=1, keepdim=True)

    @contextmanager
    def _with_embeddings(self, embeddings: Tensor) -> Iterator[None]:
        """Let the tower use `embeddings` instead of the ones that it looks up."""
        # A copy, because some towers add positions to it in place.
        hook = self.embedding.register_forward_hook(lambda *_: embeddings.clone())
        try:
            with exclusive_patching():
                yield
        finally:
            hook.remove()


def find_text_interface(model: Any) -> TextInterface:
    """Return how a model of open_clip or Hugging Face encodes text; ConfigError if unknown."""
    # peft's wrapper: adapters of layers lie in the model itself, but prompts in the wrapper.
    if hasattr(model, "get_base_model"):
        if model.active_peft_config.is_prompt_learning:
            raise ConfigError("prompt learning acts in peft's wrapper alone; use layers' adapters.")
        model = model.get_base_model()
    for attribute, wrapper in WRAPPER_ATTRIBUTES.items():
        if isinstance(getattr(model, attribute, None), nn.Module):
            raise ConfigError(
                f"{type(model).__name__} wraps the model ({wrapper}): pass model.{attribute}, "
                "which shares its parameters."
            )
    for module in model.modules():
        if type(module).__name__.startswith(("FSDP", "FullyShardedDataParallel")):
            raise ConfigError(
                f"the model's {type(module).__name__} is sharded, and sharded layers have no "
                "derivatives within a step: use DistributedDataParallel instead."
            )
    names = {kind.__name__ for kind in type(model).__mro__}
    if hasattr(model, "encode_text"):
        return _open_clip(model)
    if names & HUGGING_FACE_CLASSES:
        return _hugging_face(model, causal="CLIPModel" in names)
    raise ConfigError(
        f"cannot tell how {type(model).__name__} encodes text: expected a model of open_clip, or "
        "Hugging Face's CLIPModel, SiglipModel or Siglip2Model. For another one, build a "
        "TextInterface and pass ReferenceEncoder(TextInterface(...)) as the model."
    )


def _open_clip(model: Any) -> TextInterface:
    features = partial(model.encode_text, normalize=False)
    text = getattr(model, "text", model)
    if hasattr(text, "token_embedding"):
        position = open_clip_pooling_position_fn(text)
        knows_end = pool_type(text) in ("argmax", "eos")
        non_word_mask = partial(end_and_padding_mask, position) if knows_end else None
        return TextInterface(
            model,
            features,
            text.token_embedding,
            text.transformer,
            position,
            non_word_mask=non_word_mask,
            n_appended=int(getattr(text, "cls_emb", None) is not None),
        )
    # From here on, the text tower is one of Hugging Face.
    pooler = type(text.pooler).__name__
    if pooler not in ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler"):
        raise ConfigError(f"the text tower is read by {pooler}, at no position and by no mean.")
    padding = text.config.pad_token_id
    # Both other poolers read the class token, which comes first.
    position = None if pooler == "MeanPooler" else pooling_position_fn("first")
    return TextInterface(
        model,
        features,
        text.transformer.get_input_embeddings(),
        text.transformer,
        position,
        pooling_mask=lambda tokens: tokens != padding,
        non_word_mask=_special_tokens(text.config, first=position is not None),
    )


def _special_tokens(config: Any, first: bool) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens `(B, C)` to a mask of those that start, end or pad a text."""
    names = (f"{name}_token_id" for name in ("bos", "eos", "sep", "pad"))
    ids = [value for name in names if isinstance(value := getattr(config, name, None), int)]

    def find_special(tokens: Tensor) -> Tensor:
        special = torch.isin(tokens, torch.tensor(ids, dtype=tokens.dtype, device=tokens.device))
        # A class token comes first, whatever its id.
        special[:, 0] |= first
        return special

    return find_special


def _hugging_face(model: Any, causal: bool) -> TextInterface:
    def features(tokens: Tensor) -> Tensor:
        output = model.get_text_features(input_ids=tokens)
        # transformers 4 returns the tensor itself.
        return getattr(output, "pooler_output", output)

    text = model.text_model
    # OpenAI's configurations say 2, which is wrong; transformers then takes the highest id.
    eos = getattr(text, "eos_token_id", None)
    pool = ("argmax" if eos == 2 else "eos") if causal else "last"
    position = pooling_position_fn(pool, eos, text.config.vocab_size)
    return TextInterface(
        model,
        features,
        text.embeddings.token_embedding,
        text,
        position,
        non_word_mask=partial(end_and_padding_mask, position) if causal else None,
    )

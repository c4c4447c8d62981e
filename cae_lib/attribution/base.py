"""What every attribution method takes and gives, and what ours have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from cae_lib.attribution.grouping import words_or_own
from cae_lib.attribution.similarity import gradients, matched_similarity
from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder, text_encoder


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption, for its matched image.

    Attributes:
        scores: a_j `(B, T)`, float32 or wider; T is at most the number of columns of the tokens.
            In a causal tower positions after a caption's end-of-text token are 0.
        text_features: `(B, E)`, not normalised, from the same pass.
        scored: `(B, T)` bool, the wanted tokens that have a score; None if all have.
    """

    scores: Tensor
    text_features: Tensor
    scored: Tensor | None = None

    @property
    def length(self) -> int:
        """T, the number of positions scored."""
        return self.scores.shape[1]


class AttributionMethod(Protocol):
    """A method is an object that can be called; ours are frozen dataclasses of their parameters.

    A method that has `reads_roles = True` gets `roles` as well; see `Captions`.

    Attributes:
        reads_words: whether `words` changes the scores.
    """

    @property
    def reads_words(self) -> bool:
        """See the class."""
        ...

    def __call__(
        self, model: nn.Module | TextEncoder, tokens: Tensor, image_features: Tensor, *,
        create_graph: bool = False, words: Tensor | None = None, wanted: Tensor | None = None,
    ) -> Attribution:
        """Score every token of each caption.

        Args:
            model: a model that `text_encoder` knows, or an encoder.
            tokens: `(B, C)` token ids, on the model's device.
            image_features: `(B, E)`, of any length and detached; row i belongs to caption i.
            create_graph: make scores and features differentiable with respect to the model;
                otherwise both are detached.
            words: `(B, C)` number of the word each token belongs to, 0 for none. Read by
                methods that treat a word as a whole; derived from CLIP's tokens when left out.
            wanted: `(B, C)` bool, tokens whose scores are used. A method may leave the others 0
                to save work; None wants all.

        Raises:
            ConfigError: for an unknown model, or inputs on another device.
        """
        ...


@dataclass(frozen=True)
class Captions:
    """The arguments of a call, with the model's encoder; `roles (B, C)`, 0 other, 1 object,
    2 attribute, 3 relation, is given to methods that read them."""

    encoder: TextEncoder
    tokens: Tensor
    image_features: Tensor
    create_graph: bool
    given_words: Tensor | None
    wanted: Tensor | None
    roles: Tensor | None

    def words(self, length: int) -> Tensor:
        """Number of the word each of the first tokens belongs to `(B, length)`, 0 for none."""
        words = words_or_own(self.given_words, self.tokens, self.encoder)
        return words[:, :length]

    def embeddings(self) -> Tensor:
        """Token embeddings `(B, S, D)` that a gradient can be taken at, even of a frozen model."""
        embeddings = self.encoder.embed(self.tokens)
        return embeddings if embeddings.requires_grad else embeddings.requires_grad_()

    def similarity(self, features: Tensor, temperature: bool = False) -> Tensor:
        """S `(B,)` of text features `(B, E)` and their images; see `matched_similarity`."""
        return matched_similarity(self.encoder.model, self.image_features, features, temperature)


class Method:
    """A method whose `score` reads captions; it records gradients if it `differentiates` S."""

    reads_words: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module | TextEncoder, tokens: Tensor, image_features: Tensor, *,
        create_graph: bool = False, words: Tensor | None = None, wanted: Tensor | None = None,
        roles: Tensor | None = None,
    ) -> Attribution:
        """Score every token; see `AttributionMethod`."""
        with gradients() if self.differentiates else torch.set_grad_enabled(create_graph):
            encoder = text_encoder(model)
            inputs = _checked(encoder, tokens=tokens, image_features=image_features)
            found = self.score(Captions(encoder, *inputs, create_graph, words, wanted, roles))
        if create_graph:
            return found
        return Attribution(found.scores.detach(), found.text_features.detach(), found.scored)

    def score(self, captions: Captions) -> Attribution:
        """Scores with a graph, if the captions ask for one or the method differentiates."""
        raise NotImplementedError


def _checked(encoder: TextEncoder, **inputs: Tensor) -> list[Tensor]:
    """The inputs on the model's device, as tensors that autograd may keep."""
    device = next(encoder.model.parameters()).device
    for name, value in inputs.items():
        if value.device != device:
            raise ConfigError(
                f"{name} are on {value.device}, the model is on {device}: move one of them."
            )
    return [value.clone() if value.is_inference() else value for value in inputs.values()]

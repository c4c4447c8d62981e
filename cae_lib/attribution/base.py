"""What every attribution method takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from cae_lib.models.text_encoder import TextEncoder


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption, for its matched image.

    Attributes:
        scores: a_j `(B, T)`, float32 or wider; T is at most the number of columns of the tokens.
            In a causal tower positions after a caption's end-of-text token are 0.
        text_features: `(B, E)`, not normalised, from the same pass.
    """

    scores: Tensor
    text_features: Tensor

    @property
    def length(self) -> int:
        """T, the number of positions scored."""
        return self.scores.shape[1]


class AttributionMethod(Protocol):
    """A method is an object that can be called; ours are frozen dataclasses of their parameters.

    Attributes:
        reads_words: whether `words` changes the scores.
    """

    @property
    def reads_words(self) -> bool:
        """See the class."""
        ...

    def __call__(
        self,
        model: nn.Module | TextEncoder,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
        wanted: Tensor | None = None,
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

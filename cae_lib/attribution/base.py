"""What every attribution method takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption, for its matched image.

    Attributes:
        scores: a_j `(B, T)`, float32 or wider; T is the batch's longest caption. Positions after a
            caption's end-of-text token are 0.
        text_features: `(B, E)`, not normalised, from the same pass.
    """

    scores: Tensor
    text_features: Tensor

    @property
    def length(self) -> int:
        """T, the number of positions scored."""
        return self.scores.shape[1]


class AttributionMethod(Protocol):
    """A method is a frozen dataclass of its parameters that can be called.

    Attributes:
        reads_words: whether `words` changes the scores.
    """

    reads_words: ClassVar[bool]

    def __call__(
        self,
        model: nn.Module,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
    ) -> Attribution:
        """Score every token of each caption.

        Args:
            model: open_clip model with a causal text tower read at its end-of-text token.
            tokens: `(B, context_length)` token ids.
            image_features: `(B, E)`, of any length and detached; row i belongs to caption i.
            create_graph: make scores and features differentiable with respect to the model;
                otherwise both are detached.
            words: `(B, T)` number of the word each token belongs to, 0 for none. Read by
                methods that treat a word as a whole; derived from the tokens when left out.
        """
        ...

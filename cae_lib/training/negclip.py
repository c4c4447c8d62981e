"""NegCLIP's batch and loss: similar pictures in the batch, false captions as extra columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError


def negclip_loss(
    image_features: Tensor,
    text_features: Tensor,
    negative_features: Tensor,
    logit_scale: Tensor,
) -> Tensor:
    """Contrastive loss with false captions that every image has to tell from its own.

    NegCLIP (Yuksekgonul et al. 2023): cross-entropy of the images over all M + K texts, and of the
    M captions over the M images, `(L_i2t + L_t2i) / 2`. Without false captions this is
    `contrastive_loss`.

    Args:
        image_features: `(M, E)`, normalised; row i belongs to caption i.
        text_features: captions `(M, E)`, normalised.
        negative_features: false captions `(K, E)`, normalised, in any order; K may be 0.
        logit_scale: inverse temperature, already exponentiated.
    """
    texts = torch.cat([text_features, negative_features])
    logits = logit_scale * image_features @ texts.T
    labels = torch.arange(len(logits), device=logits.device)
    captions = logits[:, : len(labels)]
    return (F.cross_entropy(logits, labels) + F.cross_entropy(captions.T, labels)) / 2


@dataclass(frozen=True)
class NegClipRows:
    """What NegCLIP adds to a batch of B rows.

    Attributes:
        rows: `(2B,)`, the rows of the batch, then one row with a similar picture for each.
        negatives: a false caption of each of the 2B rows; None where the file has none.
        n_similar: rows of the batch whose similar picture the file names; the others got any
            other row.
    """

    rows: Tensor
    negatives: list[str | None]
    n_similar: int


def choose_negatives(pairs: Pairs, rows: Tensor, generator: torch.Generator) -> NegClipRows:
    """Draw one similar picture for each row, and one false caption for each of the two.

    Args:
        pairs: rows of a NegCLIP file, with `negatives` and `hard_images`.
        rows: `(B,)` row numbers of a batch.
        generator: CPU generator; the draw is a function of its state.
    """
    draws = torch.rand(3, len(rows), generator=generator, dtype=torch.float64)
    similar, n_similar = [], 0
    for row, draw in zip(rows.tolist(), draws[0].tolist(), strict=True):
        known = pairs.hard_images[row]
        n_similar += bool(known)
        similar.append(_pick(known, draw) if known else _any_other(row, pairs.n_used, draw))
    both = torch.cat([rows, torch.tensor(similar, dtype=rows.dtype)])
    negatives = [
        _pick(pairs.negatives[row], draw) if pairs.negatives[row] else None
        for row, draw in zip(both.tolist(), draws[1:].flatten().tolist(), strict=True)
    ]
    return NegClipRows(both, negatives, n_similar)


def check_negatives(pairs: Pairs) -> None:
    """Make sure that a set can be trained on as NegCLIP is.

    Raises:
        DataError: it has no columns of negatives, or no false caption at all.
    """
    if pairs.negatives is None or pairs.hard_images is None:
        raise DataError(
            f"{pairs.name} has no hard negatives: training with them needs NegCLIP's tab separated "
            "file, with the columns neg_caption and neg_image."
        )
    if not any(pairs.negatives):
        raise DataError(
            f"{pairs.name}: none of its {pairs.n_used} rows has a false caption in neg_caption. "
            "Make the file again, or train without negatives."
        )


def _pick(choices: list, draw: float):
    return choices[int(draw * len(choices))]


def _any_other(row: int, count: int, draw: float) -> int:
    return (row + 1 + int(draw * (count - 1))) % count

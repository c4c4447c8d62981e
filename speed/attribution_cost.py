"""Time to score captions without training: ours, captum's ablation, and the whole relevance rule.

Usage, from the top of the repository:

    .venv/bin/python -m speed.attribution_cost --threads 1
    .venv/bin/python -m speed.attribution_cost --batch 2 --rounds 1 --no-record  # a look

The model is a ViT-B-32 with random weights, the captions are real. The candidates are

    perturbation         cae_lib's scores, each word masked by the token "*"
    captum               captum's `FeatureAblation` on the token ids, by word, with the same token
                         and open_clip's `encode_text` as forward function; one word of every
                         caption a pass (`perturbations_per_eval=1`, captum's default)
    captum-all-words     the same, all words of every caption in one pass
    captum-by-caption    the same, caption by caption, all words of it in one pass: no pass is spent
                         on words that a caption does not have
    gradcam              cae_lib's scores
    plain-gradcam        the T x T rule on full maps of 77 tokens, see naive.py

captum is spared the group that is no word (start, end and padding). That all scores of a word are
equal is checked before anything is timed. The result is the table `cost_attribution`, which
the page `cost` shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import FeatureAblation
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.models.clip import load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.words.alignment import word_numbers
from speed import naive
from speed.common import (
    MODEL,
    Batch,
    batches,
    captions_file,
    common_options,
    facts,
    interleaved,
    median_table,
    of_captions,
    prepare,
    seconds,
    store,
    tokens,
)

TABLE = "cost_attribution"
# The word "*", by which cae_lib masks with `replacement="token"`.
MASK_TOKEN = 265
TOLERANCE = 1e-5


class Scorer:
    """One model, and each candidate as a function from batch to scores `(B, 77)`."""

    def __init__(self, model: nn.Module, data: list[Batch]) -> None:
        self.model = model
        self.data = data
        with torch.no_grad():
            images = encode_image(model, data[0].images).features
            self.images = F.normalize(images, dim=-1)
        self.candidates: dict[str, Callable[[Batch], Tensor]] = {
            "perturbation": partial(self.ours, get_method("perturbation", replacement="token")),
            "captum": partial(self.captum, at_once=1),
            "captum-all-words": partial(self.captum, at_once=None),
            "captum-by-caption": self.captum_by_caption,
            "gradcam": partial(self.ours, get_method("gradcam")),
            "plain-gradcam": self.plain_gradcam,
        }

    def run(self, name: str, number: int) -> Tensor:
        """Return the scores of batch `number`."""
        return self.candidates[name](self.data[number])

    def ours(self, method: Callable, batch: Batch) -> Tensor:
        """Return cae_lib's scores, with zeros up to 77."""
        scores = method(self.model, batch.tokens, self.images[: len(batch.tokens)]).scores
        return F.pad(scores, (0, batch.tokens.shape[1] - scores.shape[1]))

    def captum(self, batch: Batch, at_once: int | None) -> Tensor:
        """Score all captions together by captum; `at_once` words a pass, None for all."""
        return self._ablate(batch.tokens, self.images[: len(batch.tokens)], at_once)

    def captum_by_caption(self, batch: Batch) -> Tensor:
        """Score one caption after the other by captum, all its words in one pass."""
        images = self.images[: len(batch.tokens)]
        pairs = zip(batch.tokens.split(1), images.split(1), strict=True)
        return torch.cat([self._ablate(tokens, image, None) for tokens, image in pairs])

    def plain_gradcam(self, batch: Batch) -> Tensor:
        """Return scores by the relevance rule with whole matrices."""
        images = self.images[: len(batch.tokens)]
        _, scores = naive.gradcam(self.model, images, batch.tokens, create_graph=False)
        return scores.detach()

    def _ablate(self, tokens: Tensor, images: Tensor, at_once: int | None) -> Tensor:
        words = word_numbers(tokens, 49408)
        # captum numbers groups from 0 and needs one for every token: what is no word shares the
        # first word's group, and is put back below.
        groups = words.clamp(min=1) - 1

        def similarity(ids: Tensor, given: Tensor, inside: Tensor, images: Tensor) -> Tensor:
            features = self.model.encode_text(torch.where(inside, ids, given))
            return (images * F.normalize(features, dim=-1)).sum(dim=-1)

        scores = FeatureAblation(similarity).attribute(
            tokens,
            baselines=MASK_TOKEN,
            feature_mask=groups,
            additional_forward_args=(tokens, words > 0, images),
            perturbations_per_eval=at_once or int(words.max()),
        )
        return scores * (words > 0)


def check_equal(scorer: Scorer, batch: Batch) -> dict[str, dict[str, float]]:
    """Return the largest difference of each candidate's word scores from ours."""
    words = word_numbers(batch.tokens, 49408) > 0
    differences = {}
    for name, run in scorer.candidates.items():
        ours = "gradcam" if "gradcam" in name else "perturbation"
        if name == ours:
            continue
        expected, scores = scorer.candidates[ours](batch)[words], run(batch)[words]
        differences[name] = {
            "scores": (expected - scores).abs().max().item(),
            "largest_score": expected.abs().max().item(),
        }
        # Between implementations that differ, a comparison of speed would mean nothing.
        assert differences[name]["scores"] <= TOLERANCE, f"{name}: {differences[name]}"
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common_options(parser)
    parser.add_argument("--batch", type=int, default=16, help="captions scored together")
    parser.add_argument("--few-rounds", type=int, default=3, help="rounds of captum")
    options = parser.parse_args()
    started = time.monotonic()
    device = prepare(options)
    path = captions_file(options.captions)
    clip = load_clip(MODEL, device=device, seed=options.seed)
    data = batches(path, clip, options.rounds, options.batch, options.seed, device)
    scorer = Scorer(clip.model, data)
    checked = data[0].first(4)
    equal = check_equal(scorer, checked)
    print(f"equal on {len(checked.tokens)} captions: {equal}", flush=True)
    rounds = interleaved(
        {name: partial(scorer.run, name) for name in scorer.candidates},
        options.rounds,
        device,
        few={name: options.few_rounds for name in scorer.candidates if "captum" in name},
        clock=options.clock,
    )
    frame = pd.concat([seconds(rounds), tokens(data), facts("difference", equal)])
    print(median_table(frame, "perturbation"), flush=True)
    subject = of_captions(path, options.batch)
    store(TABLE, options, device, subject, subject["captions_digest"], frame, started)


if __name__ == "__main__":
    main()

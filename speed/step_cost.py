"""Time and peak memory of one training step: CLIP as usual, CLIP-FT here, and CAE four ways.

Usage, from the top of the repository:

    .venv/bin/python -m speed.step_cost --threads 1
    .venv/bin/python -m speed.step_cost --batch 2 --rounds 1 --no-record         # a quick look

A step is forward, backward and AdamW (the same fused one for all) of a ViT-B-32 with random
weights on images of noise and real captions, in float32. The candidates are

    open_clip            open_clip's model(images, texts), all 77 tokens, and its ClipLoss
    clip-ft              plain fine-tuning with the towers of cae_lib
    attention, gradcam, perturbation, gradient
                         CAE with `CAELoss`
    counterfactual, binding
                         the same by our two methods, with one swap a caption and step
    reference-attention, reference-gradcam, reference-perturbation, reference-gradient
                         the same by the reference encoder, which calls the model's own modules
    plain-gradcam, plain-perturbation
                         CAE as in naive.py, checked to give the same scores, loss and
                         gradient before anything is timed
    images, images-open_clip
                         the image encoder alone, forward, backward and its own update: what the
                         other steps have in common

All train one model in turns, on another batch in each round. A first step of each, which is not
timed, gives its peak memory. The result is the table `cost_step`, which the page `cost` shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.clip import load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text
from cae_lib.training.losses import (
    AttributionLossConfig,
    CAELoss,
    attribution_loss,
    contrastive_loss,
)
from cae_lib.training.objective import adamw
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
    peak_memory,
    prepare,
    seconds,
    store,
    tokens,
)

TABLE = "cost_step"
CHECKED = 4
"""Captions on which the naive implementations are compared with cae_lib's."""

TOLERANCES = {"scores": 1e-5, "loss": 1e-5, "gradient": 1e-4}

MARGIN = 10.0
"""Large, so that the hinge of the attribution loss is active in every step."""

PLAIN = ("gradcam", "perturbation")
OURS = {"counterfactual": {"samples": 1}, "binding": {"samples": 1, "hinge": "margin"}}
"""Methods that are not the paper's, with the settings of their runs."""


class Trainer:
    """One model and optimiser, and a training step of each candidate."""

    def __init__(self, device: torch.device, seed: int, data: list[Batch]) -> None:
        self.model = load_clip(MODEL, device=device, seed=seed).model.train()
        self.optimizer = adamw(self.model, lr=1e-6)
        self.data = data
        # Fixed text features stand in for the text tower where the image tower is timed alone.
        with torch.no_grad():
            self.fixed = F.normalize(encode_text(self.model, data[0].tokens).features, dim=-1)
        self.cae = {name: CAELoss(self.model, name, margin=MARGIN) for name in PAPER_METHODS}
        self.cae |= {
            name: CAELoss(self.model, name, margin=MARGIN, **settings)
            for name, settings in OURS.items()
        }
        self.cae |= {
            f"reference-{name}": CAELoss(
                self.model, name, margin=MARGIN, implementation="reference"
            )
            for name in PAPER_METHODS
        }
        self.candidates: dict[str, Callable[[Batch], Tensor]] = {
            "open_clip": self.open_clip,
            "clip-ft": self.clip_ft,
            **{name: partial(self.with_cae, name) for name in self.cae},
            **{f"plain-{name}": partial(self.with_plain_cae, name) for name in PLAIN},
            "images": self.images_alone,
            "images-open_clip": self.open_clip_images_alone,
        }

    def step(self, name: str, number: int) -> None:
        """Take one optimiser step of a candidate on batch `number`."""
        self.optimizer.zero_grad(set_to_none=True)
        self.candidates[name](self.data[number]).backward()
        self.optimizer.step()

    def memory_in_use(self) -> int:
        """Return the bytes of the weights and of the optimiser's state."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, Tensor)]
        return sum(tensor.nbytes for tensor in tensors)

    def open_clip(self, batch: Batch) -> Tensor:
        """Return the loss of open_clip, as its own training script computes it."""
        return ClipLoss()(*self.model(batch.images, batch.tokens)[:3])

    def clip_ft(self, batch: Batch) -> Tensor:
        """Return the loss of plain fine-tuning by `cae_lib`."""
        images = self._images(batch)
        texts = F.normalize(encode_text(self.model, batch.tokens).features, dim=-1)
        return self._contrastive(images, texts)

    def with_cae(self, name: str, batch: Batch) -> Tensor:
        """Return the loss of CAE by `cae_lib`."""
        images = self._images(batch)
        output = self.cae[name](images, batch.tokens, batch.roles)
        return self._contrastive(images, output.text_features) + output.loss

    def with_plain_cae(self, name: str, batch: Batch) -> Tensor:
        """Return the loss of CAE by the naive implementation, with open_clip's image tower."""
        images = F.normalize(self.model.encode_image(batch.images), dim=-1)
        features, _, loss = self.plain_loss(name, images, batch)
        return self._contrastive(images, F.normalize(features, dim=-1)) + loss

    def images_alone(self, batch: Batch) -> Tensor:
        """Return a loss of what all steps of `cae_lib` share: the image tower."""
        return self._contrastive(self._images(batch), self.fixed)

    def open_clip_images_alone(self, batch: Batch) -> Tensor:
        """Return a loss of what the other steps share: open_clip's image tower."""
        images = F.normalize(self.model.encode_image(batch.images), dim=-1)
        return self._contrastive(images, self.fixed)

    def plain_loss(self, name: str, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return text features, scores and attribution loss of the naive implementation."""
        if name == "gradcam":
            features, scores = naive.gradcam(self.model, images, batch.tokens, create_graph=True)
        else:
            words = naive.words_of_the_loss(batch.tokens, batch.roles)
            features, scores = naive.perturbation(self.model, images, batch.tokens, words)
        return (
            features,
            scores,
            attribution_loss(scores, batch.roles, AttributionLossConfig(margin=MARGIN)).loss,
        )

    def _images(self, batch: Batch) -> Tensor:
        return F.normalize(encode_image(self.model, batch.images).features, dim=-1)

    def _contrastive(self, images: Tensor, texts: Tensor) -> Tensor:
        return contrastive_loss(images, texts, self.model.logit_scale.exp())


def check_equal(trainer: Trainer, name: str) -> dict[str, float]:
    """Return the largest differences between cae_lib's and the naive scores, loss and gradient."""
    model, batch = trainer.model, trainer.data[0].first(CHECKED)
    with torch.no_grad():
        images = F.normalize(encode_image(model, batch.images).features, dim=-1)
    texts = [model.positional_embedding, model.text_projection, *model.transformer.parameters()]
    words = naive.words_of_the_loss(batch.tokens, batch.roles)
    ours = trainer.cae[name](images, batch.tokens, batch.roles).loss
    our_scores = get_method(name)(model, batch.tokens, images, requested=words > 0).scores
    _, scores, loss = trainer.plain_loss(name, images, batch)
    # cae_lib leaves out the columns of padding that no caption needs.
    scores = scores.detach()[:, : our_scores.shape[1]]
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, texts)])
        for value in (ours, loss)
    ]
    differences = {
        "scores": (our_scores - scores).abs().max().item(),
        "largest_score": scores[:, 1:][batch.roles[:, 1 : scores.shape[1]] > 0].abs().max().item(),
        "loss": (ours - loss).abs().item(),
        # relative to the norm
        "gradient": ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item(),
    }
    # Between implementations that differ, a comparison of speed would mean nothing.
    for name_of, tolerance in TOLERANCES.items():
        assert differences[name_of] <= tolerance, f"{name}: {differences}"
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common_options(parser)
    parser.add_argument("--batch", type=int, help="pairs in a batch; 16 on a CPU, 256 on a GPU")
    parser.add_argument("--plain-rounds", type=int, default=3, help="of plain-* and reference-*")
    parser.add_argument("--only", nargs="+", help="candidates to measure; default: all")
    options = parser.parse_args()
    started = time.monotonic()
    device = prepare(options)
    size = options.batch or (256 if device.type == "cuda" else 16)
    path = captions_file(options.captions)
    clip = load_clip(MODEL, seed=options.seed)
    data = batches(path, clip, options.rounds, size, options.seed, device)
    trainer = Trainer(device, options.seed, data)
    names = [name for name in trainer.candidates if name in (options.only or trainer.candidates)]
    equal = {n: check_equal(trainer, n) for n in PLAIN if f"plain-{n}" in names}
    print(f"equal on {min(CHECKED, size)} captions: {equal}", flush=True)
    # The optimiser's state has to exist before memory is measured.
    trainer.step("clip-ft", 0)
    memory = {"": {"weights and optimiser": trainer.memory_in_use()}}
    work = {name: partial(trainer.step, name) for name in names}
    for name in names:
        # Gradients that are there already would not count towards the peak.
        trainer.optimizer.zero_grad(set_to_none=True)
        memory[name] = {"step": peak_memory(work[name], device)}
    rounds = interleaved(
        work,
        options.rounds,
        device,
        few={n: options.plain_rounds for n in names if n.startswith(("plain-", "reference-"))},
        clock=options.clock,
    )
    frame = pd.concat(
        [seconds(rounds), tokens(data), facts("difference", equal), facts("bytes", memory)]
    )
    print(median_table(frame, "clip-ft"), flush=True)
    subject = of_captions(path, size)
    store(TABLE, options, device, subject, subject["captions_digest"], frame, started)


if __name__ == "__main__":
    main()

"""Time and peak memory of one training step: CLIP as usual, CLIP-FT here, and CAE four ways.

Usage, from the top of the repository:

    .venv/bin/python -m speed.step_cost --threads 1
    .venv/bin/python -m speed.step_cost --batch 2 --rounds 1 --no-record         # a quick look
    .venv/bin/python -m speed.step_cost --threads 1 --profile              # why it takes long

A step is forward, backward and AdamW (the same fused one for all) of a ViT-B-32 with random
weights on noise pictures and real captions, in float32. The candidates are

    open_clip            open_clip's model(images, texts), all 77 tokens, and its ClipLoss
    clip-ft              plain fine-tuning with the towers of cae_lib
    attention, gradcam, perturbation, gradient
                         CAE with `CAELoss`
    counterfactual, binding
                         the same by our two methods, with one exchange a caption and step
    reference-attention, reference-gradcam, reference-perturbation, reference-gradient
                         the same by the reference encoder, which calls the model's own modules
    plain-gradcam, plain-perturbation
                         CAE as in naive.py, checked to give the same scores, loss and
                         gradient before anything is timed
    images, images-open_clip
                         the image encoder alone, forward, backward and its own update: what the
                         other steps have in common

All train one model in turns, on another batch in each round. A first, profiled step of each gives
peak memory and operators, and a second one the floating point operations of its matrix products.
The result is the table `cost_step`, which the page `cost` shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cae_lib.attribution import get_method
from cae_lib.models.clip import load_clip
from cae_lib.models.image_tower import encode_image
from speed import naive
from speed.captions import batches, captions_file
from speed.options import (
    common_options,
    facts,
    median_table,
    prepare,
    seconds,
    store_captions,
    tokens,
)
from speed.steps import MODEL, PLAIN, Trainer
from speed.timing import CLOCKS, interleaved, memory_in_use, profiled

TABLE = "cost_step"
CHECKED = 4
"""Captions on which the naive implementations are compared with cae_lib's."""

TOLERANCES = {"scores": 1e-5, "loss": 1e-5, "gradient": 1e-4}


def check_equal(trainer: Trainer, name: str) -> dict[str, float]:
    """Largest differences between cae_lib's and the naive scores, loss and gradient.

    Raises:
        AssertionError: they differ, so a comparison of their speed would mean nothing.
    """
    model, batch = trainer.model, trainer.data[0].first(CHECKED)
    with torch.no_grad():
        images = F.normalize(encode_image(model, batch.images).features, dim=-1)
    texts = [model.positional_embedding, model.text_projection, *model.transformer.parameters()]
    words = naive.words_of_the_loss(batch.tokens, batch.roles)
    ours = trainer.cae[name](images, batch.tokens, batch.roles).loss
    our_scores = get_method(name)(model, batch.tokens, images, requested=words > 0).scores
    _, scores, loss = trainer.plain_loss(name, images, batch)
    scores = scores.detach()[:, : our_scores.shape[1]]
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, texts)])
        for value in (ours, loss)
    ]
    differences = {
        "scores": (our_scores - scores).abs().max().item(),
        "largest_score": scores[:, 1:][batch.roles[:, 1 : scores.shape[1]] > 0].abs().max().item(),
        "loss": (ours - loss).abs().item(),
        "gradient": ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item(),
    }
    for name_of, tolerance in TOLERANCES.items():
        assert differences[name_of] <= tolerance, f"{name}: {differences}"
    return differences


def profile_rows(profiles: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the output of `profiled` for each candidate as rows.

    The measures are "bytes" and "profiled seconds" of the step, "phase seconds", and for each of
    the slowest operators "operator seconds" and "operator calls".
    """
    found = {
        "bytes": {},
        "profiled seconds": {},
        "phase seconds": {},
        "operator seconds": {},
        "operator calls": {},
    }
    for candidate, part in profiles.items():
        found["bytes"][candidate] = {"step": part["bytes"]}
        found["profiled seconds"][candidate] = {"step": part["seconds"]}
        found["phase seconds"][candidate] = part["phases"]
        for kind in ("seconds", "calls"):
            operators = {operator["name"]: operator[kind] for operator in part["operators"]}
            found[f"operator {kind}"][candidate] = operators
    return pd.concat([facts(measure, values) for measure, values in found.items()])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common_options(parser)
    parser.add_argument("--batch", type=int, help="pairs in a batch; 16 on a CPU, 256 on a GPU")
    parser.add_argument("--plain-rounds", type=int, default=3, help="of plain-* and reference-*")
    parser.add_argument("--only", nargs="+", help="candidates to measure; default: all")
    parser.add_argument("--profile", action="store_true", help="print the slowest operators")
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
    trainer.step("clip-ft", 0)  # the optimiser's state has to exist before memory is measured
    profiles, flops = {}, {}
    for name in names:
        trainer.forget_gradients()
        profiles[name] = profiled(partial(trainer.step, name), 0, device)
        with FlopCounterMode(display=False) as counter:
            trainer.step(name, 0)
        flops[name] = {"step": counter.get_total_flops()}
        print(f"profiled {name}: {profiles[name]['seconds']:.3g} s", flush=True)
    rounds = interleaved(
        {name: partial(trainer.step, name) for name in names},
        options.rounds,
        device,
        few={n: options.plain_rounds for n in names if n.startswith(("plain-", "reference-"))},
        clock=CLOCKS[options.clock],
    )
    fixed = {"": {"weights and optimiser": memory_in_use(trainer.model, trainer.optimizer)}}
    frame = pd.concat(
        [
            seconds(rounds),
            tokens(batch.lengths for batch in data),
            facts("difference", equal),
            profile_rows(profiles),
            facts("flops", flops),
            facts("bytes", fixed),
        ]
    )
    print(median_table(frame, "clip-ft"), flush=True)
    if options.profile:
        slowest = frame[frame["measure"].isin(["phase seconds", "operator seconds"])]
        print(slowest[["candidate", "measure", "name", "value"]].to_string(index=False))
    store_captions(TABLE, options, device, path, MODEL, size, frame, started)


if __name__ == "__main__":
    main()

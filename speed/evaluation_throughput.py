"""Time to score a benchmark: ours against a loop of one item at a time.

Usage, from the top of the repository:

    CAE_REAL_DATA=FOLDER .venv/bin/python -m speed.evaluation_throughput --threads 2
    .venv/bin/python -m speed.evaluation_throughput --limit 16 --rounds 1 --no-record  # a look

The model is a ViT-B-32 with random weights. The items are those of SugarCrepe whose image is in
`CAE_REAL_DATA`, else those of the synthetic scenes. The candidates are

    one-by-one  written as SugarCrepe's own script: for each item its image is opened,
                preprocessed and encoded, and both captions are tokenised and encoded at 77 tokens
                (in one call, where the script makes two: a little faster than the original)
    cae_lib     `cae_bench.answers` with a new encoder that has seen no text or image before

Several items share an image, which ours encodes once. So the same is measured again on one item of
each image, where nothing is shared. That all scores are equal to 1e-5 is checked on every item.
The result is the table `cost_evaluation`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cae_bench.answers import item_scores
from cae_bench.benchmarks import Item, load_benchmark
from cae_bench.encoder import Encoder
from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.models.clip import Clip, load_clip
from speed.common import (
    MODEL,
    common_options,
    facts,
    interleaved,
    median_table,
    prepare,
    seconds,
    store,
)

TABLE = "cost_evaluation"
TOLERANCE = 1e-5


def load_items(limit: int | None) -> tuple[str, list[Item]]:
    """Return the source of the items, "real" or "small world", and the items."""
    real = os.environ.get("CAE_REAL_DATA")
    root = Path(real) if real else paths().raw / "world-mini"
    parts = load_benchmark("sugarcrepe", root, is_published=bool(real))
    items = [item for part in parts for item in part.items]
    if not items:
        raise DataError(f"{root}: no item of SugarCrepe has its picture there.")
    if limit is not None:
        # evenly over the subsets
        items = items[:: max(1, len(items) // limit)][:limit]
    return ("real" if real else "small world"), items


def one_by_one(clip: Clip, items: Sequence[Item]) -> np.ndarray:
    """Return cosines `(n, 2)`, computed item by item."""
    device = next(clip.model.parameters()).device
    scores = []
    with torch.no_grad():
        for item in items:
            with Image.open(item.images[0].path) as picture:
                pixels = clip.preprocess(picture).unsqueeze(0).to(device)
            tokens = clip.tokenizer(list(item.texts)).to(device)
            image = clip.model.encode_image(pixels, normalize=True)
            texts = clip.model.encode_text(tokens, normalize=True)
            scores.append((image @ texts.T)[0].cpu().numpy())
    return np.stack(scores)


def batched(clip: Clip, items: Sequence[Item]) -> np.ndarray:
    """Return cosines `(n, 2)` by `cae_bench`."""
    # A new encoder, since an encoder keeps the features of texts and images that it has seen.
    return np.stack([s[0] for s in item_scores(items, Encoder(clip, workers=2))])


def measure(
    clip: Clip, items: Sequence[Item], options: argparse.Namespace, device: torch.device
) -> pd.DataFrame:
    """Time both candidates, and count items, images and texts."""
    work = {
        "one-by-one": lambda _: one_by_one(clip, items),
        "cae_lib": lambda _: batched(clip, items),
    }
    # Between implementations that differ, a comparison of speed would mean nothing.
    difference = float(np.abs(work["one-by-one"](0) - work["cae_lib"](0)).max())
    if difference > TOLERANCE:
        raise DataError(f"scores differ by {difference:.2g}, expected at most {TOLERANCE:g}.")
    rounds = interleaved(work, options.rounds, device, clock=options.clock)
    counts = {
        "n_items": len(items),
        "n_pictures": len({item.images[0] for item in items}),
        "n_texts": len({text for item in items for text in item.texts}),
        "largest_difference": difference,
    }
    frame = pd.concat([seconds(rounds), facts("counts", {"": counts})])
    print(counts, median_table(frame, "cae_lib"), sep="\n", flush=True)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common_options(parser)
    parser.add_argument("--limit", type=int, help="items to score; default: all")
    options = parser.parse_args()
    started = time.monotonic()
    device = prepare(options)
    source, items = load_items(options.limit)
    clip = load_clip(MODEL, device=device, seed=options.seed)
    last_of_each_image = {item.images[0]: item for item in items}
    parts = {"all items": items, "one item a picture": [*last_of_each_image.values()]}
    frame = pd.concat(
        measure(clip, part, options, device).assign(items=name) for name, part in parts.items()
    )
    content = repr([(item.key, item.texts) for item in items]).encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    subject = {"model": MODEL, "items": source, "items_digest": digest}
    store(TABLE, options, device, subject, digest, frame, started)


if __name__ == "__main__":
    main()

"""Time to score a benchmark: ours against a loop of one item at a time.

Usage, from the top of the repository:

    CAE_REAL_DATA=FOLDER .venv/bin/python -m speed.evaluation_throughput --threads 2
    .venv/bin/python -m speed.evaluation_throughput --limit 16 --rounds 1 --no-record  # a look

The model is a ViT-B-32 with random weights. The items are those of SugarCrepe whose picture is in
`CAE_REAL_DATA`, else those of the small world. The candidates are

    one-by-one  written as SugarCrepe's own script: for each item its picture is opened,
                preprocessed and encoded, and both captions are tokenised and encoded at 77 tokens
                (in one call, where the script makes two: a little faster than the original)
    cae_lib     `evaluation.choice` with a new encoder that has seen no text or picture before

Several items share a picture, which ours encodes once. So the same is measured again on one item of
each picture, where nothing is shared. That all scores are equal to 1e-5 is checked on every item.
The result is the table `cost_evaluation`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cae_lib.config import paths
from cae_lib.data.benchmarks import Item, load_benchmark
from cae_lib.errors import DataError
from cae_lib.evaluation.choice import item_scores
from cae_lib.evaluation.encoder import TOKEN_IDS, Encoder
from cae_lib.models.clip import Clip, load_clip
from speed.options import common_options, facts, prepare, seconds, store
from speed.timing import CLOCKS, interleaved

TABLE = "cost_evaluation"
MODEL = "ViT-B-32"
FAMILY = "sugarcrepe"
OURS, LOOP = "cae_lib", "one-by-one"
TOLERANCE = 1e-5
TARGET = 3.0


def load_items(limit: int | None) -> tuple[str, list[Item]]:
    """Return the items with their source, "real" or "small world", subsets by turns.

    Raises:
        DataError: There is no picture.
    """
    given = os.environ.get("CAE_REAL_DATA")
    root = Path(given) if given else paths().raw / "world-mini"
    parts = load_benchmark(FAMILY, root, official=bool(given))
    items = [item for part in parts for item in part.items]
    if not items:
        raise DataError(f"{root}: no item of SugarCrepe has its picture there.")
    if limit is not None:
        items = items[:: max(1, len(items) // limit)][:limit]
    return ("real" if given else "small world"), items


def one_by_one(clip: Clip, items: Sequence[Item]) -> np.ndarray:
    """Cosines `(n, 2)`, item by item."""
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


def ours(clip: Clip, items: Sequence[Item], workers: int) -> np.ndarray:
    """Cosines `(n, 2)` by `cae_lib`, with nothing remembered from before."""
    TOKEN_IDS.clear()
    return np.stack([s[0] for s in item_scores(items, Encoder(clip, workers=workers))])


def measure(
    clip: Clip, items: Sequence[Item], options: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Seconds of each candidate in each round, how far their scores differ, and their ratio.

    Raises:
        DataError: scores differ by more than the tolerance.
    """
    scores: dict[str, np.ndarray] = {}

    def keep(name: str, work: Any, _: int) -> None:
        scores[name] = work()

    work = {LOOP: partial(one_by_one, clip, items), OURS: partial(ours, clip, items, 2)}
    rounds = interleaved(
        {name: partial(keep, name, run) for name, run in work.items()},
        options.rounds,
        device,
        clock=CLOCKS[options.clock],
    )
    difference = float(np.abs(scores[LOOP] - scores[OURS]).max())
    if difference > TOLERANCE:
        raise DataError(f"scores differ by {difference:.2g}, expected at most {TOLERANCE:g}.")
    ratios = [found[LOOP] / found[OURS] for found in rounds]
    return {
        "rounds": rounds,
        "times_faster": ratios,
        "median_times_faster": float(np.median(ratios)),
        "largest_difference": difference,
        "n_items": len(items),
        "n_pictures": len({item.images[0] for item in items}),
        "n_texts": len({text for item in items for text in item.texts}),
    }


def report(label: str, found: dict[str, Any]) -> str:
    """Summarise the results in a line."""
    low, high = min(found["times_faster"]), max(found["times_faster"])
    return (
        f"{label}: {found['n_items']} items, {found['n_pictures']} pictures, "
        f"{found['median_times_faster']:.2f} times faster ({low:.2f} to {high:.2f}), "
        f"scores equal to {found['largest_difference']:.1g}"
    )


def rows(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Concatenate what `measure` returns for each choice of items, with the column `items`."""
    counts = ("n_items", "n_pictures", "n_texts", "largest_difference")
    return pd.concat(
        part.assign(items=name)
        for name, result in found.items()
        for part in (
            seconds(result["rounds"]),
            facts("counts", {"": {count: result[count] for count in counts}}),
        )
    )


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
    one_by_one(clip, items[:2])  # both candidates then find the libraries warm
    ours(clip, items[:2], 2)
    parts = {"all items": items}
    parts["one item a picture"] = list({item.images[0]: item for item in items}.values())
    found = {name: measure(clip, part, options, device) for name, part in parts.items()}
    for name, part in found.items():
        print(report(name, part), flush=True)
    content = repr([(item.key, item.texts) for item in items]).encode()
    known = hashlib.sha256(content).hexdigest()[:12]
    subject = {"model": MODEL, "items": source, "items_digest": known}
    store(TABLE, options, device, subject, known, rows(found), started)
    reached = found["all items"]["median_times_faster"] >= TARGET
    print(f"target of {TARGET:g} times {'reached' if reached else 'missed'}")


if __name__ == "__main__":
    main()

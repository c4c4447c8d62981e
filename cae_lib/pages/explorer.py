"""Build the explorer of items, which shows some items of each benchmark.

It shows their images and captions, what runs chose, and the runs' scores of the words. All of this
is written to files that `book/_static/explorer.js` can also read from a folder.
"""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from cae_lib import results, runs
from cae_lib.config import paths
from cae_lib.data.benchmarks import Benchmark, ImageRef, Item, is_rescored
from cae_lib.data.images import read_image
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation import datasets
from cae_lib.evaluation.attribution import WordSample
from cae_lib.evaluation.choice import scorable_benchmarks
from cae_lib.evaluation.encoder import Encoder, evaluating
from cae_lib.models.text_encoder import text_encoder
from cae_lib.plots import METHODS, ROLE_COLORS, Shown, label, script_json
from cae_lib.runtime import write_atomic
from cae_lib.words.alignment import token_roles
from cae_lib.words.roles import ROLE_NAMES

RUNS = (
    "base",
    "clip-ft",
    *(f"cae-{name}" for name in METHODS),
    "cae-binding",
    "placebo-binding",
    "negclip",
)
RIVALS = ("clip-ft", "cae-binding")
"""Items on which these disagree come first in their subset."""

SCORED = ("base", "clip-ft", "cae-perturbation", "cae-binding")
"""Runs whose scores of words are shown."""

WAYS = METHODS | {"binding": "bindings"}
SETS = {
    "aro": "ARO",
    "order": "Order",
    "winoground": "Winoground",
    "sugarcrepe": "SugarCrepe",
    "vl_checklist": "VL-CheckList",
    "valse": "VALSE",
    "svo_probes": "SVO-Probes",
    "crepe": "CREPE",
    "sugarcrepe_pp": "SugarCrepe++",
    "half_truths": "Half-Truths",
}
NAME = "explorer-{}"
PER_SUBSET, SEED = 40, 0
TILE, COLUMNS, QUALITY = 112, 8, 60
"""Pixels of a picture, pictures in a row of a sheet, and how well WebP keeps them."""

ALONE = (
    "This page is to be read in a browser, with JavaScript, in the book that "
    "<code>cae book</code> renders."
)


class Entry(NamedTuple):
    """An item as the page gets it, with its family of benchmarks, its subset and its images."""

    family: str
    subset: str
    content: dict[str, Any]
    pictures: tuple[ImageRef, ...]

    @property
    def agree(self) -> bool:
        """Whether plain fine-tuning and CAE on bindings are both right, or both wrong."""
        first, second = (self.content["right"][RUNS.index(run)] for run in RIVALS)
        return first == second


def build(profile: str, folder: Path, per_subset: int = PER_SUBSET) -> Shown:
    """Write the explorer's files into a folder, and return the explorer for a page.

    The files are `explorer-index.js`, one `explorer-FAMILY.js` for each family of benchmarks, and a
    sheet of images for each subset. The returned explorer contains the first item of each subset,
    which is what it shows where these files do not exist.

    Args:
        profile: Name of the profile whose benchmarks and runs are shown.
        folder: Folder that the files are written to.
        per_subset: Largest number of items that are shown of a subset.

    Raises:
        DataError: If data or tables are missing.
        CheckpointError: If a run is not trained.
    """
    parts = [
        part
        for part in scorable_benchmarks(datasets.benchmarks(profile))
        if not is_rescored(part.name, part.subset)
    ]
    entries = collect(profile, parts, per_subset)
    families = {part.name: [] for part in parts}
    for part in parts:
        families[part.name].append([part.subset, min(per_subset, part.n_used), part.n_used])
    index = {
        "columns": COLUMNS,
        "runs": {run: label(run) for run in RUNS},
        "scored": SCORED,
        "ways": WAYS,
        "roles": [[name, ROLE_COLORS.get(name, "gray")] for name in ROLE_NAMES],
        "sets": {
            name: {"label": SETS.get(name, name), "subsets": subsets}
            for name, subsets in families.items()
        },
    }
    index["build"] = hashlib.sha256(repr((index, entries)).encode()).hexdigest()[:12]
    example = {}
    for name, subsets in families.items():
        own = [
            sorted(
                (entry for entry in entries if (entry.family, entry.subset) == (name, subset)),
                key=lambda of: of.agree,
            )
            for subset, _, _ in subsets
        ]
        content, sheets = chunk(own)
        files = [NAME.format(f"{name}-{number}.webp") for number in range(len(sheets))]
        for file, sheet in zip(files, sheets, strict=True):
            write_atomic(folder / file, sheet)
        text = script_json({"sheets": files, "items": content})
        write_atomic(folder / NAME.format(f"{name}.js"), f"caeExplorerSets.{name} = {text};\n")
        content, sheets = chunk([subset[:1] for subset in own])
        example[name] = {
            "items": content,
            "sheets": [f"data:image/webp;base64,{b64encode(sheet).decode()}" for sheet in sheets],
        }
    write_atomic(folder / NAME.format("index.js"), f"caeExplorerIndex = {script_json(index)};\n")
    data = script_json({"index": index, "sets": example})
    return Shown(
        f'<div id="cae-explorer"><p>{ALONE}</p></div><script type="application/json" '
        f'id="cae-explorer-data">{data}</script>',
        "The explorer of items",
    )


def collect(profile: str, parts: Sequence[Benchmark], per_subset: int) -> list[Entry]:
    """Draw at most `per_subset` items of each benchmark with a fixed seed.

    Each item comes with the stored results of seed 0.
    """
    drawn = [
        (part, int(row))
        for part in parts
        for row in np.sort(np.random.default_rng(SEED).permutation(part.n_used)[:per_subset])
    ]
    table = results.load("benchmarks", profile, RUNS, 1).pivot(
        index=["family", "subset", "item"], columns="run", values=["correct", "margin", "rank"]
    )
    table = table.loc[[(part.name, part.subset, row) for part, row in drawn]]
    right, margins, ranks = (
        table[name][list(RUNS)].to_numpy(float).round(4).tolist()
        for name in ("correct", "margin", "rank")
    )
    items = [part.items[row] for part, row in drawn]
    pairs = [true_pairs(item) for item in items]
    words = iter(
        word_scores(
            profile,
            [
                (item.texts[text], item.images[picture])
                for item, own in zip(items, pairs, strict=True)
                for text, picture in own
            ],
        )
    )
    return [
        Entry(
            part.name,
            part.subset,
            {
                "item": row,
                "group": item.group,
                "texts": item.texts,
                "true": [0, 1] if part.task == "itt" else [text for text, _ in own],
                "right": list(map(int, right[n])),
                "margin": margins[n],
                "rank": list(map(int, ranks[n])),
                "words": [
                    {"text": text, "picture": picture, **next(words)} for text, picture in own
                ],
            },
            item.images,
        )
        for n, ((part, row), item, own) in enumerate(zip(drawn, items, pairs, strict=True))
    ]


def true_pairs(item: Item) -> list[tuple[int, int]]:
    """Return the indices of the texts whose words are scored, each with the index of its image."""
    if len(item.images) == 1:
        return [(item.truth, 0)]
    return [(0, item.truth)] if len(item.texts) == 1 else [(0, 0), (1, 1)]


def word_scores(profile: str, pairs: Sequence[tuple[str, ImageRef]]) -> list[dict[str, Any]]:
    """Score the words of captions for their images, by each run of `SCORED` and method of `WAYS`.

    Returns:
        For each pair of a caption and an image: the words of the caption, the numbers of their
        roles, and their scores in thousandths by run and method. A score is None for a word that
        the method does not score.
    """
    texts, refs = map(list, zip(*pairs, strict=True))
    scores = []
    for run in SCORED:
        encoder = Encoder(runs.open_run(run, profile), profile)
        model, tokenizer = encoder.clip.model, encoder.clip.tokenizer
        known = token_roles(texts, tokenizer, default_tagger(), paths().cache / "roles")
        length, rows = text_encoder(model).used_columns(known.tokens), np.arange(len(texts))
        tokens = (
            part[:, :length].to(encoder.device)
            for part in (known.tokens, known.words, known.roles, known.arguments)
        )
        images = torch.from_numpy(encoder.images(refs)).to(encoder.device)
        sample = WordSample(rows, rows, *tokens, images)
        with evaluating(model):
            scores.append([sample.scores(model, way) for way in WAYS])
    found = np.moveaxis(1000 * np.array(scores), 2, 0)  # captions, runs, ways, words
    return [
        {
            "words": sample.word_texts(n, tokenizer),
            "roles": [ROLE_NAMES.index(role) for role in sample.word_roles(n)],
            "scores": [
                [
                    [None if np.isnan(value) else round(value) for value in way[:count]]
                    for way in run
                ]
                for run in found[n]
            ],
        }
        for n, count in enumerate(sample.n_words)
    ]


def chunk(subsets: Sequence[Sequence[Entry]]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Lay out the items of a family of benchmarks.

    Returns:
        The items, each with the number of its subset and the positions of its images on the
        subset's sheet; and the sheets.
    """
    items, sheets = [], []
    for number, entries in enumerate(subsets):
        refs = list(dict.fromkeys(ref for entry in entries for ref in entry.pictures))
        sheets.append(sheet(refs))
        items += [
            {
                "subset": number,
                "pictures": [refs.index(ref) for ref in entry.pictures],
                **entry.content,
            }
            for entry in entries
        ]
    return items, sheets


def sheet(refs: Sequence[ImageRef]) -> bytes:
    """Return images, `COLUMNS` in a row, as one WebP file."""
    canvas = Image.new("RGB", (COLUMNS * TILE, -(-len(refs) // COLUMNS) * TILE), "white")
    for place, ref in enumerate(refs):
        whole = read_image(ref.path)
        picture = whole if ref.crop is None else whole.crop(ref.crop)
        row, column = divmod(place, COLUMNS)
        canvas.paste(
            ImageOps.pad(picture, (TILE, TILE), color="white"), (column * TILE, row * TILE)
        )
    stream = io.BytesIO()
    canvas.save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()

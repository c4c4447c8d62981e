"""Build the explorer of items, in which a reader guesses before seeing what the models answered.

`write_files` writes the items as scripts and their images as sheets, since a page that is opened
from a disk cannot fetch data. `page` returns what the page `explorer` stores: tours, scores of
words, and the few items that a book without these files shows. `_static/explorer.js` reads both.
"""

from __future__ import annotations

import io
import shutil
from base64 import b64encode
from collections.abc import Collection as Names
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch.nn.functional import normalize

from book.extension.build import PUBLISHED, live_folder
from cae_bench import datasets
from cae_bench.answers import scorable_benchmarks
from cae_bench.benchmarks import Benchmark, ImageRef, Item, is_rescored
from cae_bench.benchmarks.base import ITEM_KEY
from cae_bench.encoder import Encoder, eval_mode
from cae_lab import results
from cae_lab.attribution import CaptionSample
from cae_lab.measuring import encoder_of
from cae_lab.plots import PAPER_METHOD_LABELS, ROLE_COLORS, CellOutput, label, script_json
from cae_lab.profiles import load_profile
from cae_lab.training_set import default_tagger
from cae_lib.config import bundled_path, paths
from cae_lib.data.images import read_image
from cae_lib.errors import CheckpointError
from cae_lib.models.text_encoder import text_encoder
from cae_lib.runtime import write_atomic
from cae_lib.words.alignment import Alignment, token_roles
from cae_lib.words.roles import ROLE_NAMES

PAPER_RUNS = tuple(f"cae-{name}" for name in PAPER_METHOD_LABELS)
RUNS = (
    "base",
    "clip-ft",
    *PAPER_RUNS,
    "cae-all",
    *(f"truth-{name}" for name in PAPER_METHOD_LABELS),
    "negclip",
    "dependency-binding",
    "cae-binding",
    "truth-binding",
    "spacy-margin",
    "hinge-negclip",
)
"""Runs whose answers are shown, as far as they are stored."""

USUAL_RUNS = ("base", "clip-ft", "cae-all", "negclip", "dependency-binding")
"""Runs whose answers are shown unless a reader asks for all, or a tour is about others."""

SCORED_RUNS = ("base", "clip-ft", "cae-perturbation", "dependency-binding", "cae-binding")
"""Runs whose scores of words are stored, as far as their weights are on this machine. The published
book has none of them, because its readers' browsers compute scores."""

SCORE_METHODS = PAPER_METHOD_LABELS | {"binding": "bindings"}
FAMILY_LABELS = {
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
    "cola": "COLA",
}
PER_SUBSET, PER_TOUR, SEED = 40, 12, 0
MOST_NAMED = 5
"""Of the runs of a tour that are shown beside the usual ones."""

COLUMNS, QUALITY = 8, 60
SCENE_SIZE, PHOTOGRAPH_SIZE = 112, 224
"""Pixels of an image on a sheet."""

NO_SCORE = -128
"""Stands for a missing score among int8 scores, as in `explorer.js`."""

RELATION_NOUNS = frozenset("left right front top".split())
"""Words of "left of", "in front of" and the like, which a parser can take for objects."""

WITHOUT_SCRIPTS = (
    "The explorer works only in the book that <code>cae book</code> renders, in a browser with "
    "JavaScript."
)


@dataclass(frozen=True)
class Entry:
    """An item that the explorer shows.

    Attributes:
        row: Its number in the subset.
        task: How it is scored, see `Benchmark.task`.
        answers: For each run 1 (right), 0 (wrong) or - (not measured), in the order of the runs.
    """

    family: str
    subset: str
    row: int
    task: str
    item: Item
    answers: str

    @property
    def id(self) -> str:
        """Name of the item in tours, word scores and addresses."""
        return f"{self.family}/{self.subset}/{self.row}"

    @property
    def true_pairs(self) -> list[tuple[int, int]]:
        """Indices of the true texts, each with the index of its image."""
        if len(self.item.images) == 1:
            return [(self.item.truth, 0)]
        # One text chooses among images; or, as in Winoground, text i belongs to image i.
        return [(0, self.item.truth)] if len(self.item.texts) == 1 else [(0, 0), (1, 1)]


@dataclass(frozen=True)
class Collection:
    """The items that the explorer of a profile shows, and the runs that answered them.

    Attributes:
        measured: Names of the answered subsets, by run, of runs that answered some only.
        entries: The items, in the order of the subsets.
    """

    profile: str
    runs: tuple[str, ...]
    measured: Mapping[str, list[str]]
    subsets: tuple[Benchmark, ...]
    entries: tuple[Entry, ...]

    def index(self) -> dict[str, Any]:
        """Return runs, families, and their subsets with the task and numbers of items, for JSON."""
        drawn = pd.Series([(e.family, e.subset) for e in self.entries]).value_counts()
        families: dict[str, Any] = {}
        for part in self.subsets:
            family = families.setdefault(
                part.name, {"label": FAMILY_LABELS.get(part.name, part.name), "subsets": []}
            )
            n_drawn = int(drawn[(part.name, part.subset)])
            family["subsets"].append([part.subset, part.task, n_drawn, part.n_used])
        return {
            "profile": self.profile,
            "columns": COLUMNS,
            "usual": [run for run in USUAL_RUNS if run in self.runs],
            "runs": [[run, label(run)] for run in self.runs],
            "measured": self.measured,
            "families": families,
        }


def collect(profile: str, per_subset: int = PER_SUBSET) -> Collection:
    """Draw up to `per_subset` items of each subset by a fixed seed, with their stored answers."""
    # Readers would meet the same items again in subsets that only score them in another way.
    subsets = tuple(
        part
        for part in scorable_benchmarks(datasets.load_benchmarks(load_profile(profile).datasets))
        if not is_rescored(part.name, part.subset)
    )
    absent = results.missing_runs("benchmarks", RUNS, profile)
    stored = tuple(run for run in RUNS if run not in absent)
    # If no run is stored, this raises the error that says how to compute one.
    table = results.load("benchmarks", profile, stored or RUNS[:1], 1)
    places = table[["run", "family", "subset"]].drop_duplicates()
    measured = {
        run: sorted(
            f"{FAMILY_LABELS.get(f, f)} {s}" for f, s in pairs_of_run[["family", "subset"]].values
        )
        for run, pairs_of_run in places.groupby("run")
        if len(pairs_of_run) < len(places[["family", "subset"]].drop_duplicates())
    }
    right = table.pivot(index=ITEM_KEY, columns="run", values="correct")[list(stored)]
    # With a generator for each subset, a larger sample begins with the items of a smaller one.
    drawn = [
        (part, int(row))
        for number, part in enumerate(subsets)
        for row in np.random.default_rng([SEED, number]).permutation(part.n_used)[:per_subset]
    ]
    # NaN where a run did not answer the item
    right = right.reindex([(part.name, part.subset, row) for part, row in drawn])
    entries = [
        Entry(part.name, part.subset, row, part.task, part.items[row], "".join(map(_sign, answers)))
        for (part, row), answers in zip(drawn, right.itertuples(index=False), strict=True)
    ]
    return Collection(profile, stored, measured, subsets, tuple(entries))


def _sign(answer: Any) -> str:
    return "-" if pd.isna(answer) else str(int(answer))


def draw_scenes(profile: str) -> None:
    """Draw the datasets of a profile of synthetic scenes if they are missing: about a minute."""
    # Stored data do without the recipe and what it imports.
    from data.recipes.synthetic_scenes.build import build

    if not load_profile(profile).root.is_dir():
        build(profile)


def write_files(profile: str, folder: Path, per_subset: int = PER_SUBSET) -> Collection:
    """Write `explorer-index.js`, a script for each family and a sheet of images for each subset."""
    collection = collect(profile, per_subset)
    encoder = image_encoder(profile)
    for family in collection.index()["families"]:
        entries = [entry for entry in collection.entries if entry.family == family]
        content, sheets = chunk(entries, _tile(profile))
        features = {"features": image_features(entries, encoder)} if encoder else {}
        names = {subset: f"explorer-{family}-{n}.webp" for n, subset in enumerate(sheets)}
        for subset, sheet in sheets.items():
            write_atomic(folder / names[subset], sheet)
        text = script_json({"sheets": names, "items": content} | features)
        write_atomic(folder / f"explorer-{family}.js", f"caeExplorerSets.{family} = {text};\n")
    text = script_json(collection.index())
    write_atomic(folder / "explorer-index.js", f"caeExplorerIndex = {text};\n")
    return collection


def page(profile: str, per_subset: int = PER_SUBSET) -> CellOutput:
    """Return the explorer with tours, word scores, and the items of books without its files.

    These items are the first of each subset and those of the tours.
    """
    collection = collect(profile, per_subset)
    roles = caption_roles(collection.entries)
    tours: list[dict[str, Any]] = []
    shown_ids: set[str] = set()
    for tour in TOURS:
        if names := [entry.id for entry in tour.choose(collection, roles, shown_ids)]:
            runs = [] if len(tour.wrong) > MOST_NAMED else [*tour.right, *tour.wrong]
            tours.append({"title": tour.title, "text": tour.text, "items": names, "runs": runs})
            shown_ids |= {*names}
    sample: dict[str, Any] = {}
    for family in collection.index()["families"]:
        entries = [entry for entry in collection.entries if entry.family == family]
        # reversed, so that the first item of a subset is the last to be set
        firsts = {entry.subset: entry.id for entry in reversed(entries)}
        kept = [e for e in entries if e.id in shown_ids or e.id == firsts[e.subset]]
        content, sheets = chunk(kept, _tile(profile))
        urls = {
            subset: f"data:image/webp;base64,{b64encode(sheet).decode()}"
            for subset, sheet in sheets.items()
        }
        sample[family] = {"sheets": urls, "items": content}
    data = {
        "index": collection.index(),
        "tours": tours,
        "words": word_table(collection, () if profile == PUBLISHED else SCORED_RUNS),
        "sample": sample,
    }
    return CellOutput(
        f'<div id="cae-explorer"><p>{WITHOUT_SCRIPTS}</p></div><script type="application/json" '
        f'id="cae-explorer-data">{script_json(data)}</script>',
        "The explorer of items",
    )


def standalone(profile: str, folder: Path, per_subset: int = PER_SUBSET) -> Path:
    """Write the explorer as a page of its own, with its files beside it, and return the page."""
    write_files(profile, folder, per_subset)
    names = ["explorer.js", "explorer.css", "live.css"]
    if image_encoder(profile):
        names.append("live-model.js")
        for file in live_folder().glob("*.js"):
            shutil.copy(file, folder)
    for name in names:
        shutil.copy(bundled_path(f"book/_static/{name}"), folder)
    scripts = [name for name in (*names[3:], "live-index.js") if (folder / name).is_file()]
    live = "".join(f'<script src="{name}"></script>' for name in scripts)
    text = STANDALONE.format(name=profile, live=live, explorer=page(profile, per_subset).html)
    write_atomic(folder / "index.html", text)
    return folder / "index.html"


STANDALONE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Explorer: {name}</title><link rel="stylesheet" href="live.css">
<link rel="stylesheet" href="explorer.css">
<style>
:root {{ --pst-color-border: #ccc; --pst-color-primary: #176de8; --pst-color-surface: #f5f5f5;
  --pst-color-text-base: #222; --pst-color-text-muted: #555; --cae-good: #00674f;
  --cae-bad: #9c1f1f }}
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem }}
</style>
<script src="explorer-index.js"></script>{live}<script src="explorer.js"></script></head>
<body><main><h1>Explorer: {name}</h1>{explorer}</main></body></html>
"""


@dataclass(frozen=True)
class Tour:
    """A choice of items with something in common.

    Attributes:
        text: What the reader should look at.
        right: Runs that are all right.
        wrong: Runs that are all wrong.
        parser_errs: The parser took a word of a relation for an object.
    """

    title: str
    text: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    parser_errs: bool = False

    def choose(
        self,
        collection: Collection,
        roles: Mapping[str, Mapping[str, str]],
        shown: Names[str] = (),
    ) -> list[Entry]:
        """Return at most `PER_TOUR` items; none if a run is not stored.

        `roles` are those of words, by caption; `shown` are names of items of other tours.
        """
        if not {*self.right, *self.wrong} <= {*collection.runs}:
            return []
        fits = [entry for entry in collection.entries if self._matches(entry, collection, roles)]
        by_family: dict[str, list[Entry]] = {}
        for entry in fits:
            by_family.setdefault(entry.family, []).append(entry)
        # One item of each family comes first, then a second of each. Items of other tours come
        # last, so that no two tours begin alike.
        turns = [
            (entry.id in shown, turn, number, entry)
            for number, entries in enumerate(by_family.values())
            for turn, entry in enumerate(entries)
        ]
        turns.sort(key=lambda each: each[:3])
        return [entry for *_, entry in turns[:PER_TOUR]]

    def _matches(
        self, entry: Entry, collection: Collection, roles: Mapping[str, Mapping[str, str]]
    ) -> bool:
        answer = dict(zip(collection.runs, entry.answers, strict=True))
        if self.parser_errs and not any(
            roles[entry.item.texts[text]].get(word) == "object"
            for text, _ in entry.true_pairs
            for word in RELATION_NOUNS
        ):
            return False
        return all(answer[run] == "1" for run in self.right) and all(
            answer[run] == "0" for run in self.wrong
        )


TOURS = (
    Tour(
        "What NegCLIP gets right and CAE does not",
        "Items on which NegCLIP is right, and CAE with each of the paper's four methods is wrong.",
        right=("negclip",),
        wrong=PAPER_RUNS,
    ),
    Tour(
        "What the swap-margin loss gets right and CAE does not",
        "Items on which the model trained with the swap-margin loss is right, and CAE with each of "
        "the paper's four methods is wrong.",
        right=("dependency-binding",),
        wrong=PAPER_RUNS,
    ),
    Tour(
        "Where the paper's parser errs",
        "Items in whose true caption the paper's parser takes a word of a relation, as “left” in "
        "“to the left of”, for an object.",
        parser_errs=True,
    ),
    Tour(
        "What ground-truth roles improve",
        "Items on which the swap-margin loss is right if its swaps follow ground-truth roles, and "
        "wrong if they follow the roles of the paper's parser.",
        right=("truth-binding",),
        wrong=("cae-binding",),
    ),
    Tour(
        "What no fine-tuned model gets right",
        "Items on which all fine-tuned models of the list are wrong; CLIP itself may be right.",
        wrong=tuple(run for run in RUNS if run != "base"),
    ),
    Tour(
        "What fine-tuning unlearns",
        "Items on which CLIP is right before fine-tuning, and CLIP-FT and NegCLIP are wrong.",
        right=("base",),
        wrong=("clip-ft", "negclip"),
    ),
)


def caption_roles(entries: Iterable[Entry]) -> dict[str, dict[str, str]]:
    """Return the role that the paper's parser gives each word, by true caption."""
    captions = list(
        dict.fromkeys(entry.item.texts[text] for entry in entries for text, _ in entry.true_pairs)
    )
    return {
        caption: {
            word: ROLE_NAMES[span.role]
            # reversed, so that the first span of a word decides, as in the alignment of tokens
            for span in reversed(spans)
            for word in caption[span.start : span.end].lower().split()
        }
        for caption, spans in zip(captions, default_tagger().tag(captions), strict=True)
    }


def chunk(entries: Sequence[Entry], tile: int) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the items of a family with the tiles of their images, and the sheets by subset."""
    items, sheets = [], {}
    for subset in dict.fromkeys(entry.subset for entry in entries):
        entries_of_subset = [entry for entry in entries if entry.subset == subset]
        refs = list(dict.fromkeys(ref for entry in entries_of_subset for ref in entry.item.images))
        sheets[subset] = image_sheet(refs, tile)
        items += [
            {
                "subset": subset,
                "row": entry.row,
                "group": entry.item.group,
                "texts": entry.item.texts,
                "truth": entry.item.truth,
                "tiles": [refs.index(ref) for ref in entry.item.images],
                "answers": entry.answers,
            }
            for entry in entries_of_subset
        ]
    return items, sheets


def image_sheet(refs: Sequence[ImageRef], tile: int = SCENE_SIZE) -> bytes:
    """Return images, `COLUMNS` in a row and `tile` pixels wide, as one WebP file."""
    canvas = Image.new("RGB", (COLUMNS * tile, -(-len(refs) // COLUMNS) * tile), "white")
    for number, ref in enumerate(refs):
        image = read_image(ref.path)
        image = image if ref.crop is None else image.crop(ref.crop)
        row, column = divmod(number, COLUMNS)
        canvas.paste(ImageOps.pad(image, (tile, tile), color="white"), (column * tile, row * tile))
    stream = io.BytesIO()
    canvas.save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


def _tile(profile: str) -> int:
    return SCENE_SIZE if load_profile(profile).is_synthetic else PHOTOGRAPH_SIZE


def image_encoder(profile: str) -> Encoder | None:
    """Return the image tower of the models that readers run; None for another profile."""
    if profile != PUBLISHED or not (live_folder() / "live-index.js").is_file():
        return None
    settings = load_profile(profile)
    return encoder_of(settings.run("base").open(), settings)


def image_features(entries: Sequence[Entry], encoder: Encoder) -> dict[str, str]:
    """Return the normalised features of the tiles of each subset, as base64 of int16."""
    features = {}
    for subset in dict.fromkeys(entry.subset for entry in entries):
        entries_of_subset = [entry for entry in entries if entry.subset == subset]
        refs = list(dict.fromkeys(ref for entry in entries_of_subset for ref in entry.item.images))
        values = normalize(torch.from_numpy(encoder.encode_images(refs)), dim=-1).numpy()
        steps = np.rint(32767 * values).astype("<i2")
        features[subset] = b64encode(steps.tobytes()).decode()
    return features


def word_table(collection: Collection, scored_runs: Sequence[str] = SCORED_RUNS) -> dict[str, Any]:
    """Return the scores of the words of all true captions, by the runs that can be opened here.

    `runs`, `methods`, `roles` are labels. `items` has for each caption of an item its index `text`,
    the numbers of its `roles` as a text, `quantized` scores, and `words` if they are not those
    between spaces.
    """
    places = [
        (entry.id, text, entry.item.texts[text], entry.item.images[image])
        for entry in collection.entries
        for text, image in entry.true_pairs
    ]
    captions, refs = [place[2] for place in places], [place[3] for place in places]
    scored, labels = [], []
    profile = load_profile(collection.profile)
    for run in (run for run in scored_runs if run == "base" or run in profile.runs):
        try:
            clip = profile.run(run).open()
        except CheckpointError:  # not trained here
            continue
        scored.append(_scores_of(encoder_of(clip, profile), captions, refs))
        labels.append(label(run))
    items: dict[str, Any] = {}
    if scored:
        # Words and roles are the same for all runs, which share a tokenizer.
        words, numbers = scored[0][:2]
        for row, (name, text, caption, _) in enumerate(places):
            # (runs, methods, words)
            scores = np.array([each[2][row][:, : len(words[row])] for each in scored])
            row_entry = {"text": text, "roles": numbers[row]} | quantized(scores)
            if words[row] != caption.lower().split():
                row_entry["words"] = words[row]
            items.setdefault(name, []).append(row_entry)
    return {
        "runs": labels,
        "methods": [*SCORE_METHODS.items()],
        "roles": [[name, ROLE_COLORS.get(name, "gray")] for name in ROLE_NAMES],
        "items": items,
    }


def quantized(scores: np.ndarray) -> dict[str, Any]:
    """Return `scores` `(runs, methods, words)` as base64 of int8, and what 127 is by method.

    `NO_SCORE` stands for NaN.
    """
    # One scale for all runs of a method, so that they can be compared.
    largest = np.abs(np.nan_to_num(scores)).max(axis=(0, 2))
    steps = 127 * scores / np.where(largest, largest, 1)[:, None]
    steps = np.where(np.isnan(steps), NO_SCORE, np.rint(steps)).astype(np.int8)
    return {
        "largest": [float(f"{value:.3g}") for value in largest],
        "scores": b64encode(steps.tobytes()).decode(),
    }


def _scores_of(
    encoder: Encoder, captions: list[str], refs: list[ImageRef]
) -> tuple[list[list[str]], list[str], np.ndarray]:
    """Return words, numbers of roles as texts, and scores `(captions, methods, words)` or NaN."""
    model, tokenizer = encoder.clip.model, encoder.clip.tokenizer
    known: Alignment = token_roles(captions, tokenizer, default_tagger(), paths().cache / "roles")
    # Columns after the last end-of-text token affect no feature in a causal tower.
    length, rows = text_encoder(model).n_used_columns(known.tokens), np.arange(len(captions))
    tensors = (
        tensor[:, :length].to(encoder.device)
        for tensor in (known.tokens, known.words, known.roles, known.arguments)
    )
    images = torch.from_numpy(encoder.encode_images(refs)).to(encoder.device)
    sample = CaptionSample(rows, rows, *tensors, images)
    with eval_mode(model):
        scores = np.stack([sample.word_scores(model, method) for method in SCORE_METHODS], axis=1)
    words = [sample.word_texts(row, tokenizer) for row in rows]
    roles = ["".join(str(ROLE_NAMES.index(r)) for r in sample.word_roles(row)) for row in rows]
    return words, roles, scores

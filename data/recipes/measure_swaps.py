"""Measure the swaps of each tagger: how many captions have one, and whether they are false.

    python -m data.recipes.measure_swaps measure        # store the tables `swaps`, `swap_examples`
    python -m data.recipes.measure_swaps list OUT.tsv   # write the swaps to label, shuffled

There are four sets of captions. For two of them the truth is known by construction:

- the synthetic scenes (profile `mini`): a swapped caption is read by the grammar that made the
  caption, and held against the scene;
- paired photographs (profile `paired`): no photograph shows what the other one's phrase says.

People wrote the captions of Flickr8k and COCO (profile `photo`). `data/roles/swaps.tsv` has a label
for each swap of 100 captions each; `data/roles/README.md` says how they were labelled.

The swapped captions are those that training sees, in lower case. A caption's swaps count equally,
and so does each caption with a swap, because training draws one swap of a caption at a time.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pandas as pd
from open_clip import SimpleTokenizer

from cae_bench.blind import TIE_DECIMALS, TrigramModel
from cae_lab import store
from cae_lab.cli import run_reporting_errors
from cae_lab.names import DATA_RUN
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lab.training_set import training_pairs
from cae_lib.attribution.binding import swapped_captions
from cae_lib.config import bundled_path, paths
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.training.inputs import digest
from cae_lib.words.alignment import token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.ground_truth import PAIRED_CAPTION, PairedImageTagger, SyntheticSceneTagger
from cae_lib.words.pipeline import Tagger
from cae_lib.words.roles import NO_OFFSETS, OBJECT, ROLE_NAMES, Span, swap_substrings
from cae_lib.words.scene_graph import SceneGraphTagger
from data.recipes.layouts import Captioned
from data.recipes.photographs.flickr8k import load as load_flickr8k
from data.recipes.synthetic_scenes.config import world_config
from data.recipes.synthetic_scenes.corpora import coco_images
from data.recipes.synthetic_scenes.edits import plausible
from data.recipes.synthetic_scenes.grammar import PREFIXES, Mention, Statement
from data.recipes.synthetic_scenes.scenes import Scene
from data.recipes.synthetic_scenes.vocabulary import GLYPHS, KIND_OF, RELATIONS, VAGUE_RELATIONS

LABELS = ("false", "absurd", "broken", "not false")
"""Labels of a swapped caption: false, though an image could show it; false of every image; not
grammatical; the same as the caption, or possibly true of its image, too."""

SEED, N_CAPTIONS, N_LABELLED, N_EXAMPLES = 0, 500, 100, 5
MOVED = {"scene-graph": ("role",), "dependency": ("noun", "phrase"), "truth": ("noun", "phrase")}
"""What the swaps of a tagger move; those of the scene-graph parser are read from its roles."""

ADJECTIVES, NOUNS = "|".join(KIND_OF), "|".join(GLYPHS)
MENTION = re.compile(rf"\b(an?) ((?:(?:{ADJECTIVES}) )*)({NOUNS})\b")
RELATION_OF = {words: kind.name for kind in RELATIONS.values() for words in kind.wordings}
POSITIONS = {"", "on the left", "on the right", "at the top", "at the bottom"}
MARKS = dict(zip(ROLE_NAMES, ("", "ᴼ", "ᴬ", "ᴿ"), strict=True))


class Captions(NamedTuple):
    """Captions of a set, the taggers that read them, and what says whether a swap is false."""

    profile: str
    ids: list[str]
    texts: list[str]
    taggers: Mapping[str, Tagger]
    judge: Callable[[int, str], str]  # row of a caption and swapped caption: one of `LABELS`
    training: list[str]  # captions that the text-only model is fitted on
    n_labelled: int  # of the first captions


@cache
def tokenizer() -> SimpleTokenizer:
    """Return CLIP's tokenizer."""
    return SimpleTokenizer()


def decode(tokens: Sequence[int]) -> str:
    """Return the text of a caption's tokens, without the start and end tokens."""
    # The end-of-text token has the largest id.
    return tokenizer().decode(list(tokens[1 : list(tokens).index(max(tokens))])).strip()


def swapped_texts(captions: Sequence[str], tagger: Tagger, moved: str) -> list[list[str]]:
    """Return the distinct captions that training can make of each caption by a swap."""
    words = token_roles(captions, tokenizer(), tagger)
    of_captions = words.tokens, words.words, words.roles, words.arguments, words.swaps
    row, _, variants = swapped_captions(
        *of_captions, swap_kind="noun" if moved == "role" else moved
    )
    # Dicts keep the order and drop swaps that give the same caption.
    texts: list[dict[str, None]] = [{} for _ in captions]
    for number, tokens in zip(row.tolist(), variants.tolist(), strict=True):
        texts[number][decode(tokens)] = None
    return [list(of_caption) for of_caption in texts]


def marked(caption: str, spans: Sequence[Span]) -> str:
    """Return a caption in which a raised letter follows each word with a role."""
    words, start = [], 0
    for word in caption.split(" "):
        end = start + len(word)
        roles = [ROLE_NAMES[s.role] for s in spans if s.start < end and s.end > start]
        words.append(word + (MARKS[roles[0]] if roles else ""))
        start = end + 1
    return " ".join(words)


def read_statement(text: str) -> Statement | None:
    """Read a caption of the synthetic scenes; None if their grammar does not make it."""
    mentions, pieces, end = [], [], 0
    for match in MENTION.finditer(text):
        pieces.append(text[end : match.start()].strip())
        mentions.append(Mention(match[3], tuple(match[2].split()), match[1]))
        end = match.end()
    if not mentions:
        return None
    # pieces are the words before, between and after the noun phrases
    first, link, *rest = [*pieces, text[end:].strip()]
    relation = RELATION_OF.get(link.removeprefix("is "))
    # Words between the main pair, of captions that state no relation.
    links = ("and", *VAGUE_RELATIONS) if len(mentions) > 1 else ("",)
    if first not in ("", *PREFIXES) or not (link in links or relation and len(mentions) > 1):
        return None
    if any(piece.removesuffix("and").strip() not in POSITIONS for piece in rest):
        return None
    return Statement(tuple(mentions), (first, link, *rest), relation)


def judge_scene(scene: Scene, swap: str) -> str:
    """Judge a swapped caption by the scene that its caption describes."""
    statement = read_statement(swap)
    if statement is None:
        return "broken"
    if statement.may_be_true(scene):
        return "not false"
    return "false" if plausible(statement) else "absurd"


def judge_pair(caption: str, swap: str) -> str:
    """Judge a swapped caption of paired photographs by the phrases of its caption."""
    caption = decode(tokenizer()([caption])[0].tolist())  # as the swapped caption is written
    if PAIRED_CAPTION.fullmatch(swap) is None:
        return "broken"
    truth = PairedImageTagger()
    (spans, swaps), (swapped_spans, _) = truth.tag_with_swaps([caption, swap])
    nouns = [caption[s.start : s.end] for s in spans if s.role == OBJECT]
    swapped = [swap[s.start : s.end] for s in swapped_spans if s.role == OBJECT]
    # The swaps that the ground truth allows are false by construction.
    by_truth = {swap_substrings(caption, *places) for of in swaps for places in of.allowed_pairs}
    # Whether a swap corrects "a" and "an" does not matter.
    if re.sub(r"\ban\b", "a", swap) in {re.sub(r"\ban\b", "a", text) for text in by_truth}:
        return "false"
    if swapped == nouns:
        # Adjectives moved alone, and they do not exclude each other.
        return "not false"
    # Nouns that do not agree in number and determiner have no swap that is grammatical.
    moves_nouns = swapped == nouns[::-1]
    return "false" if moves_nouns and swaps[0].nouns != (NO_OFFSETS, NO_OFFSETS) else "broken"


def scenes() -> Captions:
    """Return the first validation caption of each synthetic scene."""
    # one caption of each scene, so that all images count alike
    corpus = [
        (item.scene, f"{item.number}", item.captions[0])
        for item in coco_images(world_config("mini"), "val")
    ]
    folder = load_profile("mini").root / "coco" / "annotations"
    files = folder / "captions_val2014.json", folder / "scene_graphs_val2014.json"
    return Captions(
        "mini",
        [key for _, key, _ in corpus],
        [text for _, _, text in corpus],
        {**parsers(), "truth": SyntheticSceneTagger([files])},
        lambda row, swap: judge_scene(corpus[row][0], swap),
        training_pairs(load_profile("mini")).captions,
        len(corpus),
    )


def paired() -> Captions:
    """Return validation captions of paired photographs, in a random order."""
    root = load_profile("paired").root
    pairs = load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root, "ignore")
    texts = list(dict.fromkeys(pairs.captions))
    random.Random(SEED).shuffle(texts)
    texts = texts[:N_CAPTIONS]
    return Captions(
        "paired",
        [f"paired-{row}" for row in range(len(texts))],
        texts,
        {**parsers(), "truth": PairedImageTagger()},
        lambda row, swap: judge_pair(texts[row], swap),
        training_pairs(load_profile("paired")).captions,
        len(texts),
    )


def flickr8k() -> Captions:
    """Return captions of Flickr8k's test split, in a random order."""
    captions = [
        (f"{item.path}#{number}", text)
        for item in flickr8k_split("test")
        for number, text in enumerate(item.captions)
    ]
    random.Random(SEED).shuffle(captions)
    return labelled(dict(captions[:N_CAPTIONS]))


def coco() -> Captions:
    """Return the captions of `data/roles/captions.txt`, in a random order."""
    lines = bundled_path("data/roles/captions.txt").read_text(encoding="utf-8").splitlines()
    captions = [
        (f"coco-{number}", " ".join(word.rsplit("/", 1)[0] for word in line.split(" ")))
        for number, line in enumerate(lines, start=1)
    ]
    random.Random(SEED).shuffle(captions)
    return labelled(dict(captions))


def labelled(captions: Mapping[str, str]) -> Captions:
    """Return captions that people wrote; their swaps have labels."""
    ids, labels = list(captions), read_labels()
    return Captions(
        "photo",
        ids,
        list(captions.values()),
        parsers(),
        lambda row, swap: labels[ids[row], swap],
        [text for item in flickr8k_split("train") for text in item.captions],
        N_LABELLED,
    )


@cache
def flickr8k_split(name: str) -> list[Captioned]:
    """Return the images of a split of Flickr8k, with their captions."""
    return load_flickr8k(paths().raw / "flickr8k")[name]


@cache
def parsers() -> dict[str, Tagger]:
    """Return the taggers that need nothing but a caption."""
    return {"scene-graph": SceneGraphTagger(), "dependency": DependencyTagger()}


SETS: Mapping[str, Callable[[], Captions]] = {
    "synthetic scenes": scenes,
    "paired photographs": paired,
    "Flickr8k": flickr8k,
    "COCO": coco,
}


def labels_file() -> Path:
    """Return the path of the labelled swaps."""
    return bundled_path("data/roles/swaps.tsv")


def read_labels() -> dict[tuple[str, str], str]:
    """Return the label of each swap by the id of its caption and its text."""
    if not labels_file().is_file():
        return {}
    with labels_file().open(encoding="utf-8", newline="") as file:
        # Captions have quotation marks of their own.
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {(row["caption"], row["swap"]): row["label"] for row in rows}


def list_swaps(path: Path) -> None:
    """Write every swap of the captions to be labelled once, for a person who labels them."""
    rows: dict[tuple[str, str, str], None] = {}
    for captions in (flickr8k(), coco()):
        ids, texts = captions.ids[:N_LABELLED], captions.texts[:N_LABELLED]
        for name, tagger in captions.taggers.items():
            for moved in MOVED[name]:
                swaps = swapped_texts(texts, tagger, moved)
                for key, text, of_caption in zip(ids, texts, swaps, strict=True):
                    rows |= dict.fromkeys((key, text, swap) for swap in of_caption)
    # Shuffled and without the tagger, so that whoever labels does not know whose swap it is.
    shuffled = sorted(rows)
    random.Random(SEED).shuffle(shuffled)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("caption", "text", "swap"), *shuffled])


def measure(name: str, captions: Captions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table `swaps` of a set, and its `swap_examples`."""
    model = TrigramModel(captions.training)
    decoded = [decode(tokens) for tokens in tokenizer()(captions.texts).tolist()]
    shares, examples = [], []
    for tagger_name, tagger in captions.taggers.items():
        spans = tagger.tag(captions.texts[:N_EXAMPLES])
        for moved in MOVED[tagger_name]:
            swaps = swapped_texts(captions.texts, tagger, moved)
            first = {"set": name, "tagger": tagger_name, "moved": moved}
            for measured, value, n in shares_of(captions, decoded, swaps, model):
                shares.append(first | {"measure": measured, "value": value, "n": n})
            for row in range(N_EXAMPLES):
                text = marked(captions.texts[row], spans[row])
                labels = [captions.judge(row, swap) for swap in swaps[row]]
                for swap, label in zip(swaps[row] or [""], labels or [""], strict=True):
                    examples.append(first | {"caption": text, "swap": swap, "label": label})
    return pd.DataFrame(shares), pd.DataFrame(examples)


def shares_of(
    captions: Captions,
    decoded: Sequence[str],
    swaps: Sequence[Sequence[str]],
    model: TrigramModel,
) -> Iterator[tuple[str, float, int]]:
    """Yield measures of a tagger's swaps, each with its value and the number of captions.

    All but the first are means over the captions with a swap, of shares of their swaps.
    """
    with_swap = [row for row, of_caption in enumerate(swaps) if of_caption]
    yield "with a swap", len(with_swap) / len(swaps), len(swaps)
    judged = [row for row in with_swap if row < captions.n_labelled]
    labels = [[captions.judge(row, swap) for swap in swaps[row]] for row in judged]
    for label in LABELS:
        yield label, mean([of_row.count(label) / len(of_row) for of_row in labels]), len(judged)
    preferred = []
    for row in with_swap:
        caption = model.log_likelihood(decoded[row])
        # Rounded, since sums of the same logarithms in another order differ; a tie counts half.
        gains = [round(caption - model.log_likelihood(swap), TIE_DECIMALS) for swap in swaps[row]]
        preferred.append(mean([(gain > 0) + (gain == 0) / 2 for gain in gains]))
    yield "caption preferred", mean(preferred), len(with_swap)


def store_measures() -> None:
    """Measure all sets, and store the tables of each profile."""
    tables: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for name, load in SETS.items():
        captions = load()
        tables.setdefault(captions.profile, []).append(measure(name, captions))
    for profile, parts in tables.items():
        for table, frames in zip(("swaps", "swap_examples"), zip(*parts, strict=True), strict=True):
            frame = pd.concat(frames, ignore_index=True)
            provenance = current_provenance(profile, SEED)
            store.save(
                table,
                load_profile(profile),
                DATA_RUN,
                0,
                frame,
                key=digest(frame.to_csv()),
                provenance=provenance,
            )
        store.pack(load_profile(profile), [(DATA_RUN, 0)], ["swaps", "swap_examples"])


def main(words: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "list"))
    parser.add_argument("file", nargs="?", type=Path, default=Path("swaps-to-label.tsv"))
    parsed = parser.parse_args(words)
    action = store_measures if parsed.what == "measure" else lambda: list_swaps(parsed.file)
    return run_reporting_errors(action, "the same command")


if __name__ == "__main__":
    sys.exit(main())

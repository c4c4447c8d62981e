"""A tiny training set in memory, for tests of the trainer and scripts they start; a tiny world."""

import copy
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cae_bench import datasets
from cae_lab import measures
from cae_lab.training_set import training_set
from cae_lib.config import Experiment
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.images import TrainingImages
from cae_lib.models.checkpoint import read_log
from cae_lib.models.clip import Clip, load_clip
from cae_lib.training.trainer import TrainingRun, train
from cae_lib.words.alignment import Alignment, align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span
from data.recipes.synthetic_scenes.config import Sizes, WorldConfig

CAPTIONS = [  # words are spread unevenly over the batch, two captions have one group only
    "a red cat sits on a mat",
    "a blue cat sits on a mat",
    "a big dog under a striped mat",
    "two pterodactyls near a car",
    "a cat",
    "the old grey dog chases two small cats",
    "red",
    "a dog near a wet car",
]
ROLES = dict.fromkeys(("cat", "cats", "dog", "mat", "car", "pterodactyls"), OBJECT)
ROLES |= dict.fromkeys(("red", "blue", "big", "striped", "old", "grey", "small", "wet"), ATTRIBUTE)
ROLES |= dict.fromkeys(("sits", "on", "under", "chases", "near"), RELATION)

FT = Experiment("ft", "smoke", steps=5, batch_size=4, warmup=2, lr=1e-3)
TINY = WorldConfig(
    sizes=Sizes(
        train=6,
        val=2,
        test=1,
        flickr_test=2,
        captions=2,
        aro_relation=3,
        aro_attribution=3,
        winoground=2,
        sugarcrepe=2,
        vl_checklist=1,
        valse=2,
        svo_probes=1,
        half_truths=3,
        crepe=4,
        similarity=6,
    )
)


def forget() -> None:
    """Drop what was read of another home."""
    for cached in (
        datasets.load_family,
        datasets.retrieval_pairs,
        datasets.similarity_sets,
        datasets.labelled_sets,
        measures._images_with_nouns,
        training_set,
    ):
        cached.cache_clear()


class WordTagger:
    """Roles of the words of `ROLES`."""

    identity = "words"

    def tag(self, captions: list[str]) -> list[list[Span]]:
        actual = [re.finditer(r"\w+", caption) for caption in captions]
        return [
            [Span(m.start(), m.end(), ROLES[m.group()]) for m in words if m.group() in ROLES]
            for words in actual
        ]


class Toys(TrainingImages):
    """Random pictures in memory; a crop is stood in for by noise from the generator."""

    normalization = torch.tensor(1.0), torch.tensor(0.0)

    def __init__(self, count: int = 8, size: int = 112) -> None:
        self.size, generator = size, torch.Generator().manual_seed(0)
        self.pixels = torch.randn(count, 3, size, size, generator=generator)

    def __len__(self) -> int:
        return len(self.pixels)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        pixels = self.pixels[index]
        if generator is not None:
            pixels = pixels + torch.randn(len(index), 3, 1, 1, generator=generator)
        return pixels if subset is None else pixels[subset]


def toy_pairs(captions: list[str] = CAPTIONS, **changes: Any) -> ImageCaptionPairs:
    """Eight captions, each with a picture, two neighbours and, but for three, a false caption."""
    fields = {
        "negatives": [[f"no {c}", f"not {c}"] if row % 3 else [] for row, c in enumerate(captions)],
        "hard_images": [[(row + 1) % 8, (row + 5) % 8] for row in range(8)],
        "image_paths": [Path(f"{row}.png") for row in range(8)],
        "image_index": torch.arange(8),
        "name": "toy",
        "n_used": 8,
        "n_expected": 8,
    }
    return ImageCaptionPairs(captions=captions, **fields | changes)


def toy_alignment(clip: Clip, captions: list[str] = CAPTIONS) -> Alignment:
    return align(captions, WordTagger().tag(captions), clip.tokenizer)


_loaded = cache(load_clip)


def random_clip(seed: int = 0) -> Clip:
    """A clip-mini with random weights; a copy is ten times as fast as to build another one."""
    clip = _loaded("clip-mini", seed=seed)
    return replace(clip, model=copy.deepcopy(clip.model))


def toy_clip() -> Clip:
    """Random weights whose scores are far from 0, and features far from each other."""
    clip = random_clip()
    with torch.no_grad():
        clip.model.token_embedding.weight.mul_(20)
    return clip


def _parts(
    clip: Clip | None = None, pairs: ImageCaptionPairs | None = None, images: Any = None
) -> tuple:
    clip = clip or toy_clip()
    return clip, pairs or toy_pairs(), toy_alignment(clip), images or Toys()


def toy_run(
    experiment: Experiment,
    clip: Clip | None = None,
    pairs: ImageCaptionPairs | None = None,
    images: Any = None,
    **options: Any,
) -> TrainingRun:
    return TrainingRun(experiment, *_parts(clip, pairs, images), **options)


def toy_train(
    experiment: Experiment,
    out: Path,
    clip: Clip | None = None,
    pairs: ImageCaptionPairs | None = None,
    images: Any = None,
    **options: Any,
) -> tuple[Clip, list[dict[str, float]]]:
    """Train; returns the model, and the lines of the log without the speed."""
    parts = _parts(clip, pairs, images)
    train(experiment, *parts, out, **{"show_progress": False, **options})
    return parts[0], lines(out)


def send(number: int, at: int, times: int = 1) -> dict[str, Any]:
    """Options of `train` by which the main process gets a signal after step `at`."""

    def hook(step: int, model: Any) -> None:
        for _ in range(times if step == at else 0):
            os.kill(os.getpid(), number)

    return {"on_step_every": 1, "on_step": hook}


def lines(out: Path) -> list[dict[str, float]]:
    """Read the lines of a run's log, without the speed."""
    return [
        {key: value for key, value in line.items() if key != "samples_per_second"}
        for line in read_log(out / "log.jsonl")
    ]


def weights(clip: Clip) -> dict[str, Tensor]:
    return clip.model.state_dict()


def same_weights(a: Clip, b: Clip) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())

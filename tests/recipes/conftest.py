"""The smoke profile's datasets before they are written, and drawn images as Flickr8k's files."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from book.studies import faithfulness
from cae_lab.profiles import PROFILES
from data.recipes.datasets import Dataset
from data.recipes.photographs import paired, pairs
from data.recipes.synthetic_scenes.build import make_datasets
from data.recipes.synthetic_scenes.config import WORLDS, WorldConfig
from data.recipes.synthetic_scenes.scenes import Scene, SceneConfig, sample_scenes


@pytest.fixture(scope="session")
def config() -> WorldConfig:
    return WORLDS["smoke"]


@pytest.fixture(scope="session")
def sampled() -> list[Scene]:
    return list(sample_scenes(SceneConfig(), "tests", 1000))


@pytest.fixture(scope="session")
def made(config: WorldConfig) -> dict[str, Dataset]:
    """The datasets of the smoke profile by name, not yet written."""
    return {dataset.name: dataset for dataset in make_datasets(config)}


@pytest.fixture(scope="session")
def scenes_of(made: dict[str, Dataset]) -> dict[str, list[Scene]]:
    """The scenes of each image file."""
    return {
        path: image.scenes for dataset in made.values() for path, image in dataset.images.items()
    }


THINGS = ("dog", "boy", "girl", "horse", "car", "ball")
COLORS = ("red", "black", "brown", "white")
PLACES = ("on", "near", "behind")


def captions(n: int) -> list[str]:
    """The captions of image `n`, split into words as Flickr8k's are."""
    first, second = THINGS[n % 6], THINGS[(n + 1 + n // 6) % 6]
    color, other = COLORS[n % 4], COLORS[(n + 1) % 4]
    return [
        f"A {color} {first} is standing {PLACES[n % 3]} a {other} {second} .",
        f"A {first} {PLACES[n % 3]} a {other} {second} in the grass .",
        f"a {color} {first} and a {second}",
        f"The {first} 's {second} is {other} .",
        f"A {color} {first} , a {other} {second} and a tree .",
    ]


def lay_out(home: Path, captions_of: list[list[str]], ends: dict[str, int]) -> Path:
    """Images of noise numbered from 100, with captions; `ends` are those of the splits."""
    root = home / "data" / "raw" / "flickr8k"
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    (root / "Flickr8k_text").mkdir()
    names = [f"{100 + n}_ab.jpg" for n in range(len(captions_of))]
    for n, name in enumerate(names):
        noise = np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((224, 224)).save(root / "Flicker8k_Dataset" / name)
    lines = [
        f"{name}#{k}\t{text}"
        for name, texts in zip(names, captions_of, strict=True)
        for k, text in enumerate(texts)
    ]
    lines.append("99_ab.jpg.1#0\tA caption of a picture that is in no split .")
    (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    start = 0
    for split, end in ends.items():
        path = root / "Flickr8k_text" / f"Flickr_8k.{split}Images.txt"
        path.write_text("\n".join(names[start:end]) + "\n")
        start = end
    return root


@pytest.fixture
def brief_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of Muon's five iterations, which take long on processors without bfloat16."""
    monkeypatch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=1))


@pytest.fixture
def flickr(home: Path) -> Path:
    """Sixteen drawn images as train, dev and test split."""
    return lay_out(home, list(map(captions, range(16))), {"train": 8, "dev": 10, "test": 16})


@pytest.fixture
def few(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty-eight images, each of one thing in one colour, the test's in two, and few composites
    of them."""
    colors, nouns = ("white", "black", "red", "green"), ("dog", "man", "car")
    texts = [
        [f"A {colors[n // 3 % (4 if n < 36 else 2)]} {nouns[n % 3]} is here ."] * 5
        for n in range(48)
    ]
    monkeypatch.setattr(paired, "N_IMAGES", {"pretrain": 24, "train": 12, "valid": 12})
    monkeypatch.setattr(paired, "TEST", 4)
    monkeypatch.setattr(paired, "TEST_REDRAWN", 3)
    monkeypatch.setattr(pairs.negatives.Vocabulary, "may_cooccur", lambda *_: False)
    return lay_out(home, texts, {"train": 24, "dev": 36, "test": 48})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives what makes trainings of a profile two steps long, with some rows, and a base that is
    trained here and not shipped; the studies have four captions."""
    sample = faithfulness.coco_word_sample

    def shorten(name: str, methods: dict[str, Any], **base: Any) -> None:
        profile, few = PROFILES[name], {"steps": 2, "batch_size": 4, "warmup": 1}
        assert profile.base is not None
        base, training = profile.base | few | base, profile.training | few
        brief = dataclasses.replace(profile, seeds=1, base=base, training=training, runs=methods)
        monkeypatch.setattr("cae_lib.config.repository_root", lambda: None)
        monkeypatch.setattr(faithfulness, "coco_word_sample", lambda *words: sample(*words[:2], 4))
        monkeypatch.setitem(PROFILES, name, brief)

    return shorten

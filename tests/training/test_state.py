"""The identity of a run: what is part of it, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import Photographs
from cae_lib.models.clip import load_clip
from cae_lib.training.optim import adamw
from cae_lib.training.state import changes, load_state, run_identity, save_state
from cae_lib.words.alignment import Alignment, align
from cae_lib.words.roles import OBJECT, Span

PLAIN = Experiment("run", "smoke")
HARD = replace(PLAIN, negatives=True)
CAPTIONS = ["a cat", "a dog", "a cup"]


class Pictures:
    """Pictures in memory."""

    def __init__(self) -> None:
        self.pixels = torch.arange(3 * 3 * 4 * 4).reshape(3, 3, 4, 4).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.pixels)


@pytest.fixture(scope="module")
def tokenizer():
    return load_clip("clip-mini").tokenizer


def toy(tokenizer, captions=CAPTIONS, role: int = OBJECT) -> tuple[Pairs, Alignment, Pictures]:
    files = [Path(f"{number}.png") for number in range(3)]
    negatives = [[f"no {caption}"] for caption in CAPTIONS]
    pairs = Pairs(files, captions, torch.arange(3), "toy", 3, 3, negatives, [[1], [2], [0]])
    return pairs, align(captions, [[Span(2, 5, role)]] * 3, tokenizer), Pictures()


def differing(a: dict[str, str], b: dict[str, str]) -> set[str]:
    assert bool(changes(a, b)) == (a != b)
    return {part for part in a if a[part] != b[part]}


def test_data_of_another_content_are_other_data(tokenizer) -> None:
    pairs, alignment, pictures = toy(tokenizer)
    known = run_identity(PLAIN, "w", pairs, alignment, pictures)
    assert differing(known, run_identity(PLAIN, "w", *toy(tokenizer))) == set()
    other = Pictures()
    other.pixels[2, 2, 3, 3] += 1
    changed = [
        toy(tokenizer, ["a cat", "a dog", "a car"]),
        toy(tokenizer, role=2),
        (replace(pairs, image_index=torch.tensor([0, 2, 1])), alignment, pictures),
        (pairs, alignment, other),
    ]
    for data in changed:
        assert differing(known, run_identity(PLAIN, "w", *data)) == {"training data"}
    assert differing(known, run_identity(PLAIN, "v", *toy(tokenizer))) == {"first weights"}


def test_false_captions_count_where_they_are_trained_on(tokenizer) -> None:
    pairs, *rest = toy(tokenizer)
    texts = replace(pairs, negatives=[["no cat"], *pairs.negatives[1:]])
    neighbours = replace(pairs, hard_images=[[2], [2], [0]])
    for run, expected in ((PLAIN, set()), (HARD, {"training data"})):
        known = run_identity(run, "w", pairs, *rest)
        for other in (texts, neighbours):
            assert differing(known, run_identity(run, "w", other, *rest)) == expected


def test_a_default_is_a_setting_as_well(tokenizer) -> None:
    known, other = (run_identity(run, "w", *toy(tokenizer))
                    for run in (PLAIN, replace(PLAIN, eps=1e-5)))
    assert differing(known, other) == {"settings"}


def test_photographs_are_known_by_name_and_size_wherever_they_lie(tokenizer, tmp_path) -> None:
    pairs, alignment, _ = toy(tokenizer)

    def identity(folder: str, size: int, name: str = "2.png") -> dict[str, str]:
        paths = [tmp_path / folder / file for file in ("0.png", "1.png", name)]
        paths[0].parent.mkdir()
        for side, path in zip((8, 8, size), paths, strict=True):
            Image.new("RGB", (side, side)).save(path)
        return run_identity(PLAIN, "w", pairs, alignment, Photographs(paths, 16))

    known = identity("a", 8)
    assert differing(known, identity("b", 8)) == set()
    assert differing(known, identity("c", 50)) == {"training data"}
    assert differing(known, identity("d", 8, "3.png")) == {"training data"}


def test_a_state_that_is_half_written_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    layer, file = torch.nn.Linear(2, 2), tmp_path / "state.pt"
    optimizer = adamw(layer, 0.1)
    save_state(file, {"settings": "a"}, 3, layer, optimizer)

    def break_off(content: object, path: Path) -> None:
        path.write_bytes(b"PK")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(torch, "save", break_off)
        save_state(file, {"settings": "a"}, 4, layer, optimizer)
    assert load_state(file, {"settings": "a"}, layer, optimizer) == 3

"""The identity of a run: what is part of it, and what is not; and its state on disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from toys import CAPTIONS, Toys, toy_alignment, toy_clip, toy_pairs

from cae_lib.config import Experiment
from cae_lib.data.images import ImageStore, Photographs
from cae_lib.errors import DataError
from cae_lib.training.run import adamw
from cae_lib.training.state import changes, load_state, run_identity, save_state

PLAIN = Experiment("run", "smoke")
HARD = replace(PLAIN, negatives=True)
CLIP = toy_clip()
PAIRS, ALIGNMENT = toy_pairs(), toy_alignment(CLIP)


def identity(
    run: Experiment = PLAIN, weights: str = "w", pairs=PAIRS, alignment=ALIGNMENT, images=None
) -> dict[str, str]:
    return run_identity(run, weights, pairs, alignment, images or Toys())


def differing(a: dict[str, str], b: dict[str, str]) -> set[str]:
    assert bool(changes(a, b)) == (a != b)
    return {part for part in a if a[part] != b[part]}


def test_data_of_another_content_are_other_data() -> None:
    known, other, roles = identity(), Toys(), ALIGNMENT.roles.clone()
    other.pixels[2, 2, 3, 3] += 1
    roles[0, 2] = 3
    assert differing(known, identity()) == set()
    for changed in (
        {"alignment": toy_alignment(CLIP, [*CAPTIONS[:-1], "a dog near a wet cup"])},
        {"alignment": replace(ALIGNMENT, roles=roles)},
        {"pairs": replace(PAIRS, image_index=PAIRS.image_index.flip(0))},
        {"images": other},
    ):
        assert differing(known, identity(**changed)) == {"training data"}
    assert differing(known, identity(weights="v")) == {"first weights"}
    assert differing(known, identity(replace(PLAIN, eps=1e-5))) == {"settings"}


def test_false_captions_count_where_they_are_trained_on() -> None:
    texts = replace(PAIRS, negatives=[["no cat"], *PAIRS.negatives[1:]])
    neighbours = replace(PAIRS, hard_images=[[2], *PAIRS.hard_images[1:]])
    for run, expected in ((PLAIN, set()), (HARD, {"training data"})):
        for other in (texts, neighbours):
            assert differing(identity(run), identity(run, pairs=other)) == expected


def test_photographs_are_known_by_name_and_size_and_stored_pictures_by_content(tmp_path) -> None:
    def of(folder: str, size: int, name: str = "2.bmp", colour: str = "red", kind=Photographs):
        paths = [tmp_path / folder / file for file in ("0.bmp", "1.bmp", name)]
        paths[0].parent.mkdir(exist_ok=True)
        for side, path in zip((8, 8, size), paths, strict=True):
            Image.new("RGB", (side, side), colour).save(path)
        return identity(images=kind(paths, 16))

    known = of("a", 8)
    assert differing(known, of("b", 8)) == differing(known, of("b", 8, colour="blue")) == set()
    assert differing(known, of("c", 50)) == {"training data"}
    assert differing(known, of("d", 8, "3.bmp")) == {"training data"}
    known = of("a", 8, kind=ImageStore)
    assert differing(known, of("d", 8, "3.bmp", kind=ImageStore)) == set()
    assert differing(known, of("b", 8, colour="blue", kind=ImageStore)) == {"training data"}


def test_a_state_that_is_half_written_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    layer, file = torch.nn.Linear(2, 2), tmp_path / "state.pt"
    optimizer = adamw(layer, 0.1)
    save_state(file, {"settings": "a"}, 3, layer, optimizer)

    def break_off(content: object, path) -> None:
        path.write_bytes(b"PK")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="no space left.*free some"):
        patch.setattr(torch, "save", break_off)
        save_state(file, {"settings": "a"}, 4, layer, optimizer)
    assert load_state(file, {"settings": "a"}, layer, optimizer) == 3

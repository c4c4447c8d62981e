"""Photographs decoded on demand, against torchvision's crops of the whole picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision.transforms import InterpolationMode

from cae_lib.data import photographs
from cae_lib.data.crops import boxes_of, crop_draws
from cae_lib.data.images import ImageStore
from cae_lib.data.photographs import Photographs, picture_source
from cae_lib.errors import DataError

SIZES = [(40, 30), (32, 40), (64, 20)]  # the last is too wide for a crop of 3:4 to 4:3


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / f"{i}.png", *size, seed=i) for i, size in enumerate(SIZES)]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_are_torchvisions_bicubic_crops_of_the_whole_photograph(files) -> None:
    source = Photographs(files, 16)
    index = torch.tensor([2, 0, 1, 0])
    crops = source.crops(index, seeded())
    draws = crop_draws(4, seeded())
    for place, row in enumerate(index.tolist()):
        width, height = SIZES[row]
        (box,) = boxes_of(draws[:, place : place + 1], height, width).tolist()
        expected = TF.resized_crop(
            Image.open(files[row]), *box, [16, 16], InterpolationMode.BICUBIC
        )
        assert torch.equal(crops[place], TF.pil_to_tensor(expected))
        assert 0.85 < box[2] * box[3] / (width * height) <= 1 or row == 2
    assert not torch.equal(crops[1], crops[3])  # one photograph, two crops


def test_a_batch_is_normalised_and_a_function_of_the_generators_state(files) -> None:
    source = Photographs(files, 16, mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 0.25))
    index = torch.tensor([1, 0])
    batch = source.batch(index, seeded())
    pixels = source.crops(index, seeded()).float() / 255
    torch.testing.assert_close(batch, TF.normalize(pixels, [0.5, 0.25, 0.0], [1.0, 0.5, 0.25]))
    assert not torch.equal(batch, source.batch(index, seeded(4)))


def test_a_part_of_a_batch_has_the_crops_of_the_whole(files) -> None:
    source = Photographs(files, 16)
    index, part = torch.tensor([0, 1, 2, 1]), torch.tensor([3, 0])
    assert torch.equal(source.crops(index, seeded(), part), source.crops(index, seeded())[part])


def test_without_a_generator_it_is_the_stores_central_square(files) -> None:
    index = torch.tensor([0, 1, 2])
    assert torch.equal(Photographs(files, 16).batch(index), ImageStore(files, 16).batch(index))


def test_missing_files_are_counted_and_broken_ones_named(files, tmp_path) -> None:
    lost = [*files, tmp_path / "a.jpg", tmp_path / "b.jpg"]
    with pytest.raises(DataError, match=r"a\.jpg \(row 3\): no such picture, and 1 more of 5"):
        Photographs(lost, 16)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(picture(tmp_path / "whole.jpg", 64, 64).read_bytes()[:900])
    source = Photographs([*files, cut], 16)
    with pytest.raises(DataError, match=r"cut\.jpg \(row 3\): broken or truncated"):
        source.batch(torch.tensor([0, 3]))
    files[1].unlink()
    with pytest.raises(DataError, match=r"1\.png \(row 1\): no such picture"):
        source.batch(torch.tensor([1]))


def test_the_cache_holds_smaller_copies_and_gives_the_same_batch_each_time(tmp_path) -> None:
    smooth = np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3).astype(np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(smooth).save(path)
    source = Photographs([path], 16, cache=tmp_path / "cache", cache_side=30)
    first = source.batch(torch.tensor([0]), seeded())
    (copy,) = (tmp_path / "cache").rglob("*.jpg")
    with Image.open(copy) as image:
        assert image.size == (40, 30)
    assert torch.equal(source.batch(torch.tensor([0]), seeded()), first)
    whole = Photographs([path], 16).batch(torch.tensor([0]), seeded())
    assert 0 < (first - whole).abs().mean() < 0.1
    Image.fromarray(255 - smooth).save(path)  # a changed picture is not served from its old copy
    assert not torch.allclose(source.batch(torch.tensor([0]), seeded()), first, atol=0.5)


def test_pictures_of_the_models_size_are_kept_in_memory_all_others_are_not(
    tmp_path, files, monkeypatch
) -> None:
    small = [picture(tmp_path / "square.png", 16, 16)]
    assert isinstance(picture_source(small, 16), ImageStore)
    assert isinstance(picture_source(files, 16), Photographs)
    assert isinstance(picture_source(small, 32), Photographs)
    monkeypatch.setattr(photographs, "STORE_LIMIT", 100)
    assert isinstance(picture_source(small, 16), Photographs)
    with pytest.raises(DataError, match="no such picture"):
        picture_source([tmp_path / "absent.png"], 16)

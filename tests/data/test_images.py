"""Images in memory and on demand, and their random crops, against PIL and torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from cae_lib.data import images
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk, open_images
from cae_lib.errors import DataError

SIZES = [(40, 30), (32, 40), (64, 20)]  # the last is too wide for a crop of 3:4 to 4:3
STATISTICS = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
each = pytest.mark.parametrize("kind", [ImagesInMemory, ImagesOnDisk])


def picture(path: Path, width: int = 16, height: int = 16, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / f"{i}.png", *size, seed=i) for i, size in enumerate(SIZES)]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each
def test_other_sizes_and_modes_become_central_rgb_squares(tmp_path, kind) -> None:
    wide = picture(tmp_path / "wide.png", width=64, height=32)
    grey = tmp_path / "grey.png"
    Image.new("L", (8, 8), 77).save(grey)
    source = kind([wide, grey], 16)
    pixels = source.crops(torch.tensor([0, 1]))
    resized = Image.open(wide).resize((32, 16), Image.Resampling.BICUBIC)
    assert torch.equal(pixels[0], TF.pil_to_tensor(resized)[:, :, 8:24])
    assert (pixels[1] == 77).all()
    normalised = TF.normalize(pixels.float() / 255, *STATISTICS)
    torch.testing.assert_close(source.batch(torch.tensor([0, 1])), normalised)


@each
def test_missing_files_are_counted_and_broken_ones_named(files, tmp_path, kind) -> None:
    with pytest.raises(DataError, match=r"a\.jpg \(row 3\): no such picture, and 1 more of 5"):
        kind([*files, tmp_path / "a.jpg", tmp_path / "b.jpg"], 16)
    whole = picture(tmp_path / "whole.jpg", 64, 64).read_bytes()
    for content in (b"not a picture", whole[: len(whole) // 2]):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.jpg \(row 3\): "):
            kind([*files, broken], 16).crops(torch.tensor([0, 3]))


@each
def test_crops_are_torchvisions_bicubic_ones_of_the_whole(files, kind) -> None:
    """In memory those of the central square."""
    index = torch.tensor([2, 0, 1, 0])
    source = kind(files, 16)
    crops = source.crops(index, seeded())
    draw = RandomResizedCrop(16, (0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
    state = torch.random.get_rng_state()
    for place, seed in enumerate(images.draw_crop_seeds(4, seeded()).tolist()):
        row = int(index[place])
        whole = Image.open(files[row])
        if kind is ImagesInMemory:
            whole = source.pixels[row]
        torch.manual_seed(seed)
        expected = draw(whole)
        if kind is ImagesOnDisk:
            expected = TF.pil_to_tensor(expected)
        assert torch.equal(crops[place], expected)
    torch.random.set_rng_state(state)
    source.crops(index, seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(crops[1], crops[3])  # one photograph, two crops


@each
def test_crops_follow_the_generator_and_a_part_has_those_of_the_whole(files, kind) -> None:
    source = kind(files, 16)
    index, part = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([1, 4])
    first = source.crops(index, seeded(1))
    assert torch.equal(first, source.crops(index, seeded(1)))
    assert not torch.equal(first, source.crops(index, seeded(2)))
    assert not torch.equal(first, source.crops(index))
    assert torch.equal(source.crops(index, seeded(1), part), first[part])
    assert torch.equal(source.crops(index, subset=part), source.crops(index)[part])


def test_pictures_of_the_models_size_are_kept_in_memory(tmp_path, files, monkeypatch) -> None:
    small = [picture(tmp_path / "square.png", 16, 16)]
    assert isinstance(open_images(small, 16), ImagesInMemory)
    assert isinstance(open_images(files, 16), ImagesOnDisk)
    assert isinstance(open_images(small, 32), ImagesOnDisk)
    assert isinstance(open_images([picture(tmp_path / "tall.png", 16, 20)], 16), ImagesOnDisk)
    twice = picture(tmp_path / "twice.jpg", 32, 32)  # a JPEG can be decoded at half its size
    assert isinstance(open_images([twice], 16), ImagesOnDisk)
    monkeypatch.setattr(images, "MAX_BYTES_IN_MEMORY", 100)
    assert isinstance(open_images(small, 16), ImagesOnDisk)
    with pytest.raises(DataError, match=r"absent\.png"):
        open_images([tmp_path / "absent.png"], 16)

"""Images in memory and on demand, their crops against PIL and torchvision, and broken files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import ImageReader
from cae_lib.attribution.pair import attribute
from cae_lib.data import images
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk, open_images
from cae_lib.data.incomplete import decoding_problem, log_left_out
from cae_lib.errors import DataError

SIZES = [(40, 30), (32, 40), (64, 20)]  # the last is too wide for a crop of 3:4 to 4:3
STATISTICS = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
ORIENTATION, QUARTER_TURN = 274, 6  # the EXIF tag, and the value that most phones write
each_kind = pytest.mark.parametrize("kind", [ImagesInMemory, ImagesOnDisk])


def picture(path: Path, width: int = 16, height: int = 16, seed: int = 0, **options) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / f"{i}.png", *size, seed=i) for i, size in enumerate(SIZES)]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each_kind
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


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_evaluation_training_and_attribution_see_the_stored_pixels(ending, tmp_path, tiny_clip):
    """Not those that the EXIF data ask a viewer to turn."""
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    turned = picture(tmp_path / f"turned.{ending}", 448, 224, exif=exif)
    plain = picture(tmp_path / f"plain.{ending}", 448, 224)
    assert Image.open(turned).getexif()[ORIENTATION] == QUARTER_TURN
    (read,) = ImageReader(tiny_clip.preprocess).read([ImageRef(turned)])
    for kind in (ImagesInMemory, ImagesOnDisk):
        assert torch.equal(kind([plain], 112).crops(torch.tensor([0]))[0], read.pixels)
    for image in (turned, Image.open(turned)):
        shown = attribute(tiny_clip, image, "a cat").image
        np.testing.assert_allclose(shown.transpose(2, 0, 1), read.pixels / 255, atol=1e-6)


@each_kind
def test_missing_files_are_counted_and_broken_ones_named(files, tmp_path, kind) -> None:
    with pytest.raises(DataError, match=r"a\.jpg \(row 3\): no such picture, and 1 more of 5"):
        kind([*files, tmp_path / "a.jpg", tmp_path / "b.jpg"], 16)
    whole = picture(tmp_path / "whole.jpg", 64, 64).read_bytes()
    for content in (b"not a picture", whole[: len(whole) // 2]):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.jpg \(row 3\): "):
            kind([*files, broken], 16).crops(torch.tensor([0, 3]))


@each_kind
def test_crops_are_torchvisions_bicubic_ones_of_the_whole(files, kind) -> None:
    """In memory those of the central square."""
    index = torch.tensor([2, 0, 1, 0])
    source = kind(files, 16)
    crops = source.crops(index, seeded())
    draw = RandomResizedCrop(16, (0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
    state = torch.random.get_rng_state()
    for place, seed in enumerate(images.draw_crop_seeds(4, seeded()).tolist()):
        row = int(index[place])
        whole = source.pixels[row] if kind is ImagesInMemory else Image.open(files[row])
        torch.manual_seed(seed)
        expected = draw(whole)
        if kind is ImagesOnDisk:
            expected = TF.pil_to_tensor(expected)
        assert torch.equal(crops[place], expected)
    torch.random.set_rng_state(state)
    source.crops(index, seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(crops[1], crops[3])  # one photograph, two crops


@each_kind
def test_crops_follow_the_generator_and_a_part_has_those_of_the_whole(files, kind) -> None:
    source = kind(files, 16)
    index, part = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([1, 4])
    first = source.crops(index, seeded(1))
    assert torch.equal(first, source.crops(index, seeded(1)))
    assert not torch.equal(first, source.crops(index, seeded(2)))
    assert not torch.equal(first, source.crops(index))
    assert torch.equal(source.crops(index, seeded(1), part), first[part])
    assert torch.equal(source.crops(index, subset=part), source.crops(index)[part])


def test_images_of_the_models_size_are_kept_in_memory(tmp_path, files, monkeypatch) -> None:
    small = [picture(tmp_path / "square.png", 16, 16)]
    assert isinstance(open_images(small, 16), ImagesInMemory)
    twice = picture(tmp_path / "twice.jpg", 32, 32)  # a JPEG can be decoded at half its size
    for others, size in ((files, 16), (small, 32), ([twice], 16)):
        assert isinstance(open_images(others, size), ImagesOnDisk)
    monkeypatch.setattr(images, "MAX_BYTES_IN_MEMORY", 100)
    assert isinstance(open_images(small, 16), ImagesOnDisk)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_decoding_problem_is_that_of_the_file_as_it_is_now(ending, tmp_path):
    whole = picture(tmp_path / f"whole.{ending}", 64, 64)
    assert decoding_problem(whole) == "" == decoding_problem(tmp_path / "absent.jpg")
    content = whole.read_bytes()
    for damaged, words in (
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><title>404</title>", "identify"),
        (content[:-40], "truncated"),
        (content[: len(content) * 2 // 3], "truncated"),
    ):
        whole.write_bytes(damaged)
        assert words in decoding_problem(whole).lower()
        assert str(tmp_path) not in decoding_problem(whole)
    whole.write_bytes(content)
    assert decoding_problem(whole) == ""


def test_three_missing_images_are_listed_and_the_others_counted(tmp_path, capsys):
    """Broken ones, which somebody has to mend, come first, and ten rows are listed at most."""
    missing = [(f"row {row}", f"its image {row}.jpg is missing") for row in range(40)]
    broken = [(f"row b{row}", "its image cannot be decoded") for row in range(9)]
    for rows, listed in ((missing[:3], 3), (missing, 3), (missing + broken, 10)):
        log_left_out(f"set of {len(rows)}", tmp_path, 5, 5 + len(rows), rows)
        first, *lines = capsys.readouterr().out.splitlines()
        assert f"{len(rows)} rows; 5 used of {5 + len(rows)} expected" in first
        assert sum("row" in line for line in lines) == listed
        assert ("row b" in lines[0]) == (len(rows) > 40)
        assert (f"{len(rows) - listed} more" in lines[-1]) == (len(rows) > listed)

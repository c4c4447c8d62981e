"""Evaluation, training and attribution see an image with the pixels that its file stores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from book.extension.explorer import image_sheet
from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import Encoder, ImageReader
from cae_bench.retrieval import retrieval_ranks
from cae_lab.cli import main
from cae_lib.attribution.pair import attribute
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from data.recipes.photographs.pairs import Composite, Pair, Photograph, Phrase

ORIENTATION, QUARTER_TURN = 274, 6  # the EXIF tag, and the value that most phones write


@pytest.fixture(params=["jpg", "png"])
def files(request, tmp_path) -> tuple[Path, Path]:
    """An image whose EXIF data ask for a quarter turn, and the same pixels without EXIF data."""
    noise = np.random.default_rng(0).integers(0, 256, (224, 448, 3), dtype=np.uint8)
    turned, plain = (tmp_path / f"{name}.{request.param}" for name in ("turned", "plain"))
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    Image.fromarray(noise).save(turned, exif=exif)
    Image.fromarray(noise).save(plain)
    return turned, plain


def test_evaluation_training_and_attribution_see_the_stored_pixels(files, tiny_clip):
    turned, plain = files
    assert Image.open(turned).getexif()[ORIENTATION] == QUARTER_TURN
    expected = tiny_clip.preprocess(Image.open(plain).convert("RGB"))
    (read,) = ImageReader(tiny_clip.preprocess).read([ImageRef(turned)])
    assert (read.pixels.shape, read.pixels.dtype) == ((3, 112, 112), torch.uint8)
    for kind in (ImagesInMemory, ImagesOnDisk):
        assert torch.equal(kind([turned], 112).crops(torch.tensor([0]))[0], read.pixels)
    assert torch.equal(Encoder(tiny_clip).pixel_values([ImageRef(turned)])[0], expected)
    shown = attribute(tiny_clip, plain, "a cat").image
    np.testing.assert_allclose(shown.transpose(2, 0, 1), read.pixels / 255, atol=1e-6)
    for image in (turned, str(turned), Image.open(turned)):
        np.testing.assert_array_equal(attribute(tiny_clip, image, "a cat").image, shown)


def test_random_crops_and_crops_of_benchmarks_are_of_the_stored_pixels(files, tiny_clip):
    for kind in (ImagesInMemory, ImagesOnDisk):
        first, second = (
            kind([path], 112).crops(torch.tensor([0]), torch.manual_seed(0)) for path in files
        )
        assert torch.equal(first, second)
    crop = (300, 10, 440, 90)  # outside of the turned image
    first, second = (Encoder(tiny_clip).pixel_values([ImageRef(path, crop)]) for path in files)
    assert torch.equal(first, second)


def test_retrieval_ties_an_image_with_its_turned_copy(files, tiny_clip):
    """Were their pixels different, one of the two captions would find its image first."""
    pairs = ImageCaptionPairs(
        [*files], ["a cat", "two red dogs"], torch.tensor([0, 1]), "toy", 2, 2
    )
    found = retrieval_ranks(Encoder(tiny_clip), pairs, "toy")
    assert found[found.direction == "text to image"]["rank"].tolist() == [2, 2]


def test_the_command_the_explorer_and_paired_photographs_see_the_stored_pixels(
    files, tiny_clip, tmp_path, monkeypatch, capsys
):
    turned, plain = files
    meta = CheckpointMeta("clip-mini", "quickgelu")
    weights, asked = save_checkpoint(tmp_path / "own", tiny_clip, meta), []

    def keep(clip, image, *arguments):
        asked.append(np.array(image))
        return attribute(clip, image, *arguments)

    monkeypatch.setattr("cae_lib.attribution.pair.attribute", keep)
    command = ["attribute", str(turned), "a cat", "--weights", str(weights)]
    assert main([*command, "-o", str(tmp_path / "figure.png")]) == 0
    np.testing.assert_array_equal(asked, [np.array(Image.open(plain).convert("RGB"))])
    assert image_sheet([ImageRef(turned)]) == image_sheet([ImageRef(plain)])
    composites = []
    for path in files:
        photograph = Photograph(1, path, (), (), frozenset())
        phrase = Phrase("a cat", "cat")
        Composite(Pair(phrase, photograph, phrase, photograph), False).write(tmp_path / "both.png")
        composites.append((tmp_path / "both.png").read_bytes())
    assert composites[0] == composites[1]

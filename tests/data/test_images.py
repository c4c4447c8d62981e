"""The picture store and the batched random crop, against PIL and torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from cae_lib.data.crops import crop_boxes, resized_crop
from cae_lib.data.images import ImageStore
from cae_lib.errors import DataError


def picture(path: Path, width: int = 16, height: int = 16, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_batch_is_the_normalised_picture(tmp_path):
    paths = [picture(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    store = ImageStore(paths, 16, mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 0.25))
    assert len(store) == 3
    batch = store.batch(torch.tensor([2, 0, 2]))
    expected = TF.to_tensor(Image.open(paths[2]))
    expected = TF.normalize(expected, [0.5, 0.25, 0.0], [1.0, 0.5, 0.25])
    torch.testing.assert_close(batch[0], expected)
    torch.testing.assert_close(batch[0], batch[2])
    assert batch.dtype == torch.float32 and batch.shape == (3, 3, 16, 16)


def test_other_sizes_and_modes_become_central_rgb_squares(tmp_path):
    wide = picture(tmp_path / "wide.png", width=64, height=32)
    grey = tmp_path / "grey.png"
    Image.new("L", (8, 8), 77).save(grey)
    store = ImageStore([wide, grey], 16)
    with Image.open(wide) as image:
        resized = image.resize((32, 16), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(resized)[:, 8:24].copy()).permute(2, 0, 1)
    assert torch.equal(store.pixels[0], expected)
    assert (store.pixels[1] == 77).all()


def test_missing_broken_and_truncated_files_are_named_with_their_row(tmp_path):
    good = picture(tmp_path / "good.png")
    with pytest.raises(DataError, match=r"absent\.png \(row 1\): no such picture"):
        ImageStore([good, tmp_path / "absent.png"], 16)
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.jpg \(row 2\): broken or truncated"):
        ImageStore([good, good, text], 16)
    whole = picture(tmp_path / "whole.jpg", 64, 64).read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg \(row 0\): broken or truncated"):
        ImageStore([cut], 16)


def test_crop_equals_torchvisions_crop_and_resize():
    pixels = torch.randint(0, 256, (6, 3, 20, 30), dtype=torch.uint8)
    boxes = crop_boxes(6, 20, 30, torch.Generator().manual_seed(5), scale=(0.2, 0.9))
    crops = resized_crop(pixels, boxes)
    assert len({tuple(box) for box in boxes.tolist()}) == 6
    for source, box, crop in zip(pixels.float(), boxes.tolist(), crops, strict=True):
        expected = TF.resized_crop(source, *box, [20, 30], antialias=False)
        torch.testing.assert_close(crop, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(112, 112), (40, 90)])
def test_boxes_are_distributed_like_torchvisions(height, width):
    count = 3000
    boxes = crop_boxes(count, height, width, torch.Generator().manual_seed(0)).double()
    torch.manual_seed(1)
    blank = torch.empty(1, height, width)
    reference = [
        RandomResizedCrop.get_params(blank, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(count)
    ]
    reference = torch.tensor(reference, dtype=torch.float64)
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    error = (boxes.var(0) + reference.var(0)).div(count).sqrt() + 1e-9
    assert ((boxes.mean(0) - reference.mean(0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(boxes.std(0), reference.std(0), rtol=0.1, atol=1e-9)


def test_crops_are_a_function_of_the_generators_state(tmp_path):
    store = ImageStore([picture(tmp_path / "a.png", 32, 32)], 32)
    index = torch.zeros(4, dtype=torch.long)
    first = store.batch(index, torch.Generator().manual_seed(1))
    again = store.batch(index, torch.Generator().manual_seed(1))
    other = store.batch(index, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, store.batch(index))


def test_a_part_of_a_batch_has_the_crops_of_the_whole(tmp_path):
    store = ImageStore([picture(tmp_path / f"{i}.png", 32, 32, seed=i) for i in range(3)], 32)
    index, part = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([1, 4])
    whole = store.batch(index, torch.Generator().manual_seed(1))
    own = store.batch(index, torch.Generator().manual_seed(1), part)
    assert torch.equal(own, whole[part])
    assert torch.equal(store.batch(index, part=part), store.batch(index)[part])

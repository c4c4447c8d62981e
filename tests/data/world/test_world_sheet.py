from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cae_lib.data.world.draw import render
from cae_lib.data.world.scenes import sample_scene
from cae_lib.data.world.sheet import contact_sheet, relation_sheet
from cae_lib.errors import DataError


def test_contact_sheet_shows_the_first_test_scenes(tmp_path, config):
    path = contact_sheet("smoke", tmp_path / "sheet.png", 4)
    sheet = np.asarray(Image.open(path)).astype(float)
    assert sheet.shape[1] == 4 * 234 + 10
    first = render(sample_scene(config.scenes, "test", 0))
    enlarged = np.asarray(first.resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
    assert np.array_equal(sheet[10:234, 10:234], enlarged)
    assert (sheet[236:] == 0).any()  # text below


def test_relation_sheet_has_a_row_for_each_half_of_the_relations(tmp_path):
    path = relation_sheet("smoke", tmp_path / "relations.png")
    width, height = Image.open(path).size
    assert width == 6 * 234 + 10 and height > 2 * 234


def test_sheet_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        contact_sheet("smoke", tmp_path / "absent" / "sheet.png", 2)
    with pytest.raises(DataError, match="Name a .png file"):
        contact_sheet("smoke", tmp_path / "sheet.unknown", 2)

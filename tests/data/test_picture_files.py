"""Picture files: which of them can be used, and those that come inside of tables."""

import pytest
from PIL import Image

from cae_lib.data.picture_files import fault, unpacked
from cae_lib.data.rows import RowError


@pytest.fixture(params=["jpg", "png"])
def whole(request, tmp_path):
    path = tmp_path / f"whole.{request.param}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    return path


def test_a_file_is_looked_into_as_it_is_now(whole, tmp_path):
    assert fault(whole) == "" == fault(tmp_path / "absent.jpg")
    content = whole.read_bytes()
    whole.write_bytes(b"")
    assert fault(whole) == "the file is empty"
    whole.write_text("<!DOCTYPE html><title>404</title>")
    assert "identify" in fault(whole) and str(tmp_path) not in fault(whole)
    for cut in (-40, len(content) * 2 // 3):
        whole.write_bytes(content[:cut])
        assert "truncated" in fault(whole).lower() and str(tmp_path) not in fault(whole)
    whole.write_bytes(content)
    assert fault(whole) == ""


def test_a_picture_of_a_table_is_written_once_or_found_by_its_path(whole, tmp_path):
    content = whole.read_bytes()
    path = unpacked({"bytes": content, "path": "x.jpg"}, tmp_path / "images")
    assert path.read_bytes() == content and path.parent == tmp_path / "images"
    assert unpacked({"bytes": content}, tmp_path / "images") == path
    assert unpacked({"bytes": None, "path": "1.jpg"}, tmp_path) == tmp_path / "1.jpg"
    for wrong in (None, {}, {"bytes": b"", "path": ""}, "x.jpg"):
        with pytest.raises(RowError, match="'negative_image'"):
            unpacked(wrong, tmp_path, "negative_image")

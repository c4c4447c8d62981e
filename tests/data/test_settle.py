"""Which pictures can be used, and sets that are refused or told of."""

import pytest
from PIL import Image

from cae_lib.data.incomplete import fault, settle
from cae_lib.errors import DataError


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


def test_a_set_is_settled_once(tmp_path, capsys):
    left = [("row 3", "its picture 3.jpg is missing"), ("row 4", "has no field 'x'")]
    for left_out, message in (
        (left, "set.json, row 3: its picture .*2 of 9 rows.*Complete"),
        (left[1:], "row 4: has no field 'x'.*1 of 9 rows.*Fetch the file"),
        ([], "set.json: 9 items, 8 expected"),
    ):
        with pytest.raises(DataError, match=f"{message}.*--allow-missing"):
            settle("set", tmp_path / "set.json", 7, 9, 8, left_out, allowed=False)
    settle("set", tmp_path / "set.json", 9, 9, 9, [], allowed=False)
    settle("set", tmp_path / "set.json", 9, 9, 8, [], allowed=True)
    assert capsys.readouterr().out == ""
    settle("set", tmp_path / "set.json", 7, 9, 8, left, allowed=True)
    settle("set", tmp_path / "set.json", 0, 9, 8, left, allowed=True)
    some, none = capsys.readouterr().out.split("Left out: ")[1:]
    assert "7 used of 8 expected\n  row 4" in some and "row 3" in some
    assert "0 used of 8 expected\n  row 4" in none and "row 3" not in none

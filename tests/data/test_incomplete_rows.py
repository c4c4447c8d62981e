"""Which images can be used, and what is said of datasets that are not complete."""

import pytest
from PIL import Image

from cae_lib.data.incomplete import decoding_problem, log_left_out, validate_row_count
from cae_lib.errors import DataError


@pytest.fixture(params=["jpg", "png"])
def whole(request, tmp_path):
    path = tmp_path / f"whole.{request.param}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    return path


def test_a_file_is_looked_into_as_it_is_now(whole, tmp_path):
    assert decoding_problem(whole) == "" == decoding_problem(tmp_path / "absent.jpg")
    content = whole.read_bytes()
    whole.write_bytes(b"")
    assert decoding_problem(whole) == "the file is empty"
    whole.write_text("<!DOCTYPE html><title>404</title>")
    assert "identify" in decoding_problem(whole) and str(tmp_path) not in decoding_problem(whole)
    for cut in (-40, len(content) * 2 // 3):
        whole.write_bytes(content[:cut])
        problem = decoding_problem(whole)
        assert "truncated" in problem.lower() and str(tmp_path) not in problem
    whole.write_bytes(content)
    assert decoding_problem(whole) == ""


def test_rows_that_are_missing_or_unusable_are_refused(tmp_path):
    left_out = [("row 3", "its image 3.jpg is missing"), ("row 4", "its image 4.jpg is missing")]
    file = tmp_path / "set.json"
    with pytest.raises(DataError, match=r"set\.json, row 3: its image .* 2 of 9 rows"):
        validate_row_count(file, 9, 9, left_out)
    with pytest.raises(DataError, match=r"set\.json: 9 rows, 8 expected"):
        validate_row_count(file, 9, 8, [])
    validate_row_count(file, 9, 9, [])


@pytest.mark.parametrize(
    ("n_broken", "n_missing", "n_used", "listed"),
    [(0, 3, 5, 3), (0, 40, 5, 3), (2, 40, 5, 5), (9, 40, 5, 10), (30, 0, 5, 10), (1, 40, 0, 1)],
)
def test_three_missing_images_are_listed_and_the_others_counted(
    n_broken, n_missing, n_used, listed, tmp_path, capsys
):
    rows = [(f"row {row}", f"its image {row}.jpg is missing") for row in range(n_missing)]
    rows += [(f"row b{row}", "its image cannot be decoded") for row in range(n_broken)]
    n_expected = n_used + len(rows)
    log_left_out(f"set {n_broken} {n_missing} {n_used}", tmp_path, n_used, n_expected, rows)
    first, *lines = capsys.readouterr().out.splitlines()
    assert f"{len(rows)} rows; {n_used} used of {n_expected} expected" in first
    others = [line for line in lines if "row" not in line]
    assert len(lines) - len(others) == listed
    assert sum("is missing" in line for line in lines) <= 3
    assert "row b" in lines[0] or not n_broken
    assert [f"{len(rows) - listed} more" in line for line in others] == [True] * (
        len(rows) > listed
    )

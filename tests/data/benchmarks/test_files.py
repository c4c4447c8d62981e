from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import files
from cae_lib.errors import DataError


def test_malformed_json_names_file_line_and_column(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"a": 1,\n "b" 2}', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.json: not valid JSON at line 2, column 6"):
        files.read_json(path, dict)


def test_json_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="top level is a list, a dict was expected"):
        files.read_json(path, dict)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\xd8"])
def test_unreadable_file_says_what_to_do(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json.*(Put|Fetch)"):
        files.read_json(path, dict)


def test_csv_keeps_commas_quotes_line_breaks_and_long_fields(tmp_path):
    path = tmp_path / "a.csv"
    long = "x" * 200_000
    path.write_text(
        f'a,b\n"one, two","say ""hi""\nthere"\nplain,od"d\u2028quote\n{long},y\n', encoding="utf-8"
    )
    rows = list(files.read_csv(path, ("a", "b")))
    assert [line for line, _ in rows] == [3, 4, 5]
    assert rows[0][1] == {"a": "one, two", "b": 'say "hi"\nthere'}
    assert rows[1][1] == {"a": "plain", "b": 'od"d\u2028quote'}
    assert rows[2][1]["a"] == long


def test_csv_row_with_another_number_of_fields_is_an_error_of_that_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2,3\n", encoding="utf-8")
    [(line, row)] = files.read_csv(path, ("a", "b"))
    assert line == 2
    with pytest.raises(files.RowError, match="has 3 fields"):
        files.text(row, "a")


def test_csv_that_ends_inside_quotes_is_refused(tmp_path):
    path = tmp_path / "cut.csv"
    path.write_text('a,b\n1,2\n3,"four\n5,6\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"cut\.csv: the file ends inside a quoted field"):
        list(files.read_csv(path, ("a",)))


@pytest.mark.parametrize("content", ["", "a,c\n1,2\n"])
def test_csv_without_a_column_names_it(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="the header lacks b"):
        list(files.read_csv(path, ("b",)))


def test_numbers_may_be_text_but_must_be_finite_numbers():
    assert files.number({"x": "12.5"}, "x") == 12.5
    assert files.number({"x": 3}, "x") == 3.0
    for bad in ("", "nan", "inf", True, None, [1]):
        with pytest.raises(files.RowError, match="'x'"):
            files.number({"x": bad}, "x")


def test_box_is_left_top_right_bottom():
    row = {"x": 10, "y": "2.0", "w": 5, "h": 7}
    assert files.box(row, "x", "y", "w", "h") == (10, 2, 15, 9)
    with pytest.raises(files.RowError, match="positive size"):
        files.box({**row, "w": 0}, "x", "y", "w", "h")


def test_text_keeps_spaces_and_refuses_blanks():
    assert files.text({"t": " customers\n"}, "t") == " customers\n"
    for bad in ("", "  \n", 3, None):
        with pytest.raises(files.RowError, match="'t'"):
            files.text({"t": bad}, "t")

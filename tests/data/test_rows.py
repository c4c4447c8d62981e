"""Readers of annotation files: what they keep, and which file, line or field they blame."""

from pathlib import Path

import pandas as pd
import pytest

from cae_lib.data import rows
from cae_lib.errors import DataError


@pytest.fixture
def write(tmp_path):
    def put(content: str):
        (tmp_path / "a.x").write_text(content, encoding="utf-8", newline="")
        return tmp_path / "a.x"

    return put


def test_json_that_cannot_be_read_or_has_another_shape_is_named(write, tmp_path):
    with pytest.raises(DataError, match=r"a\.x, .*line 2, column 6"):
        rows.read_json(write('{"a": 1,\n "b" 2}'), dict)
    with pytest.raises(DataError, match=r"a\.x.* list.* dict"):
        rows.read_json(write("[]"), dict)
    assert rows.read_json(write("\ufeff[1]"), list) == [1]  # with a byte order mark
    (tmp_path / "a.x").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match=r"a\.x"):
        rows.read_json(tmp_path / "a.x", dict)
    with pytest.raises(DataError, match=r"b\.x"):
        rows.read_json(tmp_path / "b.x", dict)


def test_csv_keeps_commas_quotes_line_breaks_and_long_fields(write):
    long = "x" * 200_000
    text = f'a,b\n"one, two","say ""hi""\nthere"\nplain,od"d\u2028quote\n{long},y\n'
    found = list(rows.csv_rows(write(text), ("a", "b")))
    assert [row.key for row in found] == ["3", "4", "5"]
    assert found[0].content == {"a": "one, two", "b": 'say "hi"\nthere'}
    assert found[1].content == {"a": "plain", "b": 'od"d\u2028quote'}
    assert found[2].text("a") == long


def test_csv_that_is_cut_short_or_lacks_a_column(write):
    [row] = rows.csv_rows(write("a,b\n1,2,3\n"), ("a", "b"))
    with pytest.raises(DataError, match=r"a\.x, row ending at line 2: .* 3 "):
        row.text("a")
    read = []
    with pytest.raises(DataError, match=r"a\.x: .*quoted"):
        read.extend(row.content for row in rows.csv_rows(write('a,b\n1,2\n3,"four\n5,6\n')))
    assert read == [{"a": "1", "b": "2"}], "the row with the open quote is not given"
    for content in ("", "a,c\n1,2\n"):
        with pytest.raises(DataError, match=r"a\.x: .*\bb\b"):
            list(rows.csv_rows(write(content), ("b",)))


@pytest.mark.parametrize(
    ("method", "right", "value", "wrong"),
    [
        ("text", " customers\n", " customers\n", ("", "  \n", 3, None)),
        ("number", "12.5", 12.5, ("", "nan", "inf", True, None, [1], 10**400)),
        ("integer", "7.0", 7, ("7.5", 7.5, "x", True, None, 10**5000)),
        ("texts", ["a", " b"], ("a", " b"), ([], ["a", ""], ["a", 1], "a", None)),
        (
            "literal_list",
            " ['a', \"b's\"]",
            ["a", "b's"],
            ("('a',)", "[1]", "[a]", "['a'", "f()", "[{[]: 1}]", r"['\ud83d']"),
        ),
        ("literal_list", "{'b', 'a', 'b'}", ["b", "a", "b"], ("{'a': 'b'}", "")),
    ],
)
def test_fields_are_what_they_have_to_be(method, right, value, wrong):
    def field(content):
        return getattr(rows.Row(Path("a.x"), "row 3", content), method)("x")

    assert field({"x": right}) == value
    for content in wrong:
        with pytest.raises(DataError, match=r"a\.x, row 3: .*'x'"):
            field({"x": content})


def test_a_field_further_in_is_named_by_its_path():
    row = rows.Row(Path("a.x"), "row 3", ["x", {"POS": ["y"]}])
    assert row.text("1.POS.0") == "y"
    for path in ("1.POS.1", "1.NEG.0", "2"):
        with pytest.raises(DataError, match=f"row 3: .*{path}"):
            row.text(path)


def test_box_is_left_top_right_bottom():
    content = {"x": 10, "y": "2.0", "w": 5, "h": 7}
    assert rows.Row(Path("a.x"), "row 3", content).box("x", "y", "w", "h") == (10, 2, 15, 9)
    with pytest.raises(DataError, match=r"row 3: .* 0 "):
        rows.Row(Path("a.x"), "row 3", {**content, "w": 0}).box("x", "y", "w", "h")


def test_lines_of_json_end_at_newlines_alone(write):
    path = write('{"a": "one\u2028two"}\n\n{"a": 2}')
    assert [row.content["a"] for row in rows.jsonl_rows(path)] == ["one\u2028two", 2]
    with pytest.raises(DataError, match=r"a\.x, line 2"):
        list(rows.jsonl_rows(write('{"a": 1}\n{"a"')))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("x", "'x' is null"),
        ("y.0.z", r"'y\.0' is null"),
        ("y.1", "no field 'y.1'"),
        ("z", "no field"),
    ],
)
def test_a_field_that_is_null_is_not_called_missing(field, message):
    with pytest.raises(DataError, match=f"row 3: .*{message}"):
        rows.Row(Path("a.x"), "row 3", {"x": None, "y": [None]}).value(field)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (rows.json_rows, "[]"),
        (rows.json_rows, "{}"),
        (rows.jsonl_rows, "\ufeff\r\n\n"),
        (rows.text_rows, ""),
        (rows.csv_rows, "a,b\r\n"),
    ],
)
def test_a_file_without_rows_is_named(write, read, content):
    with pytest.raises(DataError, match=r"a\.x: .*no rows"):
        list(read(write(content)))


def test_a_table_without_rows_is_named(tmp_path):
    pd.DataFrame({"caption": []}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: .*no rows"):
        list(rows.parquet_rows(tmp_path / "a.parquet", tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": {"a": 1}, "1": {"a": 2}}', "'1' twice"),
        ('[{"a": 1, "a": 2}]', "'a' twice"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (r'{"\uD83D": "half of a pair"}', "not valid JSON"),
    ],
)
def test_json_that_python_reads_otherwise_than_it_stands_there_is_refused(write, content, message):
    with pytest.raises(DataError, match=rf"a\.x, .*{message}"):
        list(rows.json_rows(write(content)))


def test_a_table_with_a_damaged_header_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"caption": ["a"]}).to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"caption", b"capti\x90n"))
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        list(rows.parquet_rows(path, tmp_path))


def test_a_header_with_a_column_twice_is_refused(write):
    with pytest.raises(DataError, match=r"a\.x: the header has b twice"):
        list(rows.csv_rows(write("a,b,b\n1,2,3\n"), ("a", "b")))
    assert len(list(rows.csv_rows(write("a,b,,\n1,2,3,4\n"), ("a", "b")))) == 1

"""Readers of annotation files: what they keep, and which file, line or field they blame."""

from pathlib import Path

import pandas as pd
import pytest

from cae_lib.data import rows
from cae_lib.errors import DataError


@pytest.fixture
def write(tmp_path):
    def put(content: str | bytes):
        path = tmp_path / "a.x"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def row_of(content) -> rows.Row:
    return rows.Row(Path("a.x"), "row 3", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ('{"a": 1}', "dict.* list"),
        (b"\xff\xfe\x00\xd8", ""),
        # Python would read these otherwise than they stand there
        ('{"1": {"a": 1}, "1": {"a": 2}}', "'1' twice"),
        ('[{"a": 1, "a": 2}]', "'a' twice"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (r'["\uD83D is half of a pair"]', "not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_named(write, content, message):
    with pytest.raises(DataError, match=rf"a\.x.*{message}"):
        rows.read_json(write(content), list)


def test_json_may_begin_with_a_byte_order_mark(write, tmp_path):
    assert rows.read_json(write("\ufeff[1]"), list) == [1]
    with pytest.raises(DataError, match=r"b\.x"):
        rows.read_json(tmp_path / "b.x", dict)


def test_csv_keeps_commas_quotes_line_breaks_and_long_fields(write):
    long = "x" * 200_000
    text = f'a,b\n"one, two","say ""hi""\nthere"\nplain,od"d\u2028quote\n{long},y\n'
    read = list(rows.csv_rows(write(text), ("a", "b")))
    assert [row.key for row in read] == ["3", "4", "5"]
    assert read[0].content == {"a": "one, two", "b": 'say "hi"\nthere'}
    assert read[1].content == {"a": "plain", "b": 'od"d\u2028quote'}
    assert read[2].text("a") == long


def test_csv_that_is_cut_short_or_lacks_a_column_is_named(write):
    [row] = rows.csv_rows(write("a,b\n1,2,3\n"), ("a", "b"))
    with pytest.raises(DataError, match=r"a\.x, row ending at line 2: .* 3 "):
        row.text("a")
    read = []
    with pytest.raises(DataError, match=r"a\.x: .*quoted"):
        read.extend(row.content for row in rows.csv_rows(write('a,b\n1,2\n3,"four\n5,6\n')))
    assert read == [{"a": "1", "b": "2"}], "the row with the open quote is not given"
    for content, message in (
        ("", r"\bb\b"),
        ("a,c\n1,2\n", r"\bb\b"),
        ("a,b,b\n1,2,3\n", "has b twice"),
    ):
        with pytest.raises(DataError, match=rf"a\.x: .*{message}"):
            list(rows.csv_rows(write(content), ("b",)))
    assert len(list(rows.csv_rows(write("a,b,,\n1,2,3,4\n"), ("a", "b")))) == 1


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
    assert getattr(row_of({"x": right}), method)("x") == value
    for content in wrong:
        with pytest.raises(DataError, match=r"a\.x, row 3: .*'x'"):
            getattr(row_of({"x": content}), method)("x")


def test_box_is_left_top_right_bottom():
    content = {"x": 10, "y": "2.0", "w": 5, "h": 7}
    assert row_of(content).box("x", "y", "w", "h") == (10, 2, 15, 9)
    with pytest.raises(DataError, match=r"row 3: .* 0 "):
        row_of(content | {"w": 0}).box("x", "y", "w", "h")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("x", "'x' is null"),
        ("y.0.z", r"'y\.0' is null"),
        ("y.1", "no field 'y.1'"),
        ("z.b", "no field 'z.b'"),
        ("q", "no field"),
    ],
)
def test_field_that_is_missing_or_null_is_named_by_its_path(field, message):
    row = row_of({"x": None, "y": [None], "z": {"a": ["one"]}})
    assert row.text("z.a.0") == "one"
    with pytest.raises(DataError, match=f"row 3: .*{message}"):
        row.value(field)


def test_lines_of_json_end_at_newlines_alone(write):
    path = write('{"a": "one\u2028two"}\n\n{"a": 2}')
    assert [row.content["a"] for row in rows.jsonl_rows(path)] == ["one\u2028two", 2]
    with pytest.raises(DataError, match=r"a\.x, line 2"):
        list(rows.jsonl_rows(write('{"a": 1}\n{"a"')))


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
def test_file_without_rows_is_named(write, read, content):
    with pytest.raises(DataError, match=r"a\.x: .*no rows"):
        list(read(write(content)))


@pytest.mark.parametrize(("captions", "message"), [([], "no rows"), (["a"], "cannot be read")])
def test_table_without_rows_or_with_a_damaged_header_is_named(tmp_path, captions, message):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"caption": captions}).to_parquet(path)
    if captions:
        path.write_bytes(path.read_bytes().replace(b"caption", b"capti\x90n"))
    with pytest.raises(DataError, match=rf"a\.parquet: .*{message}"):
        list(rows.parquet_rows(path, tmp_path))

"""Readers of annotation files: what they keep, and which file, line or field they blame."""

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
    with pytest.raises(DataError, match=r"a\.x, .*not valid JSON at line 2, column 6"):
        rows.read_json(write('{"a": 1,\n "b" 2}'), dict)
    with pytest.raises(DataError, match="top level: is a list, a dict was expected"):
        rows.read_json(write("[]"), dict)
    assert rows.read_json(write("\ufeff[1]"), list) == [1]  # with a byte order mark
    (tmp_path / "a.x").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match=r"a\.x: cannot be read as text"):
        rows.read_json(tmp_path / "a.x", dict)
    with pytest.raises(DataError, match=r"b\.x: no such annotation file. Put"):
        rows.read_json(tmp_path / "b.x", dict)


def test_csv_keeps_commas_quotes_line_breaks_and_long_fields(write):
    long = "x" * 200_000
    text = f'a,b\n"one, two","say ""hi""\nthere"\nplain,od"d\u2028quote\n{long},y\n'
    found = list(rows.read_csv(write(text), ("a", "b")))
    assert [line for line, _ in found] == [3, 4, 5]
    assert found[0][1] == {"a": "one, two", "b": 'say "hi"\nthere'}
    assert found[1][1] == {"a": "plain", "b": 'od"d\u2028quote'}
    assert found[2][1]["a"] == long


def test_csv_that_is_cut_short_or_lacks_a_column(write):
    [(line, row)] = rows.read_csv(write("a,b\n1,2,3\n"), ("a", "b"))
    assert line == 2
    with pytest.raises(rows.RowError, match="has 3 fields"):
        rows.text(row, "a")
    with pytest.raises(DataError, match=r"a\.x: the file ends inside a quoted field"):
        list(rows.read_csv(write('a,b\n1,2\n3,"four\n5,6\n'), ("a",)))
    for content in ("", "a,c\n1,2\n"):
        with pytest.raises(DataError, match="the header lacks b"):
            list(rows.read_csv(write(content), ("b",)))


@pytest.mark.parametrize(
    ("read", "right", "found", "wrong"),
    [
        (rows.text, " customers\n", " customers\n", ("", "  \n", 3, None)),
        (rows.number, "12.5", 12.5, ("", "nan", "inf", True, None, [1])),
        (rows.texts, ["a", " b"], ("a", " b"), ([], ["a", ""], ["a", 1], "a", None)),
        (rows.literal, " ['a', \"b's\"]", ["a", "b's"], ("('a',)", "[1]", "[a]", "['a'", "f()")),
        (rows.literal, "{'b', 'a', 'b'}", ["b", "a", "b"], ("{'a': 'b'}", "")),
    ],
)
def test_fields_are_what_they_have_to_be(read, right, found, wrong):
    assert read({"x": right}, "x") == found
    for value in wrong:
        with pytest.raises(rows.RowError, match="'x'"):
            read({"x": value}, "x")


def test_box_is_left_top_right_bottom():
    row = {"x": 10, "y": "2.0", "w": 5, "h": 7}
    assert rows.box(row, "x", "y", "w", "h") == (10, 2, 15, 9)
    with pytest.raises(rows.RowError, match="positive size"):
        rows.box({**row, "w": 0}, "x", "y", "w", "h")

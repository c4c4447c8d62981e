"""SentEval's layout with its traps, written by hand and by the small world."""

import pytest

from cae_bench.similarity import (
    OFFICIAL_PAIR_COUNTS,
    STS_PARTS,
    available_similarity_sets,
    load_similarity_set,
)
from cae_lib.errors import ConfigError, DataError

STSB, SICK = "STS/STSBenchmark/sts-test.csv", "SICK/SICK_test_annotated.txt"


def part(year, name, inputs, scores):
    folder = f"STS/{year}-en-test/STS"
    return {f"{folder}.input.{name}.txt": inputs, f"{folder}.gs.{name}.txt": scores}


def sts_row(score, first, second, *more):
    return "\t".join(["main-captions", "MSRvid", "2012test", "0001", score, first, second, *more])


def test_blank_lines_of_scores_leave_pairs_out_and_smt_is_no_part(put):
    for name in ("OnWN", "headlines", "SMT", "FNWN"):
        root = put(part("STS13", name, f"{name}\tb\nc\td\ne\tf\n", "4.5\n\n0\n"))
    pairs = load_similarity_set("STS13", root)
    assert pairs.first == ("FNWN", "e", "headlines", "e", "OnWN", "e")
    assert pairs.second == ("b", "f") * 3 and pairs.human_scores.tolist() == [4.5, 0.0] * 3
    assert pairs.part_sizes == dict.fromkeys(STS_PARTS["STS13"], 2)
    assert (pairs.counts, pairs.n_expected) == ({"unscored": 3}, 6)


def test_quotes_mean_nothing_and_more_columns_are_allowed(put):
    rows = [
        sts_row("5.000", 'A man says "hello', "A man greets"),
        sts_row("2.5", "x", 'y" and', "http://a.b", "extra"),
        sts_row("0", "a  cat ", "a\u2028dog"),
    ]
    pairs = load_similarity_set("STS-B", put({STSB: "\n".join(rows)}))
    assert pairs.first == ('A man says "hello', "x", "a  cat ")
    assert pairs.second == ("A man greets", 'y" and', "a\u2028dog")
    assert pairs.human_scores.tolist() == [5.0, 2.5, 0.0]


def test_sick_with_and_without_header(put):
    text = "1\tA group\tA crowd\t4.5\tNEUTRAL\n2\tA dog\tA cat\t2\tENTAILMENT\n"
    for content in (text, ("pair_ID\tA\tB\trelatedness_score\tX\n" + text).replace("\n", "\r\n")):
        pairs = load_similarity_set("SICK-R", put({SICK: content}))
        assert pairs.first == ("A group", "A dog") and pairs.human_scores.tolist() == [4.5, 2.0]


@pytest.mark.parametrize("score", ["0.9", "5.5", "x"])
def test_scores_of_sick_are_from_1_to_5_in_its_first_line_too(put, score):
    root = put({SICK: f"1\tA dog\tA cat\t{score}\tNEUTRAL\n2\tA dog\tA cat\t1\tNEUTRAL\n"})
    with pytest.raises(
        DataError, match=f"annotated.txt, line 1: the score is '{score}', .* 1 to 5"
    ):
        load_similarity_set("SICK-R", root)


def test_official_numbers_are_those_of_scored_pairs(put, capsys):
    rows = [sts_row("1.0", f"a {i}", f"b {i}") for i in range(1379)]
    root = put({STSB: "\n".join(rows) + "\n"} | part("STS14", "images", "a\tb\n", "1\n"))
    assert (
        load_similarity_set("STS-B", root, is_published=True).n_expected
        == OFFICIAL_PAIR_COUNTS["STS-B"]
        == 1379
    )
    put({STSB: "\n".join(rows[1:]) + "\n"})
    pairs = load_similarity_set("STS-B", root, is_published=True)
    assert (len(pairs.human_scores), pairs.n_expected) == (1378, 1379)
    put({STSB: "\n".join([*rows, rows[0]]) + "\n"})
    with pytest.raises(DataError, match="1380 rows, 1379 expected"):
        load_similarity_set("STS-B", root, is_published=True)
    assert load_similarity_set("STS14", root).n_expected == 1
    capsys.readouterr()
    pairs = load_similarity_set("STS14", root, is_published=True)
    assert (len(pairs.human_scores), pairs.n_expected) == (1, 3750)
    assert "deft-forum" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"STS\.input\.FNWN\.txt: no such annotation file"):
        load_similarity_set("STS13", root)
    assert available_similarity_sets(root) == ("STS14", "STS-B")


def test_malformed_lines_short_rows_unknown_sets_and_nothing_there(put, tmp_path):
    for inputs, scores, message in (
        ("a\tb\nc\td\n", "1\n", r"gs\.belief\.txt: 1 lines, but STS.input.belief.txt has 2"),
        ("a\tb\nc d\n", "1\n2\n", r"input\.belief\.txt, line 2: 2 columns, two sentences"),
        ("a\tb\n", "high\n", r"gs\.belief\.txt, line 1: the score is 'high'"),
        ("a\tb\n", "nan\n", r"gs\.belief\.txt, line 1: the score is 'nan'"),
        ("a\tb\n", "50\n", r"gs\.belief\.txt, line 1: the score is '50', .* from 0 to 5"),
        ("a\tb\n", "-1\n", r"gs\.belief\.txt, line 1: the score is '-1'"),
        ("", "", r"input\.belief\.txt: .* no pairs"),
        ("a\tb\n", "\n", "no pair of STS15 has a score|no such annotation file"),
    ):
        with pytest.raises(DataError, match=message):
            load_similarity_set("STS15", put(part("STS15", "belief", inputs, scores)))
    root = put({STSB: sts_row("5.1", "a", "b")})
    with pytest.raises(DataError, match=r"sts-test\.csv, line 1: the score is '5\.1'"):
        load_similarity_set("STS-B", root)
    root = put({STSB: sts_row("1", "a", "b") + "\nx\ty\n"})
    with pytest.raises(DataError, match=r"sts-test\.csv, line 2: 2 columns, two sentences"):
        load_similarity_set("STS-B", root)
    with pytest.raises(ConfigError, match="STS12, STS13"):
        load_similarity_set("STS17", root)
    with pytest.raises(DataError, match="no dataset of STS12"):
        available_similarity_sets(tmp_path / "SICK")

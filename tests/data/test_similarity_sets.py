"""SentEval's layout with its traps, written by hand."""

import pytest

from cae_bench.similarity import STS_PARTS, available_similarity_sets, load_similarity_set
from cae_lib.errors import ConfigError, DataError

STSB, SICK = "STS/STSBenchmark/sts-test.csv", "SICK/SICK_test_annotated.txt"


def part(year, name, inputs, scores):
    folder = f"STS/{year}-en-test/STS"
    return {f"{folder}.input.{name}.txt": inputs, f"{folder}.gs.{name}.txt": scores}


def sts_row(score, first, second, *more):
    return "\t".join(["main-captions", "MSRvid", "2012test", "0001", score, first, second, *more])


def test_sts_pairs_without_a_score_are_left_out_and_smt_is_no_part(put):
    for name in ("OnWN", "headlines", "SMT", "FNWN"):
        root = put(part("STS13", name, f"{name}\tb\nc\td\ne\tf\n", "4.5\n\n0\n"))
    pairs = load_similarity_set("STS13", root)
    assert pairs.first == ("FNWN", "e", "headlines", "e", "OnWN", "e")
    assert pairs.second == ("b", "f") * 3 and pairs.human_scores.tolist() == [4.5, 0.0] * 3
    assert pairs.part_sizes == dict.fromkeys(STS_PARTS["STS13"], 2)
    assert (pairs.counts, pairs.n_expected) == ({"unscored": 3}, 6)


def test_stsb_quotes_mean_nothing_and_more_columns_are_allowed(put):
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


def test_published_numbers_are_those_of_scored_pairs(put, capsys):
    rows = [sts_row("1.0", f"a {i}", f"b {i}") for i in range(1379)]
    root = put({STSB: "\n".join(rows[1:]) + "\n"} | part("STS14", "images", "a\tb\n", "1\n"))
    for name, n_pairs, n_expected in (("STS-B", 1378, 1379), ("STS14", 1, 3750)):
        pairs = load_similarity_set(name, root, is_published=True)
        assert (len(pairs.human_scores), pairs.n_expected) == (n_pairs, n_expected)
    assert "deft-forum" in capsys.readouterr().out
    assert load_similarity_set("STS14", root).n_expected == 1
    put({STSB: "\n".join([*rows, rows[0]]) + "\n"})
    with pytest.raises(DataError, match="1380 rows, 1379 expected"):
        load_similarity_set("STS-B", root, is_published=True)
    assert available_similarity_sets(root) == ("STS14", "STS-B")


SICK_ROWS = "1\tA dog\tA cat\t{}\tNEUTRAL\n2\tA dog\tA cat\t1\tNEUTRAL\n"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("STS15", ("a\tb\nc\td\n", "1\n"), r"gs\.belief.* 1 lines, but STS.input.belief.txt has 2"),
        ("STS15", ("a\tb\nc d\n", "1\n2\n"), r"input\.belief\.txt, line 2: 2 columns, two sent"),
        ("STS15", ("a\tb\n", "high\n"), r"gs\.belief\.txt, line 1: the score is 'high'"),
        ("STS15", ("a\tb\n", "nan\n"), r"gs\.belief\.txt, line 1: the score is 'nan'"),
        ("STS15", ("a\tb\n", "50\n"), "the score is '50', .* from 0 to 5"),
        ("STS15", ("a\tb\n", "-1\n"), "the score is '-1'"),
        ("STS15", ("", ""), r"input\.belief\.txt: .* no pairs"),
        ("STS15", ("a\tb\n", "\n"), "no pair of STS15 has a score|no such annotation file"),
        ("STS-B", {STSB: sts_row("5.1", "a", "b")}, r"sts-test\.csv, line 1: the score is '5\.1'"),
        ("STS-B", {STSB: sts_row("1", "a", "b") + "\nx\ty\n"}, "line 2: 2 columns, two sentences"),
        *(
            ("SICK-R", {SICK: SICK_ROWS.format(score)}, f"line 1: the score is '{score}', .* 1 to")
            for score in ("0.9", "5.5", "x")
        ),
        ("STS13", {}, r"STS\.input\.FNWN\.txt: no such annotation file"),
    ],
)
def test_malformed_line_of_a_similarity_set_is_named(put, name, files, message):
    files = files if isinstance(files, dict) else part("STS15", "belief", *files)
    with pytest.raises(DataError, match=message):
        load_similarity_set(name, put(files))


def test_unknown_or_absent_similarity_sets_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="STS12, STS13"):
        load_similarity_set("STS17", tmp_path)
    with pytest.raises(DataError, match="no dataset of STS12"):
        available_similarity_sets(tmp_path)

"""What the paper prints as a measure, and means of several runs, against numbers worked by hand."""

import pandas as pd
import pytest

from book.studies import claims
from cae_bench.statistics import ITEM_KEY
from cae_lib.errors import DataError


def test_the_gain_to_expect_is_caes_share_of_the_controls_gain(tmp_path, monkeypatch):
    printed = tmp_path / "paper.csv"
    printed.write_text(
        'model,A,B,Winoground\nCLIP-FT,50,60,9\nNegCLIP,60,64,\n"CLIP-CAE, mean of 4",51,62.5,1\n'
    )
    monkeypatch.setattr(claims, "bundled_path", lambda name: printed)
    assert claims.printed_gains().to_dict() == {
        "CLIP-FT": 0.0,
        "NegCLIP": 7.0,
        "CLIP-CAE, mean of 4": 1.75,
    }
    assert claims.expected_gain(0.08) == pytest.approx(0.02)
    # 1.75 of 45 wrong answers in a hundred
    assert claims.expected_addition(0.7) == pytest.approx(1.75 / 45 * 0.3)


def test_columns_of_a_benchmark_may_count_once(tmp_path, monkeypatch):
    printed = tmp_path / "paper.csv"
    printed.write_text(
        "model,A-x,A-y,B,Winoground\nCLIP-FT,50,50,50,\nNegCLIP,56,58,53,\n"
        '"CLIP-CAE, mean of 4",52,50,51,\n'
    )
    monkeypatch.setattr(claims, "bundled_path", lambda name: printed)
    assert claims.printed_gains(by_family=True)["NegCLIP"] == pytest.approx((7 + 3) / 2)
    assert claims.expected_gain(1, by_family=True) == pytest.approx((1 + 1) / (7 + 3))


def test_runs_are_pooled_item_by_item_and_seed_by_seed():
    key = dict.fromkeys(ITEM_KEY, "x")
    rows = [
        ("a", 0, 1, 1),
        ("b", 0, 1, 0),
        ("a", 1, 1, 1),
        ("b", 1, 1, 1),
        ("a", 0, 2, 0),
        ("b", 0, 2, 0),
        ("c", 0, 2, 1),
    ]
    answers = pd.DataFrame(
        [
            dict(key, run=run, seed=seed, item=item, picture=item, correct=correct)
            for run, seed, item, correct in rows
        ]
    )
    found = claims.average_runs(answers, {"both": ["a", "b"]})
    assert set(found["run"]) == {"both"}
    assert found.set_index(["seed", "item"])["correct"].to_dict() == {
        (0, 1): 0.5,
        (1, 1): 1.0,
        (0, 2): 0.0,
    }
    with pytest.raises(DataError, match="'both'.*answers: d, e"):
        claims.average_runs(answers, {"both": ["a", "e", "d"]})
    assert claims.average_runs(answers, {}).empty

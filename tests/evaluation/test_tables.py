"""Items and their answers meet by family, subset and item, whatever their order."""

import numpy as np
import pandas as pd
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.averages import average, weights
from cae_lib.evaluation.scores import choice_scores
from cae_lib.evaluation.tables import join_by_item
from cae_lib.results import ANSWERS


def items(**sizes):
    """Items of subsets of one family, each with the mean over items as its number."""
    rows = [
        ("f", subset, "g", row, 1 / n, f"f/{subset}", 0.5, n)
        for subset, n in sizes.items()
        for row in range(n)
    ]
    columns = [*ANSWERS[:2], "group", "item", "weight", "stratum", "chance", "n_expected"]
    return pd.DataFrame(rows, columns=columns).astype({"item": np.int32})


def answers_to(frame, right):
    return frame[[*ANSWERS]].assign(correct=right)


def test_answers_in_any_order_take_the_order_of_the_items():
    asked = items(one=2, two=3)
    given = answers_to(asked, [True, False, True, True, False])
    for shuffled in (given, given[::-1], given.sample(frac=1, random_state=1)):
        found = join_by_item(asked, shuffled)
        assert [*found] == [*asked, "correct"] and found.correct.dtype == bool
        pd.testing.assert_frame_equal(found.drop(columns="correct"), asked)
        assert found.correct.tolist() == given.correct.tolist()
        assert average(shuffled, weights(asked, "subset")).tolist() == pytest.approx([1 / 2, 2 / 3])
        assert choice_scores(shuffled, asked).set_index("dataset").value.to_dict() == pytest.approx(
            {"f/one": 1 / 2, "f/two": 2 / 3}
        )
    assert join_by_item(asked[:0], given[:0]).empty


WRONG = {
    "an answer is missing": lambda asked, given: (asked, given[given.index != 3]),
    "an item is missing": lambda asked, given: (asked[asked.index != 3], given),
    "an answer is given twice": lambda asked, given: (asked, pd.concat([given, given[3:4]])),
    "an item is asked twice": lambda asked, given: (pd.concat([asked, asked[3:4]]), given),
    "another item is answered": lambda asked, given: (
        asked,
        given.assign(item=given["item"].replace(2, 7)),
    ),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_missing_or_stands_twice_is_named(change):
    asked = items(one=2, two=3)
    asked, given = change(asked, answers_to(asked, [True, False, True, True, False]))
    with pytest.raises(DataError, match="f/two"):
        join_by_item(asked, given)
    with pytest.raises(DataError, match="f/two"):
        choice_scores(given, asked)


def test_a_score_has_an_answer_to_each_of_its_items():
    asked = items(one=2, two=3)
    given = answers_to(asked, [True, False, True, True, False])
    with pytest.raises(DataError, match="f/two"):
        weights(pd.concat([asked, asked[3:4]]), "subset")
    with pytest.raises(DataError, match="f/two"):
        average(given[:4], weights(asked, "subset"))
    with pytest.raises(DataError, match="f/two"):
        average(pd.concat([given, given[4:]]), weights(asked, "subset"))
    some = weights(asked, "subset").query("score == 'f/one'")
    assert average(given, some).to_dict() == {"f/one": 0.5}  # further answers do no harm


def test_subsets_that_were_not_asked_have_no_score():
    asked = items(one=2, two=3)
    (row,) = choice_scores(answers_to(asked[:2], [True, True]), asked).itertuples()
    assert (row.dataset, row.value, row.chance, row.n_used) == ("f/one", 1.0, 0.5, 2)

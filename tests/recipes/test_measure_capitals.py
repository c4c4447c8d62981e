"""Agreement of roles with labels, worked out by hand."""

import pytest

from cae_lib.words.roles import OBJECT, RELATION, Span
from data.recipes.measure_capitals import (
    FORMS,
    TREATMENTS,
    agreement,
    labelled_captions,
    word_roles,
)


def test_a_word_has_the_role_of_the_first_span_that_reaches_into_it() -> None:
    spans = [Span(2, 9, OBJECT), Span(8, 12, RELATION)]
    assert word_roles("a red-hot dog on", spans) == ["other", "object", "relation", "other"]


def test_agreement_by_hand() -> None:
    truth = [["object", "relation", "object"], ["other", "object"]]
    roles = [["object", "object", "attribute"], ["other", "object"]]
    shares = agreement(truth, roles)
    assert shares["object precision"] == shares["object recall"] == pytest.approx(2 / 3)
    assert shares["object F1"] == pytest.approx(2 / 3)
    assert shares["relation F1"] == shares["attribute F1"] == 0
    assert shares["mean F1"] == pytest.approx(2 / 9) and shares["captions right"] == 0.5


def test_rewritten_captions_keep_their_words() -> None:
    captions, roles = labelled_captions()
    for rewrite in (*FORMS.values(), *TREATMENTS.values()):
        texts = [rewrite(caption) for caption in captions]
        assert [len(text.split(" ")) for text in texts] == [len(words) for words in roles]


@pytest.mark.parametrize(
    ("treatment", "expected"),
    [
        ("as written", ["A Man And I On A Nintendo Wii", "A boy and I in a Hawaiian shirt"]),
        ("lower", ["a man and i on a nintendo wii", "a boy and i in a hawaiian shirt"]),
        (
            "lower after the first",
            ["A man and I on a nintendo wii", "A boy and I in a hawaiian shirt"],
        ),
        ("truecase", ["a man and i on a nintendo wii", "A boy and I in a Hawaiian shirt"]),
    ],
)
def test_treatments_by_hand(treatment, expected) -> None:
    captions = ["A Man And I On A Nintendo Wii", "A boy and I in a Hawaiian shirt"]
    assert [TREATMENTS[treatment](caption) for caption in captions] == expected

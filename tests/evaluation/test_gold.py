"""The parser's precision and recall on hand-made roles."""

from __future__ import annotations

from cae_lib.evaluation.gold import agreement, word_roles
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span


def test_a_word_has_the_role_of_the_span_it_lies_in():
    text = "a red cat on top of it"
    spans = [Span(2, 5, ATTRIBUTE), Span(6, 9, OBJECT), Span(10, 19, RELATION)]
    expected = [OTHER, ATTRIBUTE, OBJECT, RELATION, RELATION, RELATION, OTHER]
    assert word_roles(text, spans) == expected


def test_precision_and_recall_by_hand():
    gold = [[OTHER, OBJECT, RELATION, OBJECT], [ATTRIBUTE, OBJECT]]
    found = [[OTHER, OBJECT, OTHER, RELATION], [ATTRIBUTE, OBJECT]]
    result = agreement(found, gold)
    assert result["object"] == {
        "precision": 1.0, "recall": 2 / 3, "n_predicted": 2, "n_gold": 3,
    }  # fmt: skip
    assert result["relation"]["precision"] == 0.0
    assert result["relation"]["recall"] == 0.0
    assert result["attribute"]["recall"] == 1.0


def test_a_role_that_never_occurs_has_no_value():
    result = agreement([[OTHER]], [[OTHER]])
    assert result["relation"] == {
        "precision": None, "recall": None, "n_predicted": 0, "n_gold": 0,
    }  # fmt: skip

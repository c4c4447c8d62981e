"""The parser against gold roles, on hand-made ones and on the small world."""

from __future__ import annotations

from cae_lib.evaluation import gold
from cae_lib.evaluation.gold import confusion, parser_table, word_roles
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span


def test_a_word_has_the_role_of_the_span_it_lies_in():
    text = "a red cat on top of it"
    spans = [Span(2, 5, ATTRIBUTE), Span(6, 9, OBJECT), Span(10, 19, RELATION)]
    expected = [OTHER, ATTRIBUTE, OBJECT, RELATION, RELATION, RELATION, OTHER]
    assert word_roles(text, spans) == expected


def test_words_are_counted_by_hand():
    truth = [[OTHER, OBJECT, RELATION, OBJECT], [ATTRIBUTE, OBJECT], [OBJECT]]
    found = [[OTHER, OBJECT, OTHER, RELATION], [ATTRIBUTE, OBJECT], [OBJECT]]
    table = confusion(["above", "", ""], found, truth)
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("", "attribute", "attribute", 1),
        ("", "object", "object", 2),
        ("above", "object", "object", 1),
        ("above", "other", "other", 1),
        ("above", "other", "relation", 1),
        ("above", "relation", "object", 1),
    ]


def test_the_parser_finds_most_roles_of_the_small_world(smoke_world, monkeypatch):
    monkeypatch.setattr(gold, "data_root", lambda profile: smoke_world)
    table = parser_table("smoke")
    right = table[table.found == table.gold].groupby("gold").n.sum()
    assert (right / table.groupby("gold").n.sum()).min() > 0.5
    assert "" in set(table.relation) and table.relation.nunique() > 5

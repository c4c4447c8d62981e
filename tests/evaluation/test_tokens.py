from __future__ import annotations

import pytest
import torch
from open_clip import SimpleTokenizer

from cae_lib.evaluation import tokens
from cae_lib.evaluation.tokens import forget_tokens, tokenize

TEXTS = [
    "a cat",
    "",
    "Hello!!! & <b>caf\u00e9</b>\n two  spaces \U0001f408",
    "ends with the mark <end_of_text> and goes on",
    "!",
    " ".join(["very"] * 100),
    "a cat",
]


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(tokens, "_ROWS", {})


@pytest.fixture
def counting(monkeypatch):
    """The texts that open_clip's tokenizer is asked for."""
    asked = []
    call = SimpleTokenizer.__call__

    def note(self, texts, context_length=None):
        asked.extend(texts)
        return call(self, texts, context_length)

    monkeypatch.setattr(SimpleTokenizer, "__call__", note)
    return asked


@pytest.mark.parametrize("length", [77, 16])
def test_ids_are_those_of_the_tokenizer_also_when_remembered(length):
    tokenizer = SimpleTokenizer(context_length=length)
    expected = tokenizer(TEXTS)
    for _ in range(2):
        found = tokenize(tokenizer, TEXTS)
        assert found.dtype == torch.long
        assert torch.equal(found, expected)


def test_two_tokenizers_of_one_kind_read_a_text_once(counting):
    tokenize(SimpleTokenizer(), TEXTS)
    tokenize(SimpleTokenizer(), [*TEXTS, "a dog"])
    assert sorted(counting) == sorted({*TEXTS, "a dog"})
    forget_tokens()
    tokenize(SimpleTokenizer(), ["a dog"])
    assert counting[-1] == "a dog" and counting.count("a dog") == 2


def test_another_length_cleaning_or_vocabulary_is_another_kind(counting):
    for tokenizer in (
        SimpleTokenizer(context_length=16),
        SimpleTokenizer(),
        SimpleTokenizer(clean="whitespace"),
        SimpleTokenizer(additional_special_tokens=["<x>"]),
    ):
        assert torch.equal(tokenize(tokenizer, ["A  Cat <x>"]), tokenizer(["A  Cat <x>"]))
    assert len(counting) == 8


def test_random_masking_and_other_tokenizers_are_called_each_time(counting):
    masking = SimpleTokenizer(context_length=8, reduction_mask="random")
    tokenize(masking, ["a b c d e f g h i j"])
    tokenize(masking, ["a b c d e f g h i j"])
    assert len(counting) == 2
    calls = []
    tokenize(lambda texts: calls.append(texts), ("a", "b"))
    tokenize(lambda texts: calls.append(texts), ("a", "b"))
    assert calls == [["a", "b"], ["a", "b"]]

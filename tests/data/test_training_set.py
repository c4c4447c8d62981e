"""Stored swaps of training captions."""

from pathlib import Path

import pytest

from cae_lab import training_set
from cae_lib.data import negatives

CAPTIONS = ["a red dog sees a black cat", "a dog"]


@pytest.mark.parametrize("name", ["spacy", "kept"])
def test_stored_swaps_belong_to_the_parser_that_found_them(home: Path, monkeypatch, name: str):
    parsed: list[bool] = []

    def swap(captions: list[str], preserve_meaning: bool) -> list[list[str]]:
        parsed.append(preserve_meaning)
        return [[f"swap {len(parsed)}"] for _ in captions]

    monkeypatch.setattr(negatives, "swap_negatives", swap)
    stored = training_set._parsed_negatives(CAPTIONS, name)
    assert stored == [["swap 1"], ["swap 1"]] == training_set._parsed_negatives(CAPTIONS, name)
    assert parsed == [name == "kept"]
    monkeypatch.setattr(negatives, "parser_identity", lambda: "another model 2.0")
    assert training_set._parsed_negatives(CAPTIONS, name) == [["swap 2"], ["swap 2"]]


def test_the_parser_is_known_by_its_version(monkeypatch):
    before = negatives.parser_identity()
    assert before == negatives.parser_identity()
    monkeypatch.setattr(negatives.importlib.metadata, "version", lambda name: "0.0.1")
    assert negatives.parser_identity() != before

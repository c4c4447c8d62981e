"""The tables of the page on a loop of one's own, and the settings read from the code."""

from __future__ import annotations

import open_clip
import pytest

from cae_lib.errors import DataError
from cae_lib.report.loss_settings import explanations, settings_table
from cae_lib.report.own_loop import roles_table, sample_pairs, steps_table, words_of_role
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

LINE = {"contrastive": 1.0, "attribution": 0.3, "objects": 0.25, "composition": 0.15,
        "n_objects": 8, "n_composition": 4}  # fmt: skip


def test_pairs_are_pictures_with_captions_of_their_own() -> None:
    pictures, texts = sample_pairs("smoke", 3)
    assert [picture.size for picture in pictures] == [(112, 112)] * 3 and len(set(texts)) == 3
    again = sample_pairs("smoke", 2)
    assert again[1] == texts[:2] and again[0][1].tobytes() == pictures[1].tobytes()


def test_roles_are_shown_as_words() -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    texts = ["a pterodactyl in front of two red, round cups", "a cat"]
    spans = [Span(2, 13, OBJECT), Span(14, 25, RELATION), Span(30, 33, ATTRIBUTE),
             Span(35, 40, ATTRIBUTE), Span(41, 45, OBJECT)]  # fmt: skip
    words = align(texts, [spans, []], tokenizer)
    found = words_of_role(words.tokens[0], words.roles[0], ATTRIBUTE, tokenizer)
    assert found == ["red", "round"]
    table = roles_table(texts, words, tokenizer)
    assert table.rows == [
        [texts[0], "pterodactyl, cups", "red, round", "in front of"], ["a cat", "–", "–", "–"],
    ]  # fmt: skip
    assert "0 of 5 phrases" in table.caption
    assert len(roles_table(texts, words, tokenizer, n=1).rows) == 1


def test_first_and_last_steps_are_shown() -> None:
    history = [LINE | {"objects": 0.25 - step / 100} for step in range(12)]
    table = steps_table(history, "gradient", 2.0)
    assert [row[0] for row in table.rows] == ["1", "2", "3", "5", "10", "12"]
    assert table.rows[0][1:] == ["1.000", "0.300", "0.250", "0.150", "+0.100", "8", "4"]
    assert table.rows[-1][3:6] == ["0.140", "0.150", "−0.010"]
    assert "gradient and λ = 2" in table.caption
    assert [row[0] for row in steps_table(history[:2], "gradient", 2.0).rows] == ["1", "2"]
    with pytest.raises(DataError, match="no step was logged"):
        steps_table([], "gradient", 2.0)


def test_every_setting_has_a_default_and_a_meaning() -> None:
    rows = {(row[0], row[1].strip("`")): row[2:] for row in settings_table().rows}
    assert rows["all", "weight"][0] == "`1.0`" and rows["all", "weight"][1].startswith("lambda")
    assert rows["gradcam", "start_layer"][0] == "`0`"
    assert rows["perturbation", "replacement"][1].endswith("another token of the batch.")
    assert {whose for whose, _ in rows} == {"all", "attention", "gradcam", "perturbation",
                                            "gradient"}  # fmt: skip
    assert all(default and meaning for default, meaning in rows.values())


def test_explanations_end_with_their_section() -> None:
    class Documented:
        """A sentence.

        Args:
            first: one thing
                that goes on.
            **rest: other: things.

        Raises:
            ValueError: never.
        """

    found = explanations(Documented)
    assert found == {"first": "one thing that goes on.", "rest": "other: things."}

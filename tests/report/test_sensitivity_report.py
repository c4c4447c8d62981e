"""The comparison of the methods, and sentences on open choices from records made up by hand."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.report.faithfulness import Faithfulness
from cae_lib.report.methods import FACTS, SUPPORT, comparison_table, parameter_table
from cae_lib.report.sensitivity import (
    judge_sensitivity,
    mask_table,
    sensitivity,
    sensitivity_figure,
    sensitivity_table,
)

N = 30


def part(name: str, correlation: float, top: float = 0.3, low: float = 0.1) -> dict:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, N)
    return {
        "name": name, "parameters": {}, "correlation": (correlation + noise).tolist(),
        "object": (top + noise).tolist(), "composition": [None, *(low - noise)[1:]],
    }  # fmt: skip


def masked(gain: float) -> dict:
    area = {"deletion": {"area": [0.4 - gain / 4] * N}, "insertion": {"area": [0.4 + gain / 4] * N}}
    return {"whole": [0.65] * N, "empty": [0.15] * N, "random": {"area": [0.4] * N},
            "methods": dict.fromkeys(METHODS, area)}  # fmt: skip


def content(**changes: dict) -> dict:
    choices = {m: [part("default", 1.0), part("some", 0.9), part("other", 0.4)] for m in METHODS}
    masks = {"token": masked(0.2), "zero": masked(0.1)}
    return {"n_captions": N, "choices": choices | changes, "masks": masks}


def test_every_parameter_is_described():
    table = parameter_table()
    fields = [(m, f.name) for m, cls in METHODS.items() for f in dataclasses.fields(cls)]
    assert len(table.rows) == len(fields)
    assert {(m, name) for m, names in SUPPORT.items() for name in names} == set(fields)
    defaults = {(row[0], row[1]): row[2] for row in table.rows}
    assert defaults["perturbation", "`replacement`"] == "`'mean'`"
    assert defaults["GradCAM", "`temperature`"] == "`True`"


def test_the_comparison_fits_the_code():
    assert set(FACTS) == set(METHODS) and len(comparison_table().header) == 5
    for name, method in METHODS.items():
        second = "autograd.grad(" in inspect.getsource(inspect.getmodule(method))
        assert (FACTS[name].order == "second") == second
    assert [name for name, facts in FACTS.items() if not facts.image] == ["attention"]


def test_the_choice_that_matters_most_is_named():
    text = judge_sensitivity(content()).source
    assert "for attention “other” (rank correlation with the default 0.4" in text
    assert "Object words get more than composition words by all 12 variants." in text
    turned = content(gradcam=[part("default", 1.0), part("some", -0.2, top=0.1, low=0.3)])
    text = judge_sensitivity(turned).source
    assert "for GradCAM “some” (rank correlation with the default −0.2" in text
    assert "for certain by 10 of 11 variants, but not by: GradCAM, some." in text


def test_table_and_figure_of_choices():
    table = sensitivity_table(content())
    assert [row[:3] for row in table.rows[:1]] == [["attention", "default", "1"]]
    assert table.rows[2][1] == "other"
    assert float(table.rows[2][3].split()[0]) == pytest.approx(0.5, abs=0.02)
    alt = sensitivity_figure(content()).alt
    assert "gradient: other 0.40 [" in alt and "default 1" not in alt


def test_faithfulness_under_other_masks():
    rows = mask_table(content(), Faithfulness([{"curves": masked(0.4)}])).rows
    assert [row[0] for row in rows] == ["mean embedding", "zero vector", "the token *"]
    assert [row[1][:4] for row in rows] == ["0.40", "0.10", "0.20"]


def test_records_are_read_and_broken_ones_named(store):
    with pytest.raises(DataError, match="sensitivity"):
        sensitivity("smoke")
    store.save("base/0/sensitivity", content())
    assert sensitivity("smoke")["n_captions"] == N
    store.save("base/0/sensitivity", {"n_captions": N})
    with pytest.raises(DataError, match="base/0/sensitivity lacks choices, masks"):
        sensitivity("smoke")

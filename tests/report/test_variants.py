"""Runs of a study: their commands, what is missing of them, and the mean of the families."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from cae_lib.cli import build_parser
from cae_lib.config import PROFILES
from cae_lib.measurements import run_label
from cae_lib.overrides import parse_overrides
from cae_lib.pages.missing import MARK
from cae_lib.report.benchmarks import Score, combined
from cae_lib.report.stored import NotMeasured
from cae_lib.report.variants import (
    commands,
    commands_text,
    describe,
    length,
    require_variants,
    seeds_of,
)
from cae_lib.studies import Variant, ablations, base_variants

SHORT = Variant("clip-ft", "reference", "", {"steps": 2}, 3)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_shell_and_the_command_line_read_back_every_variant(profile):
    for variant in (*ablations(profile), *base_variants(profile)):
        lines = commands(variant, profile, 2)
        assert len(lines) == (1 if variant.run == "base" else 2)
        for line in lines:
            parsed = build_parser().parse_args(shlex.split(line)[1:])
            assert parse_overrides(parsed.assignments) == variant.settings
            assert (parsed.name, parsed.profile, parsed.seed) == (variant.run, profile, 2)
        assert parsed.only == "benchmarks,attribution"


def test_nested_settings_are_quoted():
    (variant,) = (v for v in ablations("mini") if v.group == "layers")
    train = commands(variant, "mini")[0]
    assert train.startswith("cae train cae-gradcam --profile mini --set steps=100")
    assert train.endswith("""--set 'attribution=(("start_layer", -1),)'""")
    text = commands_text([variant], "mini").source
    assert f"# CLIP-CAE (GradCAM), layers: last\n{train}\ncae evaluate" in text


def test_settings_and_lengths_in_words():
    assert describe(Variant("cae-gradcam", "lambda", "10", {})) == "λ: 10"
    assert describe(Variant("clip-ft", "600", "", {})) == "base of 600 steps"
    assert describe(SHORT) == "reference"
    assert length("smoke") == "2 steps of 16 pairs where other pages have 3 of 16"
    assert length("paper") == "427 steps of 256 pairs where other pages have 2135 of 256"


def test_a_missing_record_is_told_with_the_commands_of_its_run(store):
    with pytest.raises(NotMeasured) as caught:
        require_variants([SHORT], "smoke")
    text = str(caught.value)
    assert "3 records of the kind `benchmarks` missing, the first is that of CLIP-FT, ref" in text
    assert "`cae train clip-ft --profile smoke --set steps=2` and `cae evaluate clip-ft" in text
    assert MARK.search(f"*{text}*").group(1) == "benchmarks"
    label = run_label("clip-ft", "smoke", steps=2)
    store.benchmarks(label, 0.5)
    with pytest.raises(NotMeasured, match="kind `attribution` missing"):
        require_variants([SHORT], "smoke")
    store.attribution(label, {"object": 0.2, "attribute": 0.1, "relation": 0.1})
    require_variants([SHORT], "smoke")


def test_seeds_are_those_that_variant_profile_and_page_have():
    assert [seeds_of(SHORT, "smoke", n) for n in (None, 1, 5)] == [3, 1, 3]
    assert seeds_of(Variant("clip-ft", "", "", {}), "smoke", 3) == 1


def test_families_count_alike_whatever_their_size():
    large = Score([np.ones((1, 90)), np.zeros((1, 30))], [0.5, 0.5],
                  [np.arange(90), np.arange(30)], 120, 130, 0.5, ("part",))
    small = Score([np.array([[1.0, 0.0, 0.0, 0.0]])], [1.0], [np.arange(4)], 4, 4, 0.25)
    both = combined({"a": large, "b": small}, {"a": 0.5, "b": 0.5}, ())
    assert both.interval().estimate == pytest.approx((0.5 + 0.25) / 2)
    assert (both.n_used, both.n_expected, both.chance) == (124, 134, 0.375)
    assert both.weights == [0.25, 0.25, 0.5] and both.absent == ("part",)

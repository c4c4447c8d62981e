"""Configurations: typed overrides, content keys, and errors that list what is known."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cae_lab.profiles import PROFILES, load_profile
from cae_lib.config import Experiment
from cae_lib.errors import ConfigError
from cae_lib.methods import PAPER_METHODS
from cae_lib.runtime import has_native_bf16, uses_bf16

PLAIN = load_profile("mini").experiment("clip-ft")


def different(a: Experiment, b: Experiment) -> set[str]:
    return {name for name in vars(a) if getattr(a, name) != getattr(b, name)}


def test_what_runs_differ_in():
    other = load_profile("mini").experiment("clip-ft", lr=2e-4)
    assert other.lr == 2e-4 and different(PLAIN, other) == {"lr"} and PLAIN.key() != other.key()
    assert different(PLAIN, load_profile("mini").experiment("cae-attention")) == {
        "name",
        "method",
        "weight",
    }


def test_a_field_that_is_added_later_changes_no_key():
    @dataclass(frozen=True)
    class Later(Experiment):
        added: int = 0

    assert Later(**vars(PLAIN)).key() == PLAIN.key() != Later(**vars(PLAIN), added=1).key()


@pytest.mark.parametrize(("name", "texts"), [("smoke", 1), ("mini", 2), ("paper", 4)])
def test_runs_with_hard_negatives_have_their_own_batch_and_the_same_lambda(name, texts):
    for method in PAPER_METHODS:
        plain, hard = (
            load_profile(name).experiment(f"cae-{method}"),
            load_profile(name).experiment(f"negclip-cae-{method}"),
        )
        assert different(plain, hard) <= {"name", "negatives", "batch_size"}
        assert 4 * hard.batch_size == texts * plain.batch_size


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("Features\t: fp asimd bf16", True),
        ("flags : sse\nbugs : bf16\n", False),
        ("", False),
    ],
)
def test_a_processor_without_bfloat16_trains_in_float32(tmp_path: Path, text: str, native: bool):
    cpuinfo = tmp_path / "cpuinfo"
    assert not has_native_bf16(cpuinfo), "not Linux"
    cpuinfo.write_text(f"processor\t: 0\n{text}")
    assert has_native_bf16(cpuinfo) is native
    assert {load_profile(name).experiment("clip-ft").precision for name in ("mini", "photo")} == {
        "auto"
    }
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cae_lib.runtime.has_native_bf16", lambda: native)
        assert uses_bf16("auto", cpu) is native and uses_bf16("auto", gpu)
    assert uses_bf16("bf16", cpu) and not uses_bf16("fp32", gpu)
    with pytest.raises(ConfigError, match="fp16"):
        uses_bf16("fp16", cpu)


@pytest.mark.parametrize(
    "override",
    [
        {"lr": "1e-4"},
        {"steps": 1.5},
        {"betas": (0.9,)},
        {"margin": float("nan")},
    ],
)
def test_override_of_the_wrong_type(override):
    with pytest.raises(ConfigError, match=f"clip-ft: {next(iter(override))} is .*expected"):
        load_profile("mini").experiment("clip-ft", **override)
    assert load_profile("mini").experiment("cae-attention", method=None).method is None, (
        "its type allows it"
    )


def test_every_row_of_every_profile_is_a_valid_configuration():
    for profile in PROFILES.values():
        for name in profile.runs:
            assert load_profile(profile.name).experiment(name).profile == profile.name


def test_runs_by_the_second_tagger_differ_from_the_paper_s_in_nothing_else():
    for row in (f"dependency-{method}" for method in PAPER_METHODS):
        plain = load_profile("photo").experiment(row.replace("dependency", "cae"))
        assert different(plain, load_profile("photo").experiment(row)) == {"name", "tagger"}

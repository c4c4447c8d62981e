"""Configurations: typed overrides, content keys, and errors that list what is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cae_lib.config import METHODS, PROFILES, Experiment, experiment, paths, profile
from cae_lib.errors import ConfigError


def test_override_changes_the_key_and_nothing_else():
    plain, other = experiment("clip-ft", "mini"), experiment("clip-ft", "mini", lr=2e-4)
    assert other.lr == 2e-4
    assert plain.key() != other.key()
    assert plain.key() == experiment("clip-ft", "mini").key()
    assert plain.steps == other.steps


def test_cae_differs_from_fine_tuning_only_in_the_attribution_loss():
    ft, cae = experiment("clip-ft", "mini"), experiment("cae-attention", "mini")
    different = {k for k in vars(ft) if getattr(ft, k) != getattr(cae, k)}
    assert different == {"name", "method", "weight"}


def test_a_field_that_is_added_later_changes_no_key():
    @dataclass(frozen=True)
    class Later(Experiment):
        added: int = 0

    config = experiment("clip-ft", "mini")
    assert Later(**vars(config)).key() == config.key()
    assert Later(**vars(config), added=1).key() != config.key()


@pytest.mark.parametrize(("name", "texts"), [("smoke", 1), ("mini", 1), ("paper", 4)])
def test_runs_with_hard_negatives_have_their_own_batch_and_the_same_lambda(name, texts):
    for method in METHODS:
        plain, hard = experiment(f"cae-{method}", name), experiment(f"negclip-cae-{method}", name)
        different = {k for k in vars(plain) if getattr(plain, k) != getattr(hard, k)}
        assert different <= {"name", "negatives", "batch_size"}
        assert 4 * hard.batch_size == texts * plain.batch_size


def test_unknown_override_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown setting 'learning_rate'.*batch_size.*lr"):
        experiment("clip-ft", "mini", learning_rate=1.0)


@pytest.mark.parametrize(
    "override",
    [{"lr": "1e-4"}, {"steps": 1.5}, {"steps": True}, {"betas": (0.9,)}, {"stop_gradient": 1}],
)
def test_override_of_the_wrong_type(override):
    with pytest.raises(ConfigError, match="is not of type"):
        experiment("clip-ft", "mini", **override)


def test_none_is_a_value_where_the_type_allows_it():
    assert experiment("cae-attention", "mini", method=None).method is None


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match="smoke, mini, photo, paper"):
        profile("tiny")
    with pytest.raises(ConfigError, match="clip-ft, cae-attention"):
        experiment("clip", "mini")


def test_every_row_of_every_profile_is_a_valid_configuration():
    for chosen in PROFILES.values():
        for name in chosen.methods:
            assert experiment(name, chosen.name).profile == chosen.name


def test_folders_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CAE_HOME", str(tmp_path))
    assert paths().records == tmp_path / "data" / "records"
    with pytest.raises(AttributeError):
        _ = paths().elsewhere

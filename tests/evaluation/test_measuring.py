"""What makes a stored measurement stale."""

from types import SimpleNamespace

import pandas as pd
import pytest

from cae_lib import keys, measuring, results
from cae_lib.errors import ConfigError


class Suite:
    """Measures a table of one number, and counts how often."""

    name, times = "retrieval", 0

    def __call__(self, encoder, profile):
        self.times += 1
        return {self.name: pd.DataFrame({"value": [self.times], "word": ["dog"]})}


@pytest.mark.parametrize("change", ["model", "data", "version", "run", "seed", "fresh elsewhere"])
def test_a_table_is_measured_again_once_what_decides_it_changes(home, change, monkeypatch):
    suite = Suite()

    def measure(run="own", seed=0, model="w", data="d", fresh=False):
        measuring.measure_suites(
            run, "smoke", seed, {suite.name: suite}, model, {suite.name: data}, lambda: None, fresh
        )

    for fresh in (False, False, True):
        measure(fresh=fresh)
    assert suite.times == 1, "nothing has changed, and this clone has measured it itself"
    if change == "version":
        monkeypatch.setattr(keys, "SUITE_VERSIONS", keys.SUITE_VERSIONS | {suite.name: 99})
    if change == "fresh elsewhere":
        for marker in (home / "data" / "cache").rglob("*.key"):
            marker.unlink()
    options = {
        "model": {"model": "x"},
        "data": {"data": "x"},
        "run": {"run": "other"},
        "seed": {"seed": 1},
        "fresh elsewhere": {"fresh": True},
    }.get(change, {})
    measure(**options)
    assert suite.times == 2
    run, seed = options.get("run", "own"), options.get("seed", 0)
    stored = results.load(suite.name, "smoke", [run])
    assert stored[stored.seed == seed]["value"].tolist() == [2]
    measure(**options | {"fresh": False})
    assert suite.times == 2


@pytest.mark.parametrize(("profile", "kept"), [("photo", False), ("smoke", True)])
def test_words_of_people_s_captions_are_not_stored(home, profile, kept):
    suite = Suite()
    measuring.measure_suites(
        "own", profile, 0, {suite.name: suite}, "w", {suite.name: "d"}, lambda: None
    )
    assert ("word" in results.load(suite.name, profile, ["own"])) == kept


def test_a_control_is_measured_by_weights_of_its_own_name(home, monkeypatch):
    asked = {}
    weights = SimpleNamespace(model="m", source="s", digest=lambda: "0" * 64)
    monkeypatch.setattr(measuring, "weights_of", lambda *_, **__: weights)
    monkeypatch.setattr(measuring, "data_digests", lambda *_: {})
    monkeypatch.setattr(
        measuring,
        "measure_suites",
        lambda run, p, s, suites, digest, *_: asked.update({run: (digest, suites)}),
    )
    for run in ("clip-ft", "clip-ft-gelu"):
        measuring.measure_run(run, "smoke")
    (digest, suites), (of_control, some) = asked["clip-ft"], asked["clip-ft-gelu"]
    assert digest == "0" * 64 != of_control
    assert set(some) == {*measuring.GELU_SUITES} < set(suites)
    measuring.measure_run("base", "smoke")
    assert set(asked["base"][1]) - set(suites) == {"sensitivity"}
    measuring.measure_run("clip-ft", "photo")
    assert set(suites) - set(asked["clip-ft"][1]) == {*measuring.CONTENT_SUITES}
    with pytest.raises(ConfigError, match="sensitivity"):
        measuring.measure_run("clip-ft", "smoke", only=["sensitivity"])

"""Which real sets a measurement needs, and what is said of those that are not here."""

from __future__ import annotations

import pytest

from cae_lib.data import needs
from cae_lib.data.allowance import allowing
from cae_lib.data.benchmarks import FOLDERS
from cae_lib.data.source_list import load_sources
from cae_lib.data.training_set import TRAINING_ROWS, TRAINING_SOURCE
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.suites import BASE_SUITES, SUITES


def test_every_measurement_and_family_has_its_sources(home):
    known = load_sources()
    for suite in {*SUITES, *BASE_SUITES}:
        assert set(needs.sources_of(suite)) <= set(known)
    for name, folder in FOLDERS.items():
        folders = {known[source].folder for source in needs.FAMILIES[name]}
        assert folders == {folder or "coco"} | (set() if folder else {"flickr30k"})
    rows = {row.file: row.n for row in known[TRAINING_SOURCE].rows}
    assert rows["train_neg_clip.tsv"] == TRAINING_ROWS
    assert needs.weights_source("ViT-B-32", "openai") == ("openai-vit-b-32",)
    assert needs.weights_source("ViT-B-32", None) == ()


def test_families_beside_the_tables_count_where_they_are(home):
    assert "cola" not in needs.sources_of("benchmarks")
    (home / "data" / "raw" / "cola").mkdir(parents=True)
    assert "cola" in needs.sources_of("benchmarks")


def test_only_named_sets_may_be_missing_and_weights_never(home):
    stock = needs.Stock.of(["winoground", "sugarcrepe", "openai-vit-b-32"])
    with allowing(["winoground", "openai-vit-b-32"]), pytest.raises(DataError) as caught:
        stock.require()
    message = str(caught.value)
    assert "winoground" not in message
    assert "cae data get coco-val2017 sugarcrepe openai-vit-b-32" in message
    assert message.endswith("--allow-missing sugarcrepe")
    with allowing(["all"]):
        lines = needs.Stock.of(["winoground"]).require()
        assert lines[0].startswith("winoground: not here; 0 of 1 files, 0 of 400 rows")
        assert needs.may_be_absent("benchmarks")
    assert not needs.may_be_incomplete("winoground") and not needs.may_be_absent("benchmarks")
    with pytest.raises(ConfigError, match="no data set or weights 'x'"), allowing(["x"]):
        pass

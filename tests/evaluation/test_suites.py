"""What is measured on one set of weights, on the small world and on folders of real sets."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cae_lib.data.similarity import FOLDER
from cae_lib.errors import DataError
from cae_lib.evaluation import blind, items, sets, suites, zero_shot
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.knowledge import KINDS, curve_point, summary
from cae_lib.evaluation.scores import PROTOCOLS, absent, weights

CACHED = (sets.benchmarks, sets.retrieval_pairs, sets.similarity_pairs, zero_shot.labelled_sets)


@pytest.fixture
def at(monkeypatch):
    """Let every profile's data lie in one folder."""

    def put(root):
        for function in CACHED:
            function.cache_clear()
        for module in (sets, suites, items, zero_shot):
            monkeypatch.setattr(module, "data_root", lambda profile: root)

    yield put
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def world_home(home, smoke_world, at):
    """A home whose raw folder is that of the smoke world."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    at(smoke_world)


@pytest.fixture
def encoder(tiny_clip):
    return Encoder(tiny_clip)


def measured(name, encoder, profile="smoke"):
    return suites.SUITES[name](encoder, profile)


def test_answers_and_items_of_the_world_fit_and_serve_all_protocols(at, smoke_world, encoder):
    at(smoke_world)
    answered = measured("benchmarks", encoder)["benchmarks"]
    found = items.items(sets.benchmarks("smoke"), None, world=True)
    names = ["family", "subset", "group", "item", "picture"]
    assert answered[names].equals(found[names])
    np.testing.assert_allclose(found.groupby(["family", "subset"]).weight.sum(), 1)
    assert {"all", "match"} == set(found[found.family == "svo_probes"].subset)
    for protocol in PROTOCOLS:
        scored = weights(found, protocol)
        np.testing.assert_allclose(scored.groupby("score").weight.sum(), 1)
    assert not any(absent(found, "family")["ARO"]) and not absent(found)["VALSE-Rel"]
    used = items.subsets("smoke")
    assert (used.n_used == used.n_expected).all() and (used.n_used > 0).all()
    assert set(used.suite) == {"benchmarks", "retrieval", "similarity", "zero_shot", "attribution",
                               "phrases", "faithfulness", "heatmaps"}
    part = used[used.suite == "benchmarks"].set_index(["family", "subset"])
    chance = found.groupby(["family", "subset"]).chance.mean()
    np.testing.assert_allclose(part.chance.sort_index(), chance.sort_index())
    assert (
        part.n_used.sort_index().tolist()
        == chance.index.map(found.groupby(["family", "subset"]).size()).tolist()
    )


def test_similarity_and_retrieval_of_the_world(at, smoke_world, encoder):
    at(smoke_world)
    found = measured("similarity", encoder)["similarity"]
    assert list(found["set"].unique()) == ["STS12", "STS14", "STS15", "STS-B", "SICK-R"]
    ranks = measured("retrieval", encoder)["retrieval"]
    sizes = ranks[ranks["set"] == "coco"].direction.value_counts().to_dict()
    assert sizes == {"image to text": 24, "text to image": 24 * 5}
    assert measured("labels", encoder) == {}


def test_the_tables_of_the_data(world_home):
    found = suites.data_tables("smoke")
    assert set(found) == {"items", "captions", "subsets", "blind", "parser"}
    names = ["shorter", "longer", "likelihood", "likelihood_per_word"]
    table = found["blind"]
    assert list(table.chooser.unique()) == names
    text = table.query("family == 'winoground' and subset == 'text' and chooser == 'likelihood'")
    assert len(text) and text.share.max() <= 1 / 4
    captions = sets.retrieval_pairs("smoke", "coco").captions
    assert found["captions"].words.tolist() == [len(caption.split()) for caption in captions]
    assert {"objects", "world_relations"} <= {*found["items"].columns}


def test_the_average_picture_answers_with_the_numbers_of_all(world_home, encoder, monkeypatch):
    monkeypatch.setattr(blind, "PICTURES", 3)
    found = measured("blind", encoder)["blind"]
    known = items.keys(items.scored(sets.benchmarks("smoke")))
    merged = found.merge(known, on=["family", "subset", "item"], suffixes=("", "_of_item"))
    assert len(merged) == len(found) and (merged.picture == merged.picture_of_item).all()
    assert "svo_probes" not in set(found.family) and "order" in set(found.family)


def test_what_the_base_knows_in_a_few_numbers(world_home, tiny_clip):
    point, final = curve_point(tiny_clip, "smoke"), summary(tiny_clip, "smoke")
    answered = measured("benchmarks", Encoder(tiny_clip), "smoke")["benchmarks"]
    means = answered.groupby(answered.family + "/" + answered.subset).correct.mean()
    for kind, names in KINDS.items():
        assert point[kind] == pytest.approx(means[list(names)].mean())
        assert final[kind]["estimate"] == pytest.approx(point[kind])
        assert final[f"attention_{kind}"]["low"] < final[f"attention_{kind}"]["high"]
    assert (final["n_pictures"], final["n_captions"]) == (24, 24 * 5)
    assert final["retrieval_i2t_r1"] == point["retrieval_i2t_r1"]


def test_a_folder_without_the_world_s_manifest_has_to_be_complete(at, smoke_world, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(smoke_world, root, symlinks=True)
    (root / "manifest.json").unlink()
    at(root)
    assert sets.is_official(root) and not sets.is_official(smoke_world)
    with pytest.raises(DataError, match="23937 expected"):
        sets.benchmarks("paper")
    with pytest.raises(DataError, match="5000 with 25010 expected"):
        sets.retrieval_pairs("paper", "coco")
    with pytest.raises(DataError, match=r"MSRpar\.txt: no such annotation file"):
        sets.similarity_pairs("paper")
    shutil.rmtree(root / FOLDER)
    sets.similarity_pairs.cache_clear()
    with pytest.raises(DataError, match="no set of STS12"):
        sets.similarity_pairs("paper")


def test_labels_are_scored_where_cola_is_there(at, tmp_path, encoder, smoke_world):
    at(tmp_path)
    assert measured("labels", encoder, "paper") == {}
    picture = next((smoke_world / "coco/val2017").glob("*.jpg"))
    (tmp_path / "cola/images").mkdir(parents=True)
    (tmp_path / "cola/data").mkdir()
    shutil.copy(picture, tmp_path / "cola/images/1.jpg")
    content = [["red cup", "blue dog"], [["/x/1.jpg", {}, [1, 0], [1, 1]]]]
    path = tmp_path / "cola/data/COLA_singleobjects_benchmark_GQA.json"
    path.write_text(json.dumps(content), "utf-8")
    found = measured("labels", encoder, "paper")["labels"]
    assert found["set"].tolist() == ["GQA", "GQA"]
    np.testing.assert_array_equal(found.precision, [1, np.nan])

"""What is measured on one set of weights, on the small world and on folders of real sets."""

from __future__ import annotations

import json
import shutil

import pytest

from cae_lib.data.similarity import FOLDER
from cae_lib.errors import DataError
from cae_lib.evaluation import suite
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.protocols import protocol_scores
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.similarity import SimilarityResult

CACHED = (suite.benchmarks, suite.retrieval_pairs, suite.similarity_pairs)


@pytest.fixture
def at(monkeypatch):
    """Let every profile's data lie in one folder."""

    def put(root):
        for function in CACHED:
            function.cache_clear()
        monkeypatch.setattr(suite, "data_root", lambda profile: root)

    yield put
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def encoder(tiny_clip):
    return Encoder(tiny_clip)


def test_choices_hold_svo_probes_own_metric_and_serve_both_protocols(at, smoke_world, encoder):
    at(smoke_world)
    records = suite.choices(encoder, "smoke")
    json.dumps(records, allow_nan=False)
    metrics = records["svo_probes/all"]["metrics"]
    assert {"match/all", "match/verb", "match_threshold"} <= set(metrics)
    assert 0 <= metrics["match/all"] <= 1
    results = [ChoiceResult.from_record(record) for record in records.values()]
    official, authors = (protocol_scores(results, name) for name in ("official", "authors"))
    assert {"aro/relation", "winoground/group", "sugarcrepe", "valse"} <= set(official)
    assert {"sugarcrepe/attribute", "vl_checklist/relation", "valse/relation"} <= set(authors)
    assert official["svo_probes"].value == metrics["match/all"]
    for score in (*official.values(), *authors.values()):
        assert score.n_used == score.n_expected > 0


def test_similarities_and_retrieval_of_the_world(at, smoke_world, encoder):
    at(smoke_world)
    records = suite.similarities(encoder, "smoke")
    assert list(records) == ["STS12", "STS14", "STS15", "STS-B", "SICK-R"]
    for record in records.values():
        assert SimilarityResult.from_record(record).n_used == record["n_expected"]
    recall = suite.retrievals(encoder, "smoke")
    assert recall["coco"]["n_used"] == recall["coco"]["n_expected"] == 24 * 5


def test_a_folder_without_the_world_s_manifest_has_to_be_complete(at, smoke_world, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(smoke_world, root, symlinks=True)
    (root / "manifest.json").unlink()
    at(root)
    assert suite.is_official(root) and not suite.is_official(smoke_world)
    with pytest.raises(DataError, match="23937 expected"):
        suite.benchmarks("paper")
    with pytest.raises(DataError, match="5000 with 25010 expected"):
        suite.retrieval_pairs("paper", "coco")
    with pytest.raises(DataError, match=r"MSRpar\.txt: no such annotation file"):
        suite.similarity_pairs("paper")
    shutil.rmtree(root / FOLDER)
    suite.similarity_pairs.cache_clear()
    with pytest.raises(DataError, match="no set of STS12"):
        suite.similarity_pairs("paper")


def test_labels_are_scored_where_cola_is_there(at, tmp_path, encoder, smoke_world):
    at(tmp_path)
    assert suite.labels(encoder, "paper") == {}
    picture = next((smoke_world / "coco/val2017").glob("*.jpg"))
    (tmp_path / "cola/images").mkdir(parents=True)
    (tmp_path / "cola/data").mkdir()
    shutil.copy(picture, tmp_path / "cola/images/1.jpg")
    content = [["red cup", "blue dog"], [["/x/1.jpg", {}, [1, 0], [1, 1]]]]
    path = tmp_path / "cola/data/COLA_singleobjects_benchmark_GQA.json"
    path.write_text(json.dumps(content), "utf-8")
    record = suite.labels(encoder, "paper")["GQA"]
    assert (record["mean_average_precision"], record["n_labels"]) == (1.0, 1)

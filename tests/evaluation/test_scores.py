"""Scores of a model worked out by hand, the files that others read, and `cae evaluate`."""

import json
import os
import re
from unittest.mock import Mock

import pandas as pd
import pytest
import yaml
from PIL import Image
from toys import forget

from cae_bench.benchmarks import load_benchmark
from cae_bench.benchmarks.base import Average, Benchmark, ImageRef, Item
from cae_bench.datasets import load_benchmarks
from cae_bench.scores import (
    SCORE_COLUMNS,
    choice_scores,
    evaluate,
    format_scores,
    items_of,
    write_scores,
)
from cae_bench.statistics import ITEM_KEY
from cae_lab import measuring, opening
from cae_lab.cli import main, split_suites_and_benchmarks
from cae_lab.opening import OtherModel
from cae_lab.profiles import load_profile
from cae_lab.store import save
from cae_lab.stored_scores import describe_dataset_sizes, stored_scores
from cae_lab.suites import SUITES
from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError, MissingDataError
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.models.external import ExternalModel


@pytest.fixture(autouse=True)
def anew() -> None:
    """Nothing that was read of another home is kept."""
    forget()
    yield
    forget()


def test_a_score_is_the_headline_of_its_subset():
    """Of three items of group a and one of group b, of five expected; groups count alike."""
    items = [
        Item(str(row), (ImageRef("x.jpg"),), ("right", "wrong"), 0, group)
        for row, group in enumerate("aaab")
    ]
    average = Average(over_groups=True)
    known = items_of([Benchmark("winoground", "text", tuple(items), 5, average)])
    given = known[[*ITEM_KEY]].assign(correct=[True, False, False, True])
    (row,) = choice_scores(given.sample(frac=1, random_state=0), known).itertuples()
    assert row.value == pytest.approx(1 / 6 + 1 / 2) and row.chance == pytest.approx(0.5)
    assert (row.n_used, row.n_expected) == (4, 5) and row.dataset == "winoground/text"


SMOKE = load_profile("smoke")

TABLE = pd.DataFrame(
    [
        ("winoground/text", "choice", "accuracy", 0.3075, 0.25, 400, 400),
        ("winoground/group", "choice", "accuracy", 0.08, 1 / 6, 399, 400),
        ("aro/relation", "choice", "accuracy", 0.6, 0.5, 10, 10),
        ("coco", "retrieval", "text to image, R@5", 0.56, float("nan"), 25_010, 25_010),
        ("coco", "retrieval", "image to text, R@5", 0.75, float("nan"), 25_010, 25_010),
    ],
    columns=SCORE_COLUMNS,
)


def test_scores_are_written_as_clip_benchmark_and_the_hub_read_them(tmp_path):
    csv, results = write_scores(TABLE, "clip", tmp_path, "openai")
    table = pd.read_csv(csv).set_index("dataset")
    assert table.loc["winoground/text", "acc"] == 0.3075
    assert set(table["model"]) == {"clip"} and set(table["pretrained"]) == {"openai"}
    assert table.loc["coco", "task"] == "zeroshot_retrieval"
    found = table.loc["coco", ["image_retrieval_recall@5", "text_retrieval_recall@5"]]
    assert found.tolist() == [0.56, 0.75], "an image is what text to image retrieves"
    (entry,) = yaml.safe_load(results.read_text())  # complete, and a data set of the hub
    assert entry["dataset"] == {"id": "facebook/winoground", "task_id": "text"}
    assert entry["value"] == 30.75
    hub = pytest.importorskip("huggingface_hub._eval_results")
    assert hub.parse_eval_result_entries([entry])[0].value == 30.75


def test_drawn_sets_are_no_results_of_the_hub(tmp_path):
    drawn = TABLE.assign(dataset="mini-" + TABLE["dataset"])
    assert [path.suffix for path in write_scores(drawn, "base", tmp_path)] == [".csv"]


def test_recall_counts_ranks_up_to_k(home, monkeypatch):
    frame = pd.DataFrame({"set": "coco", "direction": "text to image", "rank": [1, 5, 6, 11]})
    save("retrieval", SMOKE, "own", 0, frame, key="", provenance={})
    pairs = {"coco": Mock(n_used=4, n_expected=5)}
    monkeypatch.setattr("cae_bench.datasets.retrieval_sets", lambda profile: pairs)
    assert stored_scores("own", SMOKE, 0)["value"].tolist() == [0.25, 0.5, 0.75]
    pairs.clear()
    with pytest.raises(DataError, match="coco"):
        stored_scores("own", SMOKE, 0)


def test_similarity_is_the_correlation_of_ranks_over_all_parts(home, monkeypatch):
    """Of a set in order whose cosines are no line; of one in two parts, with one pair turned."""
    frame = pd.DataFrame(
        {
            "set": ["STS12"] * 4 + ["STS14"] * 4,
            "part": [*"aaaa", *"aabb"],
            "pair": [*range(4)] * 2,
            "gold": [0, 1, 2, 5, 1, 2, 3, 4],
            "score": [0.1, 0.2, 0.8, 0.81, 0.1, 0.2, 0.9, 0.8],
        }
    )
    save("similarity", SMOKE, "own", 0, frame, key="", provenance={})
    save("similarity", SMOKE, "own", 1, frame.assign(score=0.0), key="", provenance={})
    parts = [Mock(n_expected=n) for n in (4, 9)]
    for part, name in zip(parts, ("STS12", "STS14"), strict=True):
        part.name = name
    monkeypatch.setattr("cae_bench.datasets.similarity_sets", lambda profile: parts)
    found = stored_scores("own", SMOKE, 0)
    # 1 - 6 * (1 + 1) / (4 * (16 - 1)), since two ranks differ by one
    assert found["value"].tolist() == pytest.approx([1.0, 0.8])
    assert found["n_expected"].tolist() == [4, 9] and found["n_used"].tolist() == [4, 4]
    parts.pop()
    with pytest.raises(DataError, match="STS14"):
        stored_scores("own", SMOKE, 0)


def test_how_a_model_is_read_makes_its_measurement_another_one(home, monkeypatch, tiny_clip):
    """Where a tokenizer does not tell its tokens' characters, phrases are measured all the same."""
    measured = []
    monkeypatch.setattr(
        measuring,
        "_measure_suite",
        lambda model, suite, encoder, key, _: measured.append((suite.name, key)),
    )
    monkeypatch.setattr(measuring.needs, "data_digests", lambda *_: {"captions": "d"})
    monkeypatch.setattr(opening, "load_external", lambda *_: tiny_clip)
    monkeypatch.setattr(measuring, "align", Mock(side_effect=ConfigError("of other characters")))
    changes = [{}, {"weights_share": 0.5}, {"processor": "p"}]
    suites = [SUITES[name] for name in ("phrases", "attribution")]
    for external in (ExternalModel("x", **change) for change in changes):
        measuring.measure(OtherModel(external, "own", SMOKE), suites)
    assert [name for name, _ in measured] == ["phrases"] * len(changes)
    assert len({key for _, key in measured}) == len(changes)


def test_incomplete_scores_are_marked():
    lines = format_scores(TABLE).splitlines()
    (short,) = (line for line in lines if "winoground/group" in line)
    (whole,) = (line for line in lines if "winoground/text" in line)
    assert short.rstrip().endswith("*") and "399" in short and "8.0" in short
    assert not whole.rstrip().endswith("*") and "30.8" in whole


def test_scores_without_chance_are_printed_without_a_warning(recwarn):
    (_, *lines) = format_scores(TABLE[TABLE["task"] == "retrieval"]).splitlines()
    assert ["75.0" in line and "nan" not in line for line in lines] == [False, True]
    assert not recwarn.list


def test_scores_of_items_without_a_published_number_claim_no_completeness(tmp_path, monkeypatch):
    table = TABLE.iloc[:1].assign(dataset="svo_probes/all", n_used=5, n_expected=5)
    (line,) = format_scores(table).splitlines()[1:]
    assert line.split()[-2:] == ["5", "unknown"]
    monkeypatch.setattr("cae_bench.scores.is_size_unknown", lambda *_: True)
    assert [path.suffix for path in write_scores(TABLE, "clip", tmp_path)] == [".csv"]


@pytest.mark.parametrize(
    ("only", "message"),
    [([], "nothing could be measured"), (["--only", "winoground"], "cae data get winoground")],
)
def test_where_nothing_is_there_a_measurement_fails(home, capsys, only, message):
    clip, meta = load_clip("clip-mini"), CheckpointMeta("clip-mini", "quickgelu")
    path = save_checkpoint(home / "own", clip, meta)
    assert main(["evaluate", str(path), *only]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def cut(home) -> str:
    """A model of ours, and a file of SugarCrepe of which the second of two pictures broke off."""
    rows = {
        str(n): {"filename": f"{n}.jpg", "caption": "a cat", "negative_caption": "a dog"}
        for n in range(2)
    }
    pictures = [paths().raw / f"coco/val2017/{n}.jpg" for n in range(2)]
    file = paths().raw / "sugar-crepe/data/swap_obj.json"
    for path in (file, pictures[0]):
        path.parent.mkdir(parents=True)
    file.write_text(json.dumps(rows))
    for path in pictures:
        Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    pictures[1].write_bytes(pictures[1].read_bytes()[:-300])
    meta = CheckpointMeta("clip-mini", "quickgelu")
    return str(save_checkpoint(home / "own", load_clip("clip-mini"), meta))


@pytest.mark.parametrize("only", ["sugarcrepe", "benchmarks"])
def test_a_picture_that_broke_off_is_told_before_the_model_is_read_and_not_used(cut, capsys, only):
    assert main(["evaluate", cut, "--only", only]) == 0
    told = capsys.readouterr().out
    assert 0 < told.index("/1.jpg cannot be decoded (image file is") < told.index("tensors")
    (row,) = (line.split() for line in told.splitlines() if "sugarcrepe/swap_obj " in line)
    assert row[-3:] == ["1", "245", "*"]


def test_a_clip_that_is_published_without_tokenizer_is_measured(cut, home, capsys):
    """As READ-CLIP's folder: the weights and config.json of a CLIPModel, and nothing else."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
    }
    config = transformers.CLIPConfig(
        text_config=sizes | {"vocab_size": 49_408},
        projection_dim=8,
        vision_config=sizes | {"image_size": 32, "patch_size": 16},
    )
    transformers.CLIPModel(config).save_pretrained(home / "read-clip")
    words = ["evaluate", str(home / "read-clip"), "--only", "sugarcrepe"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "OpenAI's" in told and "sugarcrepe/swap_obj" in told
    assert main([*words, "--processor", str(home / "read-clip")]) == 2
    assert re.search("2 tokens|cannot read", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["sugarcrepe_pp", "sugarcrepe-pp"])
def test_names_of_families_and_sources_may_have_hyphens_or_underscores(name, home, capsys):
    assert split_suites_and_benchmarks([name]) == ([], ["sugarcrepe_pp"])
    assert split_suites_and_benchmarks(["zero-shot"]) == (["zero_shot"], [])
    with pytest.raises(MissingDataError, match="no item of sugarcrepe_pp"):
        evaluate(Mock(), name)
    assert load_benchmark(name, home, is_published=True) == load_benchmark(
        "sugarcrepe_pp", home, is_published=True
    )
    assert main(["data", "check", name]) == 1
    assert "sugarcrepe-pp: not here" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused_before_a_model_is_loaded():
    model = Mock()
    with pytest.raises(ConfigError, match="no benchmark sugarcrape. Known: aro"):
        evaluate(model, "sugarcrape")
    with pytest.raises(ConfigError, match="no benchmark sugarcrape"):
        load_benchmarks(load_profile("mini").datasets, ["sugarcrape"])
    assert not model.called


def test_without_built_scenes_the_error_names_the_recipe(home):
    with pytest.raises(DataError, match="data.recipes.synthetic_scenes.build --profile mini"):
        evaluate(Mock(), "sugarcrepe", datasets=load_profile("mini").datasets)


@pytest.mark.parametrize("number", [28, 30])
def test_a_disk_that_cannot_be_written_is_the_last_word(cut, capsys, monkeypatch, number):
    fault = OSError(number, os.strerror(number), "/disk")
    place = "os.replace" if number == 28 else "tempfile.mkstemp"
    monkeypatch.setattr(place, Mock(side_effect=fault))
    assert main(["evaluate", cut, "--only", "benchmarks"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cae: cannot") and os.strerror(number) in last


def test_why_data_are_incomplete_stands_beside_how_much_is_used(home):
    row = {"suite": "benchmarks", "family": "aro", "subset": "relation", "n_expected": 3000}
    row |= {"n_used": 1, "counts": '{"missing_images": 1234, "same_words": 2}'}
    save("subsets", SMOKE, "data", 0, pd.DataFrame([row]), key="", provenance={})
    whole, part = describe_dataset_sizes(SMOKE)
    assert "1 used of 3,000" in whole and "1,234 missing images" in part and "2 " not in part


def test_subsets_without_a_published_number_are_counted_beside_how_much_is_used(home):
    names = {
        "svo_probes": ["all", "match"],
        "vl_checklist": ["Relation/hake_action", "Relation/swig_action"],
    }
    rows = [
        {"suite": "benchmarks", "family": family, "subset": subset, "counts": "{}"}
        for family, subsets in names.items()
        for subset in subsets
    ]
    table = pd.DataFrame(rows).assign(n_used=5, n_expected=5)
    save("subsets", load_profile("paper"), "data", 0, table, key="", provenance={})
    svo, checklist = describe_dataset_sizes(load_profile("paper"))
    assert svo.endswith("svo_probes: 5 used; number published unknown of 1 of 1 subsets")
    assert checklist.endswith("10 used of 10 expected; number published unknown of 1 of 2 subsets")


def test_a_file_takes_no_name_of_a_run(home, capsys):
    meta = CheckpointMeta("clip-mini", "quickgelu")
    path = save_checkpoint(home / "base", load_clip("clip-mini"), meta)
    for more in ([], ["--only", "retrieval"]):
        assert main(["evaluate", str(path), *more]) == 2
        assert "base is a run of the profile paper: rename the file" in capsys.readouterr().err


def test_what_to_measure_is_named_by_suite_or_by_benchmark(tmp_path):
    assert split_suites_and_benchmarks(["retrieval", "benchmarks"]) == (
        ["retrieval", "benchmarks"],
        [],
    )
    assert split_suites_and_benchmarks(["winoground", "aro"]) == ([], ["winoground", "aro"])
    for wrong, named in ((["weather", "aro"], "unknown: weather"), (["retrieval", "aro"], "mixed")):
        with pytest.raises(ConfigError, match=named):
            split_suites_and_benchmarks(wrong)

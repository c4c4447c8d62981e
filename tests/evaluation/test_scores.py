"""Scores of a model worked out by hand, the files that others read, and `cae evaluate`."""

from unittest.mock import Mock

import pandas as pd
import pytest
import yaml
from toys import forget

from cae_bench.benchmarks import load_benchmark
from cae_bench.scores import (
    SCORE_COLUMNS,
    evaluate,
    format_scores,
    write_scores,
)
from cae_lab import measuring, opening
from cae_lab.cli import main, split_suites_and_benchmarks
from cae_lab.opening import OtherModel
from cae_lab.profiles import load_profile
from cae_lab.store import save
from cae_lab.stored_scores import describe_dataset_sizes, describe_family_means, stored_scores
from cae_lab.suites import SUITES
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
    values = table.loc["coco", ["image_retrieval_recall@5", "text_retrieval_recall@5"]]
    assert values.tolist() == [0.56, 0.75], "an image is what text to image retrieves"
    (entry,) = yaml.safe_load(results.read_text())  # complete, and a data set of the hub
    assert entry["dataset"] == {"id": "facebook/winoground", "task_id": "text"}
    assert entry["value"] == 30.75
    hub = pytest.importorskip("huggingface_hub._eval_results")
    assert hub.parse_eval_result_entries([entry])[0].value == 30.75


def test_the_mean_of_families_counts_each_once(home, monkeypatch):
    """Of Winoground 1 of 4 items is right, of SVO-Probes 3 of 4 and 4 of 4 in seed 1."""
    columns = {"family": "winoground", "subset": "group", "item": range(4)}
    frames = [pd.DataFrame(columns), pd.DataFrame(columns | {"family": "svo_probes"})]
    frames[1]["subset"] = "all"
    items = pd.concat(frames).assign(group="", weight=0.25, stratum="", n_expected=4, chance=0.5)
    monkeypatch.setattr("cae_lab.stored_scores.items_of", lambda benchmarks: items)
    monkeypatch.setattr("cae_bench.datasets.load_benchmarks", lambda datasets: [])
    assert describe_family_means("own", SMOKE, 0) == ""
    for seed, right in enumerate(([1, 0, 0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 1, 1, 1])):
        answers = items[["family", "subset", "item"]].assign(correct=pd.array(right, "bool"))
        save("benchmarks", SMOKE, "own", seed, answers, key="", provenance={})
    line = "Mean of the paper's families, 2 of 7: {} % (SVO-Probes {}, Winoground 25.0)"
    assert describe_family_means("own", SMOKE, 0) == line.format("50.0", "75.0")
    assert describe_family_means("own", SMOKE, 1) == line.format("62.5", "100.0")
    assert describe_family_means("own", SMOKE, 1, ["retrieval"]) == ""


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
    columns = {"set": ["STS12"] * 4 + ["STS14"] * 4, "part": [*"aaaaaabb"], "pair": [*range(4)] * 2}
    columns |= {
        "gold": [0, 1, 2, 5, 1, 2, 3, 4],
        "score": [0.1, 0.2, 0.8, 0.81, 0.1, 0.2, 0.9, 0.8],
    }
    for seed, frame in enumerate((pd.DataFrame(columns), pd.DataFrame(columns | {"score": 0.0}))):
        save("similarity", SMOKE, "own", seed, frame, key="", provenance={})
    parts = [Mock(n_expected=n) for n in (4, 9)]
    for part, name in zip(parts, ("STS12", "STS14"), strict=True):
        part.name = name
    monkeypatch.setattr("cae_bench.datasets.similarity_sets", lambda profile: parts)
    scores = stored_scores("own", SMOKE, 0)
    # 1 - 6 * (1 + 1) / (4 * (16 - 1)), since two ranks differ by one
    assert scores["value"].tolist() == pytest.approx([1.0, 0.8])
    assert scores["n_expected"].tolist() == [4, 9] and scores["n_used"].tolist() == [4, 4]
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
    monkeypatch.setattr(measuring.required_data, "data_digests", lambda *_: {"captions": "d"})
    monkeypatch.setattr(opening, "load_external", lambda *_: tiny_clip)
    monkeypatch.setattr(measuring, "align", Mock(side_effect=ConfigError("of other characters")))
    changes = [{}, {"weights_share": 0.5}, {"processor": "p"}]
    suites = [SUITES[name] for name in ("phrases", "attribution")]
    for external in (ExternalModel("x", **change) for change in changes):
        measuring.measure(OtherModel(external, "own", SMOKE), suites)
    assert [name for name, _ in measured] == ["phrases"] * len(changes)
    assert len({key for _, key in measured}) == len(changes)


def test_printed_scores_mark_what_is_incomplete_or_of_unknown_size(recwarn):
    lines = format_scores(TABLE).splitlines()
    (short,) = (line for line in lines if "winoground/group" in line)
    (whole,) = (line for line in lines if "winoground/text" in line)
    assert short.rstrip().endswith("*") and "399" in short and "8.0" in short
    assert not whole.rstrip().endswith("*") and "30.8" in whole
    assert any("75.0" in line for line in lines) and not any("nan" in line for line in lines)
    unknown = TABLE.iloc[:1].assign(dataset="svo_probes/all", n_used=5, n_expected=5)
    assert format_scores(unknown).split()[-2:] == ["5", "unknown"]
    assert not recwarn.list


def test_only_complete_scores_of_published_sets_are_results_of_the_hub(tmp_path, monkeypatch):
    drawn = TABLE.assign(dataset="mini-" + TABLE["dataset"])
    assert [path.suffix for path in write_scores(drawn, "base", tmp_path)] == [".csv"]
    monkeypatch.setattr("cae_bench.scores.is_size_unknown", lambda *_: True)
    assert [path.suffix for path in write_scores(TABLE, "clip", tmp_path)] == [".csv"]


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


def test_data_that_are_not_there_are_refused_before_a_model_is_loaded(home):
    model = Mock()
    with pytest.raises(ConfigError, match="no benchmark sugarcrape. Known: aro"):
        evaluate(model, "sugarcrape")
    with pytest.raises(DataError, match="data.recipes.synthetic_scenes.build --profile mini"):
        evaluate(model, "sugarcrepe", datasets=load_profile("mini").datasets)
    assert not model.called


def test_why_data_are_incomplete_or_of_unknown_size_stands_beside_how_much_is_used(home):
    def described(profile, **columns):
        table = pd.DataFrame({"suite": "benchmarks", "counts": "{}", "n_used": 5} | columns)
        save("subsets", profile, "data", 0, table, key="", provenance={})
        return describe_dataset_sizes(profile)

    counts = ['{"missing_images": 1234, "same_words": 2}']
    whole, part = described(
        SMOKE, family=["aro"], subset="relation", n_used=1, n_expected=3000, counts=counts
    )
    assert "1 used of 3,000" in whole and "1,234 missing images" in part and "2 " not in part
    subsets = ["all", "match", "Relation/hake_action", "Relation/swig_action"]
    families = ["svo_probes"] * 2 + ["vl_checklist"] * 2
    svo, checklist = described(load_profile("paper"), family=families, subset=subsets, n_expected=5)
    assert svo.endswith("svo_probes: 5 used; number published unknown of 1 of 1 subsets")
    assert checklist.endswith("10 used of 10 expected; number published unknown of 1 of 2 subsets")


def test_a_file_takes_no_name_of_a_run(home, capsys):
    meta = CheckpointMeta("clip-mini", "quickgelu")
    path = save_checkpoint(home / "base", load_clip("clip-mini"), meta)
    for more in ([], ["--only", "retrieval"]):
        assert main(["evaluate", str(path), *more]) == 2
        assert "base is a run of the profile paper: rename the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ViT-B-32:laion2b.e16", "ViT-B-32-laion2b.e16"),
        ("hf-hub:me/clip-1.5", "hf-hub-me-clip-1.5"),
        ("own.v2.pt", "own.v2"),
    ],
)
def test_tables_call_a_file_by_its_stem_and_any_other_model_by_all_of_its_name(
    name, found, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.v2.pt").touch()
    assert opening.find_model(name, SMOKE).name == found


def test_only_names_suites_or_benchmarks(tmp_path):
    assert split_suites_and_benchmarks(["retrieval", "benchmarks"]) == (
        ["retrieval", "benchmarks"],
        [],
    )
    assert split_suites_and_benchmarks(["winoground", "aro"]) == ([], ["winoground", "aro"])
    for wrong, named in ((["weather", "aro"], "unknown: weather"), (["retrieval", "aro"], "mixed")):
        with pytest.raises(ConfigError, match=named):
            split_suites_and_benchmarks(wrong)

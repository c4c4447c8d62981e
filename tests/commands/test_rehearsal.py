"""The profile `rehearsal` from weights to tables, on a few drawn scenes laid out as the real sets.

The model is a ViT-B/32 of two layers with random weights, put where open_clip keeps OpenAI's.
"""

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import rehearsal
import torch
from safetensors.torch import save_file
from toys import TINY, forget

from cae_bench import datasets
from cae_bench.averages import score_weights
from cae_bench.statistics import mean_ci
from cae_lab import results, runs, store
from cae_lab.cli import Assignment, main
from cae_lab.profiles import load_profile, use_profile_home
from cae_lab.required_data import data_digests
from cae_lab.suites import SUITES
from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.models.weights import Weights
from data.recipes.synthetic_scenes.build import build_world

REHEARSAL = ["--profile", "rehearsal"]
RUN = "cae-attention"
KINDS = ("benchmarks", "retrieval", "similarity", "attribution")

RUN_SUITES = [name for name, suite in SUITES.items() if suite.of]


@contextlib.contextmanager
def at_home(home: Path) -> Iterator[None]:
    """A home of the tests' own, a hub's cache in it that nothing is added to, and a ViT-B/32 of two
    layers."""
    config = open_clip.get_model_config("ViT-B-32")
    config["text_cfg"]["layers"] = config["vision_cfg"]["layers"] = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)
        patch.setenv("CAE_HOME", str(home))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        forget()
        yield
        forget()


def lay_out(home: Path) -> dict[str, torch.Tensor]:
    """A tiny world's folders as those of the real sets, which no manifest counts, and random
    weights of a ViT-B/32, returned, as open_clip's download of the tag `openai`."""
    build_world(TINY, home / "world")
    for manifest in (home / "world").rglob("manifest.json"):
        manifest.unlink()
    (home / "data").mkdir()
    (home / "world").rename(home / "data" / "raw")
    folder = home / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
    for place in (folder / "refs", folder / "snapshots" / "0123"):
        place.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    weights = load_clip("ViT-B-32", activation="quickgelu", seed=7).model.state_dict()
    half = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(half, folder / "snapshots" / "0123" / "open_clip_model.safetensors")
    return half


def command(*words: str) -> tuple[int, str]:
    """Exit code and all that a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = main(list(words))
    return code, out.getvalue()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, torch.Tensor]]:
    """The weights to start from, in a home with all data."""
    home = tmp_path_factory.mktemp("paper")
    with at_home(home):
        yield lay_out(home)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def outputs(start: dict[str, torch.Tensor]) -> dict[str, str]:
    """What the commands print, after the whole profile ran."""
    options = {"evaluate data": [], "evaluate base": ["--only", ",".join(RUN_SUITES)]}
    options |= {f"train {RUN}": [], f"evaluate {RUN}": ["--only", ",".join(KINDS)]}
    texts = {}
    for words, more in options.items():
        code, texts[words] = command(*words.split(), *REHEARSAL, *more)
        assert code == 0, texts[words]
    return texts


def test_every_measurement_tells_how_much_it_used(outputs):
    assert re.search(r"aro/relation +accuracy .* 3 +23,937 +\*\n", outputs["evaluate base"])
    for line in (
        "3 used of 23,937 expected\n",
        "Left out: zero_shot. ",
        "benchmarks, aro: 6 used of 52,685 expected\n",
        "Left out of crepe_systematicity: ",
        "benchmarks, sugarcrepe: 14 used of 7,511 expected\n",
        "similarity, STS-B: 6 used of 1,379 expected\n",
        "incomplete: benchmarks, vl_checklist/Relation/vg/spatial, 1 used of 30,650 expected\n",
    ):
        assert line in outputs["evaluate data"]
    items = results.load("items", "rehearsal", [results.DATA_RUN])
    asked = items[items["family"].isin(["aro", "sugarcrepe"]) & (items["bindings"] > 0)]
    assert (asked["seen"] <= asked["bindings"]).all() and asked["seen"].any(), "in training"
    profile = load_profile("rehearsal")
    stored = {
        name for name in store.table_names(profile) if ("base", 0) in store.index_of(name, profile)
    }
    assert stored == set(RUN_SUITES) - {"zero_shot", "heatmaps"}


def test_the_base_is_the_tag_runs_start_from_it_and_scores_come_of_all(outputs, start):
    base = Weights("openai", "ViT-B-32", "quickgelu")
    rows = results.index_of("retrieval", "rehearsal")["base", 0]
    assert rows.provenance["model"] == base.digest()[:12]
    read = base.load().model.state_dict()
    assert torch.equal(read["text_projection"], start["text_projection"].float())
    meta = read_meta(load_profile("rehearsal").run(RUN).path)
    assert (meta.step, meta.activation, meta.model) == (2, "quickgelu", "ViT-B-32")
    assert meta.extra["started_from"] == "openai"
    assert "2 steps of 4 on 12 rows" in outputs[f"train {RUN}"]
    names, families = ["base", RUN], "family in ['aro', 'sugarcrepe']"
    items = results.load("items", "rehearsal", [results.DATA_RUN]).query(families)
    scores = mean_ci(results.load("benchmarks", "rehearsal", names), weights=score_weights(items))
    assert set(scores["run"]) == set(names) and scores["estimate"].between(0, 1).all()


def test_training_is_refused_without_all_data_and_not_repeated(outputs):
    code, text = command("train", "negclip", "--profile", "paper")
    assert code == 2 and "Traceback" not in text
    assert "train_neg_clip.tsv: 12 rows, 109468 expected" in text and "cae data get" in text
    assert not load_profile("paper").run("negclip").path.is_file()
    code, text = command("train", RUN, *REHEARSAL)
    assert code == 0 and "Training" not in text


def test_a_lost_picture_makes_other_data_of_the_suites_that_show_it(outputs):
    def digests() -> dict[str, str]:
        forget()
        return data_digests(load_profile("paper"), ["retrieval", "similarity", "captions"])

    before = digests()
    (picture, *_) = (paths().raw / "flickr30k" / "flickr30k-images").iterdir()
    lost = picture.rename(picture.with_suffix(".gone"))
    after = digests()
    assert datasets.retrieval_pairs(load_profile("paper").datasets, "flickr30k").n_used == 2
    lost.rename(picture)
    assert {name for name in before if before[name] != after[name]} == {"retrieval"}
    assert digests() == before


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "train clip-ft --profile paper",
            (
                "openai-vit-b-32: not here; 0 of 1 files",
                "cae data get openai-vit-b-32",
            ),
        ),
        (
            "evaluate base --profile paper --only retrieval",
            ("retrieval: its data are not here", "cae data get coco-"),
        ),
        (
            "train clip-ft --profile paper --set weights=none",
            ("cae data get coco-train2014 coco-",),
        ),
        ("evaluate no-model", ("no model 'no-model': expected MODEL:TAG of open_clip",)),
        ("evaluate gone.pt --model ViT-B-32 --activation gelu", ("no checkpoint at gone.pt",)),
    ],
)
def test_without_data_each_command_says_what_to_do(tmp_path, words, parts):
    with at_home(tmp_path):
        code, text = command(*words.split())
    assert code == 2 and "Traceback" not in text
    assert all(part in text for part in parts), text


@pytest.fixture(scope="module")
def released(outputs: dict[str, str]) -> Path:
    """The file of a released model, which is measured by its name."""
    state = load_clip("ViT-B-32", activation="quickgelu", seed=8).model.state_dict()
    path = paths().raw / "weights/clip-cae/CLIP-CAE-AB.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    for name in ("released-clip", "released-clip-cae-attention"):
        code, text = command("evaluate", name, *REHEARSAL, "--only", "benchmarks")
        assert code == 0, text
    return path


def test_a_released_model_is_measured_as_a_run(released):
    names = ["base", "released-clip", "released-clip-cae-attention"]
    wide = results.load("benchmarks", "rehearsal", names).pivot_table(
        "correct", ["family", "subset", "item"], "run", observed=True
    )
    assert (wide["base"] == wide["released-clip"]).all(), "the tag is the base"
    assert (wide["base"] != wide["released-clip-cae-attention"]).any()
    stored = results.index_of("benchmarks", "rehearsal")["released-clip-cae-attention", 0]
    command("evaluate", "released-clip-cae-attention", *REHEARSAL, "--only", "benchmarks")
    assert results.index_of("benchmarks", "rehearsal")["released-clip-cae-attention", 0] == stored


def test_a_released_model_is_neither_trained_nor_taken_for_another(released):
    code, text = command("train", "released-clip", *REHEARSAL)
    assert code == 2 and "cae evaluate released-clip" in text
    code, text = command("evaluate", "released-negclip", *REHEARSAL)
    assert code == 2 and "cae data get negclip-weights" in text


def test_one_benchmark_of_any_model_is_printed_and_written(released, tmp_path):
    before = sorted(paths().records.rglob("*.parquet"))
    code, text = command(
        "evaluate",
        str(released),
        "--model",
        "ViT-B-32",
        "--activation",
        "quickgelu",
        "--only",
        "winoground,sugarcrepe",
        "-o",
        str(tmp_path),
    )
    assert code == 0 and sorted(paths().records.rglob("*.parquet")) == before
    table = pd.read_csv(tmp_path / "CLIP-CAE-AB.csv").set_index("dataset")
    assert {name.partition("/")[0] for name in table.index} == {"winoground", "sugarcrepe"}
    answers = results.load("benchmarks", "rehearsal", ["released-clip-cae-attention"])
    accuracy = answers.groupby(["family", "subset"], observed=True)["correct"].mean()
    for key, row in table.iterrows():
        assert row["acc"] == pytest.approx(accuracy[tuple(key.split("/", 1))])
        assert f"{100 * row['acc']:.1f}" in text and row["n_used"] < row["n_expected"]
    assert not list(tmp_path.glob("*.yaml")), "incomplete sets are no results of the hub's"


def test_a_rehearsal_lays_everything_out_and_real_files_go_over_it(tmp_path: Path, monkeypatch):
    real = tmp_path / "real"
    (real / "sugar-crepe" / "data").mkdir(parents=True)
    (real / "sugar-crepe" / "data" / "swap_att.json").write_text("{}")
    (real / "coco" / "more").mkdir(parents=True)
    monkeypatch.setattr(rehearsal, "SETS", TINY)
    with at_home(tmp_path / "home"):
        use_profile_home(load_profile("rehearsal"))
        use_profile_home(load_profile("rehearsal"))  # again, from within
        assert paths().root == (tmp_path / "home" / "build" / "rehearsal").resolve()
        rehearsal.lay_out(load_profile("rehearsal"), real)
        config = load_profile("rehearsal").experiment("clip-ft")
        assert isinstance(runs.initial_weights(config), Path), "the archive"
        sets_here = paths().raw
        assert (sets_here / "sugar-crepe/data/swap_att.json").read_text() == "{}"
        assert (sets_here / "sugar-crepe/data/swap_obj.json").read_text() != "{}"
        assert (sets_here / "coco/more").resolve() == real / "coco/more"
        assert not list(sets_here.rglob("manifest.json"))
        rehearsal.lay_out(load_profile("rehearsal"), real)  # again, over links
        with pytest.raises(DataError):
            rehearsal.lay_out(load_profile("rehearsal"), tmp_path / "gone")


def test_a_rehearsal_may_train_a_small_model_in_place_of_the_papers(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rehearsal, "SETS", TINY)
    with at_home(tmp_path):
        rehearsal.lay_out(load_profile("rehearsal-mini"))
        clip = load_profile("rehearsal-mini").run("base").open()
        assert (clip.name, clip.activation) == ("clip-mini", "quickgelu"), "as OpenAI's file"


def test_settings_on_the_command_line(home):
    for text, value in {
        "steps=2": 2,
        "weights=none": None,
        "betas=(0.9, 0.99)": (0.9, 0.99),
        "negatives=true": True,
        "lr=5e-7": 5e-7,
        "scope = caption": "caption",
        "weights=x=y": "x=y",
        "margin=1": 1.0,
    }.items():
        _, converted = Assignment().convert(text, None, None)
        assert converted == value and type(converted) is type(value)
    assert load_profile("paper").run("clip-ft", weights=None).start.source is None
    for wrong in ("steps=two", "seed=1", "nothing=1", "steps=1.5", "lr=true"):
        code, text = command("train", "clip-ft", "--profile", "paper", "--set", wrong)
        assert code == 2 and text.startswith("cae: ") and wrong.partition("=")[0] in text
    assert command("train", "clip-ft", "--set", "steps")[0] == 2

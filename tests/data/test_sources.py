"""`sources.yml`: well-formed, true to what the loaders read, and what is counted by it."""

import json
import os
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
import samples

from book.studies import ALL_SUITES
from cae_bench import missing, similarity
from cae_bench.benchmarks import BENCHMARK_FAMILIES, FOLDER_OF_FAMILY, is_rescored, load_benchmark
from cae_bench.completeness import source_report
from cae_bench.fetch import fetch_source
from cae_bench.sources import (
    ExpectedRows,
    ReferencedImages,
    Source,
    expand_braces,
    fetch_command,
    load_sources,
)
from cae_lab import required_data
from cae_lab.profiles import PROFILES, load_profile
from cae_lab.required_data import check_real_data
from cae_lab.runs import TRAINING_SOURCES, initial_weights
from cae_lab.suites import SUITES
from cae_lab.training_set import N_TRAINING_ROWS, training_pairs
from cae_lib.data import captions
from cae_lib.errors import DataError, MissingDataError

SOURCES = load_sources()
each_source = pytest.mark.parametrize("entry", SOURCES.values(), ids=list(SOURCES))


def counts(name: str) -> dict[str, int]:
    """Rows by the file's path without `data/` and ending, where they are known."""
    return {re.sub(r"^data/|\.\w+$", "", row.file): row.n for row in SOURCES[name].rows if row.n}


def file_names(name: str) -> set[str]:
    return {path for row in SOURCES[name].rows for path in expand_braces(row.file)}


@each_source
def test_entry_of_the_sources_is_well_formed(entry: Source):
    if not (entry.homepage or entry.files):
        assert entry.folder in FOLDER_OF_FAMILY.values(), "only a set of one's own has no source"
        return
    assert entry.homepage.startswith("https://") and entry.licence and entry.terms and entry.files
    assert set(entry.needs) <= set(SOURCES) and ".." not in entry.folder
    for item in entry.files:
        assert (
            item.url is None
            or re.match(r"https://[\w.-]+/\S+$", item.url)
            or (item.name == "visual7w_images.zip")
        ), "no https is known of one alone"
        if item.url and re.match(r"https://(raw\.githubusercontent|github)\.com", item.url):
            assert "/releases/download/" in item.url or re.search(r"/[0-9a-f]{40}\b", item.url)
            assert item.checksum or "/archive/" in item.url or entry.kind == "weights"
        assert item.hub is None or re.match(r"(datasets/)?[\w.-]+/[\w.-]+$", item.hub)
        assert item.drive is None or re.match(r"[\w-]{33}$", item.drive)
        assert item.to or item.unpack or item.how or item.path
        assert not any(place.startswith("/") or ".." in place for place in (item.to, item.unpack))
    places = [entry.local_path(item) for item in entry.files if not item.how]
    assert len(set(places)) == len(places), "two items would overwrite one another"
    plain = [
        i for i in entry.files if not (i.unpack or i.open_clip or i.how or i.hub and not i.path)
    ]
    read = {file for family in BENCHMARK_FAMILIES.values() for file in family.files}
    for name in {item.to or item.path for item in plain} - file_names(entry.name):
        place = f"{entry.folder}/{name}"
        assert any(fnmatch(place, pattern) for pattern in read), "what is got is checked"
    folders = {source.folder for source in SOURCES.values()}
    folders |= {f"{s.folder}/{item.unpack}" for s in SOURCES.values() for item in s.files}
    for name, shown in entry.links.items():
        assert os.path.normpath(f"{entry.folder}/{shown}") in folders
        assert not os.path.normpath(f"{entry.folder}/{name}").startswith("..")


def test_counts_and_files_of_sources_are_the_loaders():
    assert counts(TRAINING_SOURCES[0])["train_neg_clip"] == N_TRAINING_ROWS
    assert sum(counts("senteval").values()) == sum(similarity.OFFICIAL_PAIR_COUNTS.values())
    for name, key in zip(captions.RETRIEVAL_SETS, required_data.READS["retrieval"], strict=True):
        file = captions.RETRIEVAL_SETS[name].caption_list.removesuffix(".json")
        assert counts(key) == {file: {"coco": 5000, "flickr30k": 1000}[name]}
    pairs = {
        f"STS/{year}-en-test/STS.{kind}.{part}.txt"
        for year, parts in similarity.STS_PARTS.items()
        for part in parts
        for kind in ("input", "gs")
    }
    tests = {files["test"] for files in similarity.SPLIT_FILES.values()}
    assert file_names("senteval") == pairs | tests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour: red", "one: .*unexpected keyword argument 'colour'"),
        ("files: [{to: x}]", "an item has one of url, drive"),
        ("files: [{url: 'http://a/b', checksum: abc}]", "'abc' is not like sha256"),
        ("files: [{hub: a/b, revision: v1, to: x}]", "revision 'v1' of a/b"),
        ("rows: [{n: 3}]", "missing 1 required positional argument: 'file'"),
    ],
)
def test_malformed_entry_of_the_sources_is_named(tmp_path: Path, change: str, message: str):
    fields = dict.fromkeys(("title", "homepage", "licence", "terms", "folder"), "x")
    key, value = change.split(": ", 1)
    entry = fields | {"kind": "weights", "files": "[]"} | {key: value}
    path = tmp_path / "sources.yml"
    path.write_text("one:\n" + "".join(f"  {k}: {v}\n" for k, v in entry.items()))
    with pytest.raises(DataError, match=message):
        load_sources(path)


def test_fetch_command_names_what_a_needed_source_needs():
    assert fetch_command(["vl-checklist"]).split()[3:] == [
        "visual-genome",
        "swig",
        "coco-train2014",
        "coco-val2014",
        "hake",
        "vl-checklist",
    ]


def test_measurements_and_families_have_their_sources(home):
    for suite in ALL_SUITES.values():
        assert set(required_data.sources_of(suite.reads)) <= set(SOURCES)
    for name, folder in FOLDER_OF_FAMILY.items():
        folders = {SOURCES[key].folder for key in required_data.SOURCES_OF_FAMILY[name]}
        assert folders == {folder or "coco"} | (set() if folder else {"flickr30k"})
    assert "cola" not in required_data.sources_of("benchmarks"), (
        "families beside the tables are optional"
    )
    (home / "data" / "raw" / "cola").mkdir(parents=True)
    assert "cola" in required_data.sources_of("benchmarks")


def test_released_models_are_runs_without_training_of_weights_that_can_be_fetched():
    """Each is read with the activation that it was trained with, and some with GELU, too."""
    from open_clip.pretrained import get_pretrained_cfg

    runs = {name: load_profile("paper").experiment(name) for name in PROFILES["paper"].runs}
    released = {name: run for name, run in runs.items() if not run.steps}
    assert released.keys() == {name for name in runs if name.startswith("released-")}
    measured = set()
    for name, run in released.items():
        gelu = name.endswith("-gelu") or name == "released-cs-clip"
        assert run.activation == ("gelu" if gelu else "quickgelu")
        sources = missing.sources_of_weights(run.model, initial_weights(run))
        measured.update(sources)
        if str(run.weights).endswith((".pt", ".pth")):
            place = initial_weights(run).relative_to(SOURCES[sources[0]].root)
            assert str(place) in file_names(sources[0])
    assert measured == {name for name, entry in SOURCES.items() if entry.kind == "weights"}
    assert missing.sources_of_weights("ViT-B-32", None) == ()
    (item,) = SOURCES["openai-vit-b-32"].files
    assert get_pretrained_cfg(*item.open_clip)["hf_hub"] == f"{item.hub}/"


@pytest.fixture
def world_as_raw(home: Path, smoke_world: Path) -> Path:
    """A project whose `data/raw` is a small world, laid out as the real sets are."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world, target_is_directory=True)
    return smoke_world


@pytest.mark.parametrize("family", ["aro", "winoground", "vl_checklist", "valse", "crepe"])
def test_items_of_a_source_are_counted_by_their_readers(world_as_raw: Path, family: str):
    (name,) = required_data.SOURCES_OF_FAMILY[family]
    items, images = source_report(SOURCES[name]).tallies[1:]
    parts = load_benchmark(family, world_as_raw)
    n_used = sum(part.n_used for part in parts if not is_rescored(family, part.subset))
    assert items.what == "items" and items.n_expected > n_used > 0
    assert items.n_present + items.n_unverified == n_used
    assert images.n_present == images.n_expected > 0


def test_missing_and_unreadable_files_of_a_source_are_named(toy: Source):
    fetch_source(toy)
    rows = toy.root / "data/rows.json"
    many = [{"image": f"{i}.jpg"} for i in range(1200)]
    rows.write_text(json.dumps(many), encoding="utf-8-sig")
    assert source_report(toy).lines() == [
        "toy: incomplete; 1 of 1 files, 1,200 of 2 rows, 0 of 1,200 images",
        "  images missing: toy/images/0.jpg, toy/images/1.jpg, toy/images/2.jpg and 1,197 more",
    ]
    rows.write_text(json.dumps([{"image": "/elsewhere/0.jpg"}]))
    absolute = replace(toy, images=(ReferencedImages("data/rows.json", ("image",), ("{}",)),))
    assert source_report(absolute).lines()[-1] == "  images missing: /elsewhere/0.jpg"
    rows.write_text("[")
    for source in (toy, replace(toy, rows=(ExpectedRows("data/rows.json"),))):
        assert source_report(source).state == "incomplete"
    assert "rows.json, top level: not valid JSON" in source_report(toy).lines()[-1]


def test_published_training_captions_are_read_whole_or_not_at_all(put, home):
    tsv, header = "data/raw/coco/train_neg_clip.tsv", "title\tfilepath\tneg_caption\tneg_image\n"
    row = "a dog\tcoco/{}.png\t[]\t[]\n"
    put({"data/raw/coco/a.png": None})
    for text, message in (
        ("", "train_neg_clip.tsv: no such .* cae data get coco-"),
        (header + row.format("a"), "1 rows, 109468 expected.* cae data get coco-"),
        (header + row.format("b"), r"tsv, row 0: its image .*b\.png is missing"),
    ):
        if text:
            put({tsv: text})
        with pytest.raises(MissingDataError, match=message):
            training_pairs(load_profile("paper"))
    put({tsv: header + row.format("a")})
    assert training_pairs(load_profile("rehearsal")).n_used == 1, "a rehearsal takes what there is"


def test_weights_have_to_be_here_and_benchmarks_may_be_missing(home, capsys):
    with pytest.raises(DataError, match="(?s)openai-vit-b-32: not here.*get openai-vit-b-32$"):
        missing.require_weights("ViT-B-32", "openai")
    missing.require_weights("ViT-B-32", None)
    lines = missing.describe_missing_data(missing.source_reports(["winoground", "sugarcrepe"]))
    assert lines[0].startswith("winoground: not here; 0 of 1 files, 0 of 400 items")
    assert lines[-1].endswith("cae data get winoground coco-val2017 sugarcrepe")
    with pytest.raises(MissingDataError, match="retrieval: .* cae data get coco-.* flickr30k"):
        required_data.require_some_data(load_profile("paper"), [SUITES["retrieval"]])
    required_data.require_some_data(load_profile("mini"), [SUITES["retrieval"]])
    with pytest.raises(DataError, match="(?s)openai-vit-b-32: not.*negclip-captions: not here"):
        check_real_data(load_profile("paper"))
    assert "winoground: not here" in capsys.readouterr().out
    for built_here in ("rehearsal", "mini"):
        check_real_data(load_profile(built_here))


def test_rows_and_images_are_counted_in_each_layout(make_source):
    entry = make_source(
        rows=(
            ExpectedRows("a.csv", 2),
            ExpectedRows("b.tsv", 1),
            ExpectedRows("c.jsonl", 2),
            ExpectedRows("d.txt", 2),
            ExpectedRows("e.csv", 3, lines=True, skip=1),
            ExpectedRows("f.json", 2),
            ExpectedRows("pictures/*.jpg", 3),
            ExpectedRows("maybe.txt"),
        ),
        images=(
            ReferencedImages("a.csv", ("id",), ("p/{}.jpg", "q/{}.jpg", "p/{}.png", "q/{}.png")),
            *[ReferencedImages("d.txt", (0,), ("p/{}.gif",))] * 2,  # which count once
            ReferencedImages("f.json", ("x",), ("p/{}",)),
            ReferencedImages("g.json", ("0",), ("p/{:0>4}.jpg",)),
            ReferencedImages("h.json", (0, "1.a"), ("p/{}",), drop="data/"),
        ),
    )
    texts = {
        "a.csv": 'id,text\n7.0,"two\nlines"\n8,x\n',
        "b.tsv": "a\tb\n1\t2\n",
        "c.jsonl": '{"a": 1}\n\n{"a": 2}',
        "d.txt": "1\n\n22\n",
        "e.csv": 'h\n"1\n2\n3\n',
        "f.json": '{"a": 1, "b": 2}',
        "g.json": '[[12, "x"]]',
        "h.json": '[["data/v.jpg", {"a": "z.jpg"}]]',
    }
    here = ("q/8.png", "p/7.jpg", "p/0012.jpg", "p/v.jpg", "p/22.gif", "pictures/1.jpg")
    for name, text in (texts | dict.fromkeys(here, "")).items():
        (entry.root / name).parent.mkdir(parents=True, exist_ok=True)
        (entry.root / name).write_text(text)
    assert source_report(entry).lines() == [
        "toy: incomplete; 7 of 10 files, 12 of 12 rows, 5 of 7 images",
        "  files missing: toy/pictures/*.jpg (2), toy/maybe.txt",
        "  images missing: toy/p/1.gif, toy/p/z.jpg",
    ]


def test_source_without_a_published_number_of_items_is_never_complete(put, home):
    put({f"data/raw/svo-probes/images/{number}.jpg": None for number in (1, 2)})
    put({"data/raw/svo-probes/svo_probes.csv": [samples.SVO_HEADER, samples.SVO]})
    assert source_report(SOURCES["svo-probes"]).lines() == [
        "svo-probes: unknown; 1 of 1 files, 1 items read (number published unknown), 2 of 2 images"
    ]
    hake = "vl-checklist/data/Relation/hake_action.json"
    put({f"data/raw/{hake}": [samples.CHECKLIST]})
    report = source_report(SOURCES["vl-checklist"])
    assert "1 of 56 files, 0 of 372,274 items (1 more read; number" in report.lines()[0]
    put({f"data/raw/{hake}": []})
    assert "hake_action.json: the file has no rows" in source_report(report.source).lines()[-1]

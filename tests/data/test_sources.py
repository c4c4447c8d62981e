"""`data/sources.yml`: well-formed, and true to what the loaders read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from cae_lib.data import completeness, retrieval_sets, similarity
from cae_lib.data.benchmarks import (
    FOLDERS,
    aro,
    cola,
    crepe,
    load_benchmark,
    sugarcrepe,
    valse,
    vl_checklist,
    whatsup,
    winoground,
)
from cae_lib.data.catalogue import table
from cae_lib.data.partial import file_sha256
from cae_lib.data.source_list import expand, load_sources, source, sources_path
from cae_lib.data.sources import Source
from cae_lib.errors import ConfigError, DataError

SOURCES = load_sources()
WANTED = """openai-vit-b-32 clip-cae negclip-weights ce-clip-weights coco-train2014 coco-val2014
    coco-val2017 visual-genome swig hake negclip-captions coco-retrieval flickr30k
    authors-benchmarks aro winoground sugarcrepe vl-checklist valse svo-probes crepe whatsup cola
    senteval""".split()
BY_FAMILY = {name: name.replace("_", "-") for name in FOLDERS if name != "order"} | {
    "crepe_systematicity": "crepe"
}
each = pytest.mark.parametrize("entry", SOURCES.values(), ids=list(SOURCES))


def counts(name: str) -> dict[str, int]:
    """Rows by the file's path without its ending, where they are known."""
    return {
        re.sub(r"\.\w+$", "", row.file): row.n for row in SOURCES[name].rows if row.n is not None
    }


def file_names(name: str) -> set[str]:
    return {path for row in SOURCES[name].rows for path in expand(row.file)}


def test_everything_that_the_paper_profile_can_use_is_listed():
    assert sorted(SOURCES) == sorted(WANTED)


@each
def test_entry_is_well_formed(entry: Source):
    assert entry.home.startswith("https://")
    assert entry.licence and entry.terms and entry.get
    assert set(entry.needs) <= set(SOURCES)
    assert PurePosixPath(entry.folder).parts and ".." not in entry.folder
    for item in entry.get:
        assert item.url is None or re.match(r"https?://[\w.-]+/\S+$", item.url)
        assert item.hub is None or re.match(r"(datasets/)?[\w.-]+/[\w.-]+$", item.hub)
        assert item.drive is None or re.match(r"[\w-]{33}$", item.drive)
        assert item.to or item.unpack or item.how or item.open_clip or item.path
        places = [item.to or "."] + [part.to for part in item.unpack]
        assert all(".." not in place and not place.startswith("/") for place in places)
    named = [(item.file or item.to or item.path) for item in entry.get if not item.how]
    assert len(set(named)) == len(named), "two items would overwrite one another"


@each
def test_what_is_fetched_is_what_is_checked(entry: Source):
    """Each plain file that is fetched is among those that the check looks for."""
    fetched = {i.to or i.path for i in entry.get if not i.unpack and not i.open_clip and not i.how}
    assert fetched - {None, "."} <= file_names(entry.name)


@each
def test_links_show_folders_that_a_source_fills(entry: Source):
    folders = {SOURCES[name].folder for name in SOURCES} | {"coco/train2014", "coco/val2014"}
    folders |= {f"vg/{part.to}" for item in SOURCES["visual-genome"].get for part in item.unpack}
    for name, shown in entry.links.items():
        assert os.path.normpath(f"{entry.folder}/{shown}") in folders
        assert not os.path.normpath(f"{entry.folder}/{name}").startswith("..")


@pytest.mark.parametrize("family", BY_FAMILY)
def test_folders_are_the_loaders(family: str):
    assert SOURCES[BY_FAMILY[family]].folder == FOLDERS[family]


def test_counts_are_the_loaders():
    assert counts("sugarcrepe") == {f"data/{k}": n for k, n in sugarcrepe.OFFICIAL.items()}
    assert counts("aro") == {
        aro.ANNOTATIONS[k].removesuffix(".json"): n for k, n in aro.OFFICIAL.items()
    }
    assert counts("vl-checklist") == {f"data/{k}": n for k, n in vl_checklist.OFFICIAL.items()}
    assert counts("winoground") == {"examples": winoground.OFFICIAL["group"]}
    assert sorted(counts("crepe").values()) == sorted(crepe.OFFICIAL.values())
    assert counts("cola") == {str(cola.MULTI).removesuffix(".json"): cola.OFFICIAL["multi"]}
    assert counts("whatsup") == {
        f"{k}_dataset" if k.startswith("controlled") else k: n for k, n in whatsup.OFFICIAL.items()
    }
    assert sum(counts("senteval").values()) == sum(similarity.OFFICIAL.values())
    for name, key in (("coco", "coco-retrieval"), ("flickr30k", "flickr30k")):
        place = retrieval_sets.RETRIEVAL_SETS[name]
        assert counts(key)[place.caption_list.removesuffix(".json")] == place.n_images


def test_files_are_the_loaders():
    corpora = {f"data/{name}.json" for name in vl_checklist.OFFICIAL_CORPORA}
    assert file_names("vl-checklist") == corpora
    assert file_names("valse") == {f"data/{name}.json" for name in valse.OFFICIAL}
    assert all(n >= valse.OFFICIAL[name[5:]] for name, n in counts("valse").items())
    productivity = "data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"
    assert {n for n in file_names("crepe") if "prod_" in n} == {
        productivity.format(kind, n) for kind in crepe.OFFICIAL for n in crepe.COMPLEXITIES
    }
    pairs = {
        f"STS/{year}-en-test/STS.{kind}.{part}.txt"
        for year, parts in similarity.YEARS.items()
        for part in parts
        for kind in ("input", "gs")
    }
    tests = {files["test"] for files in similarity.FILES.values()}
    assert file_names("senteval") == pairs | tests
    assert SOURCES["senteval"].folder == similarity.FOLDER


def test_valse_looks_where_the_loader_looks():
    for entry in SOURCES["valse"].pictures:
        for file in expand(entry.file):
            own = valse.IMAGE_FOLDERS[file.removeprefix("data/").removesuffix(".json")]
            assert entry.folders[0] == own
            assert set(entry.folders[1:]) <= set(valse.SHARED_FOLDERS)


def test_open_clip_keeps_the_weights_under_that_name():
    from open_clip.pretrained import get_pretrained_cfg

    (item,) = SOURCES["openai-vit-b-32"].get
    assert get_pretrained_cfg(*item.open_clip)["hf_hub"] == f"{item.cache}/"


@pytest.fixture
def world_as_raw(home: Path, smoke_world: Path) -> Path:
    """A project whose `data/raw` is a small world, laid out as the real sets are."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world, target_is_directory=True)
    return smoke_world


def pictures_of(family: str, root: Path) -> Iterator[Path]:
    for benchmark in load_benchmark(family, root):
        for item in benchmark.items:
            yield from (image.path.resolve() for image in item.images)


@pytest.mark.parametrize(
    "family", ["aro", "winoground", "sugarcrepe", "vl_checklist", "valse", "svo_probes", "crepe"]
)
def test_the_pictures_named_are_those_that_the_loader_shows(world_as_raw: Path, family: str):
    """Two readers of the same files: the loader, and the generic one that `check` uses.

    VALSE's loader leaves out rows that people found invalid, so it shows fewer.
    """
    entry = SOURCES[BY_FAMILY[family]]
    named = {
        next(place.resolve() for place in places if place.is_file())
        for _, places in completeness.expected_pictures(entry, [])
    }
    shown = set(pictures_of(family, world_as_raw))
    assert shown
    assert shown <= named if family == "valse" else shown == named


@pytest.mark.parametrize("name", ["negclip-captions", "coco-retrieval", "flickr30k"])
def test_pictures_of_captions_are_found(world_as_raw: Path, name: str):
    tallies = {tally.what: tally for tally in completeness.check(SOURCES[name]).tallies}
    assert tallies["pictures"].found == tallies["pictures"].expected > 0


def test_expand():
    assert expand("a{1,2}/{b,c}.x") == ["a1/b.x", "a1/c.x", "a2/b.x", "a2/c.x"]
    assert expand("plain*") == ["plain*"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind: sweets", "kind is 'sweets'"),
        ("colour: red", "Source has no field colour"),
        ("get: [{to: x}]", "an item gives no way"),
        ("get: [{url: 'http://a/b', drive: c}]", r"gives \['url', 'drive'\]"),
        ("get: [{url: 'http://a/b', sha256: abc}]", "not 64 hexadecimal digits"),
        ("rows: [{n: 3}]", "Rows lacks file"),
    ],
)
def test_malformed_entries(tmp_path: Path, change: str, message: str):
    entry = {
        "title": "T", "kind": "weights", "home": "h", "licence": "l", "terms": "t", "folder": "f",
        "get": "[]",
    }
    key, value = change.split(": ", 1)
    text = "\n".join(f"  {k}: {v}" for k, v in (entry | {key: value}).items())
    path = tmp_path / "sources.yml"
    path.write_text(f"one:\n{text}\n")
    with pytest.raises(DataError, match=message):
        load_sources(path)


def test_missing_field_and_file(tmp_path: Path):
    path = tmp_path / "sources.yml"
    with pytest.raises(DataError, match="cannot be read"):
        load_sources(path)
    path.write_text("one: {title: T}\n")
    with pytest.raises(DataError, match="one: Source lacks folder, home, kind, licence, terms"):
        load_sources(path)


def test_unknown_name():
    with pytest.raises(ConfigError, match="Known: openai-vit-b-32, "):
        source("imagenet")


def test_readme_has_the_table():
    readme = sources_path().with_name("README.md").read_text(encoding="utf-8")
    assert table(SOURCES.values()) in readme


@pytest.mark.skipif("CAE_REAL_DATA" not in os.environ, reason="CAE_REAL_DATA is not set")
def test_real_files(home: Path):
    real = Path(os.environ["CAE_REAL_DATA"])
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(real, target_is_directory=True)
    entry = SOURCES["sugarcrepe"]
    for item in entry.get:
        assert file_sha256(entry.root / item.to) == item.sha256
        assert (entry.root / item.to).stat().st_size == item.bytes
    files, rows, pictures = completeness.check(entry).tallies
    assert (files.found, rows.found, rows.expected) == (7, 7511, 7511)
    assert pictures.found + len(pictures.missing) == pictures.expected
    valid = next(i for i in SOURCES["negclip-captions"].get if i.to == "valid_neg_clip.tsv")
    assert file_sha256(real / valid.to) == valid.sha256

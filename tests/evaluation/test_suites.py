"""What is measured on one set of weights, on the small world and on folders of real datasets."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from book.studies import ALL_SUITES
from cae_bench import datasets
from cae_bench.averages import PROTOCOLS, score_weights
from cae_bench.encoder import Encoder
from cae_bench.labelled import load_labelled_folder
from cae_lab.items import data_tables, option_table
from cae_lab.measures import classification_sets
from cae_lab.profiles import load_profile
from cae_lab.scene_graphs import GRAPHS_FILE
from cae_lib.errors import DataError


@pytest.fixture
def encoder(tiny_clip):
    return Encoder(tiny_clip)


@pytest.fixture(scope="module")
def tables(world_home):
    return data_tables(load_profile("smoke"))


def measured(name, encoder, profile="smoke"):
    return ALL_SUITES[name](encoder, load_profile(profile))


def test_the_tables_of_the_data_fit_the_answers_and_serve_all_protocols(tables, encoder):
    known = {"items", "texts", "captions", "roles", "subsets", "blind", "parser"}
    assert set(tables) == known
    answered, items, used = measured("benchmarks", encoder), tables["items"], tables["subsets"]
    groups, names = items.groupby(["family", "subset"]), ["family", "subset", "group", "item"]
    assert answered[[*names, "picture"]].equals(items[[*names, "picture"]])
    np.testing.assert_allclose(groups.weight.sum(), 1)
    assert {"all", "match"} == set(items[items.family == "svo_probes"].subset)
    for protocol in PROTOCOLS:
        np.testing.assert_allclose(score_weights(items, protocol).groupby("score").weight.sum(), 1)
    assert (used.n_used == used.n_expected).all() and (used.n_used > 0).all()
    assert set(used.suite) == {
        "benchmarks",
        "retrieval",
        "similarity",
        "zero_shot",
        "attribution",
        "phrases",
        "faithfulness",
        "heatmaps",
    }
    part = used[used.suite == "benchmarks"].set_index(["family", "subset"]).sort_index()
    np.testing.assert_allclose(part.chance, groups.chance.mean())
    np.testing.assert_array_equal(part.n_used, groups.size())
    choosers = ["shorter", "longer", "likelihood", "likelihood_per_word"]
    assert [*tables["blind"].chooser.unique()] == choosers
    captions = datasets.retrieval_pairs(load_profile("smoke").datasets, "coco").captions
    assert tables["captions"].words.tolist() == [len(caption.split()) for caption in captions]
    parser = tables["parser"]
    right = parser[parser.found == parser.gold].groupby("gold").n.sum()
    assert (right / parser.groupby("gold").n.sum()).min() > 0.5
    assert "" in set(parser.relation) and parser.relation.nunique() > 5


def test_texts_and_pictures_of_each_item_can_be_looked_up(tables, world_home):
    texts, root = tables["texts"], load_profile("smoke").root
    part, *_ = datasets.load_benchmarks(load_profile("smoke").datasets, ["sugarcrepe"])
    own = texts[(texts.family == part.name) & (texts.subset == part.subset)]
    for number, item in enumerate(part.items):
        said = own[own.item == number]
        words, pictures = said[said.kind == "text"], said[said.kind == "picture"]
        assert tuple(words.content) == item.texts and set(words.id) == {item.key}
        assert [*words.true] == [place == item.truth for place in range(len(item.texts))]
        assert [root / place for place in pictures.content] == [i.path for i in item.images]
    assert texts[texts.family == "winoground"].true.all(), "text i goes with picture i"
    pairs = datasets.retrieval_pairs(load_profile("smoke").datasets, "coco")
    assert [*texts[(texts.family == "coco") & (texts.kind == "text")].content] == [*pairs.captions]
    people = option_table([part], {"coco": pairs}, root, is_synthetic=False)
    assert set(people.kind) == {"picture"}, "captions of people are not stored"


def test_sets_of_the_world(world_home, encoder):
    result = measured("similarity", encoder)
    assert list(result["set"].unique()) == ["STS12", "STS14", "STS15", "STS-B", "SICK-R"]
    ranks = measured("retrieval", encoder)
    sizes = ranks[ranks["set"] == "coco"].direction.value_counts().to_dict()
    assert sizes == {"image to text": 24, "text to image": 24 * 5}
    assert len(measured("blind", encoder))
    classes = measured("zero_shot", encoder)
    assert classes.columns.tolist() == ["set", "picture", "label", "rank"]
    assert classes.groupby("set").picture.nunique().to_dict() == {"coco": 24, "flickr30k": 16}
    gold = {
        image["file_name"]: {thing["noun"] for thing in image["things"]}
        for image in json.loads((world_home / GRAPHS_FILE).read_text("utf-8"))["images"]
    }
    paths = classification_sets(load_profile("smoke"))["coco"].paths
    for number, own in classes[classes["set"] == "coco"].groupby("picture"):
        assert set(own.label) == gold[paths[number].name] and len(own) >= 2


def test_a_published_dataset_is_measured_as_far_as_it_is_here(raw, smoke_world, capsys):
    shutil.copytree(smoke_world, raw, symlinks=True)
    (raw / "manifest.json").unlink()
    subsets = {part.key: part for part in datasets.load_benchmarks(load_profile("paper").datasets)}
    assert (subsets["aro/relation"].n_used, subsets["aro/relation"].n_expected) == (12, 23937)
    pairs = datasets.retrieval_pairs(load_profile("paper").datasets, "coco")
    assert (pairs.n_used, pairs.n_expected) == (24 * 5, 25010)
    capsys.readouterr()
    datasets.similarity_sets(load_profile("paper").datasets)
    assert "Left out of STS12, " in capsys.readouterr().out


def test_the_paper_profile_takes_any_labelled_set(raw):
    with pytest.raises(DataError, match="zero-shot"):
        classification_sets(load_profile("paper"))
    folder = raw / "zero-shot" / "pets"
    hidden = ("b/._1.png", ".ipynb_checkpoints/1.png")
    for name in ("b/2.png", "b/1.png", "tabby_cat/3.JPG", "b/notes.txt", *hidden):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name, "png")
    pets = classification_sets(load_profile("paper"))["pets"]
    assert [path.name for path in pets.paths] == ["1.png", "2.png", "3.JPG"]
    assert (pets.classes, pets.labels) == (["b", "tabby cat"], [(0,), (0,), (1,)])
    shutil.copytree(folder / "b", folder / "tabby cat")
    with pytest.raises(DataError, match="pets: two folders give the class 'tabby cat'"):
        load_labelled_folder(folder)

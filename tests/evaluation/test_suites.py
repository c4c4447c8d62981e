"""What is measured on one set of weights, on the small world and on folders of real datasets."""

import shutil

import numpy as np
import pytest
from PIL import Image

from book.studies import ALL_SUITES
from cae_bench.averages import PROTOCOLS, score_weights
from cae_bench.encoder import Encoder
from cae_bench.labelled import load_labelled_folder
from cae_lab.data_tables import data_tables
from cae_lab.measures import classification_sets
from cae_lab.profiles import load_profile
from cae_lab.required_data import data_digests
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
    answered, items, used = measured("benchmarks", encoder), tables["items"], tables["subsets"]
    groups, names = items.groupby(["family", "subset"]), ["family", "subset", "group", "item"]
    assert answered[[*names, "picture"]].equals(items[[*names, "picture"]])
    np.testing.assert_allclose(groups.weight.sum(), 1)
    for protocol in PROTOCOLS:
        np.testing.assert_allclose(score_weights(items, protocol).groupby("score").weight.sum(), 1)
    assert (used.n_used == used.n_expected).all() and (used.n_used > 0).all()
    part = used[used.suite == "benchmarks"].set_index(["family", "subset"]).sort_index()
    np.testing.assert_allclose(part.chance, groups.chance.mean())
    np.testing.assert_array_equal(part.n_used, groups.size())
    parser = tables["parser"]
    right = parser[parser.found == parser.gold].groupby("gold").n.sum()
    assert (right / parser.groupby("gold").n.sum()).min() > 0.5


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
    before = data_digests(load_profile("paper"), ["labelled"])
    (folder / "b/1.png").rename(folder / "tabby_cat/1.png")
    assert data_digests(load_profile("paper"), ["labelled"]) != before, "it has another class"
    shutil.copytree(folder / "b", folder / "tabby cat")
    with pytest.raises(DataError, match="pets: two folders give the class 'tabby cat'"):
        load_labelled_folder(folder)

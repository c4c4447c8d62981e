"""What the image tower of the base is taught of a scene, and that its training goes on exactly."""

import numpy as np
import pytest
import torch
from toys import same_weights

from cae_lib.models.clip import load_clip
from cae_lib.runtime import one_thread
from data.recipes.synthetic_scenes import build, tower
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Content, Scene, SceneConfig, Thing, sample_scene
from data.recipes.synthetic_scenes.tower import (
    IGNORED,
    READINGS,
    VALUES,
    patch_targets,
    pretrain_tower,
    scene_targets,
)
from data.recipes.synthetic_scenes.vocabulary import NOUNS

CAT, DOG, HAT = Thing("cat", "red"), Thing("dog", "blue", "small", "striped"), Thing("hat", "pink")
LEFT, RIGHT, TOP = Placement(0.25, 0.5, 0.3), Placement(0.75, 0.5, 0.3), Placement(0.5, 0.1, 0.15)
CAT_RIGHT_OF_DOG = Scene(Content((CAT, DOG, HAT), "right of"), (RIGHT, LEFT, TOP), "plain", 0)
DOG_LEFT_OF_CAT = Scene(Content((DOG, CAT, HAT), "left of"), (LEFT, RIGHT, TOP), "plain", 0)
# By the first letter of the thing at the middle of each patch.
MAP = "...h... ....... .dd.cc. .dd.cc. .dd.cc. ....... .......".replace(" ", "")
SIDES = "left", "right", "top", "bottom"


def initials(targets: dict[str, np.ndarray]) -> str:
    return "".join("." if noun == IGNORED else NOUNS[noun][0] for noun in targets["noun"])


def test_targets_of_a_scene_by_hand():
    targets = scene_targets(CAT_RIGHT_OF_DOG)
    assert READINGS[targets["reading"]] == "left of"
    assert [NOUNS[noun] for noun in targets["nouns"]] == ["dog", "cat"]
    assert [VALUES["color"][color] for color in targets["colors"]] == ["blue", "red"]
    places = {NOUNS[i]: int(place) for i, place in enumerate(targets["places"]) if place}
    assert places == {"dog": 1, "cat": 2, "hat": 3}
    for name, values in {
        "color": {"dog": "blue", "cat": "red", "hat": "pink"},
        "size": {"dog": "small", "cat": None, "hat": None},
        "pattern": {"dog": "striped", "cat": None, "hat": None},
    }.items():
        asked = {NOUNS[i]: VALUES[name][v] for i, v in enumerate(targets[name]) if v != IGNORED}
        assert asked == values


def test_targets_of_patches_by_hand():
    targets = patch_targets(CAT_RIGHT_OF_DOG)
    assert initials(targets) == MAP
    assert "".join(map(str, targets["place"])) == MAP.translate(str.maketrans("dch.", "1230"))
    dog, cat, hat, empty = (
        {name: int(values[7 * int(7 * place.y) + int(7 * place.x)]) for name, values in
         targets.items()}
        for place in (LEFT, RIGHT, TOP, Placement(0, 0, 0))
    )  # fmt: skip
    assert (NOUNS[dog["partner"]], SIDES[dog["side"]]) == ("cat", "right")
    assert (NOUNS[cat["partner"]], SIDES[cat["side"]]) == ("dog", "left")
    assert READINGS[dog["reading"]] == READINGS[cat["reading"]] == "left of"
    assert [VALUES["color"][part["color"]] for part in (dog, cat, hat)] == ["blue", "red", "pink"]
    assert hat["partner"] == hat["side"] == hat["reading"] == IGNORED
    assert empty == dict.fromkeys(targets, IGNORED) | {"place": 0}
    same = patch_targets(DOG_LEFT_OF_CAT)
    assert all(np.array_equal(value, same[name]) for name, value in targets.items())


@pytest.fixture
def drawn(brief_muon, monkeypatch):
    """Batches of four, drawn in this process on one thread; gives the scenes that were drawn."""
    scenes = []

    def sample(config, split, index):
        scenes.append(sample_scene(config, split, index))
        return scenes[-1]

    for name, value in {"BATCH": 4, "SAVE_EVERY": 2, "WARMUP": 1, "sample_scene": sample}.items():
        monkeypatch.setattr(tower, name, value)
    monkeypatch.setattr(
        tower, "DataLoader", lambda batches, **_: (batches[i] for i in range(len(batches)))
    )
    with one_thread(torch.device("cpu")):
        yield scenes


def test_interrupted_training_of_the_tower_ends_with_the_same_weights(drawn, tmp_path, monkeypatch):
    def taught(name):
        clip = load_clip("clip-mini", seed=1)
        pretrain_tower(clip, SceneConfig(), 5, tmp_path / name)
        return clip

    whole = taught("whole")
    assert len(drawn) == len({scene.seed for scene in drawn}) == 5 * 4, "none comes twice"

    class Stopped(tower.Progress):
        def update(self, n=1, **values):
            super().update(n, **values)
            if self.n == 4:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tower, "Progress", Stopped)
        with pytest.raises(KeyboardInterrupt):
            taught("parts")
    before = len(drawn)
    assert same_weights(taught("parts"), whole)
    assert drawn[before:] == drawn[2 * 4 : 5 * 4], "it was last written after step 2"


def test_tower_learns_four_scenes_and_nothing_else_changes(drawn, tmp_path, monkeypatch):
    losses, configs = [], set()

    def sample(config, split, index):
        configs.add(config)
        return sample_scene(config, split, index % 4)

    class Recorded(tower.Progress):
        def update(self, n=1, **values):
            losses.append(values["loss"])

    monkeypatch.setattr(tower, "Progress", Recorded)
    monkeypatch.setattr(tower, "sample_scene", sample)
    clip, fresh = load_clip("clip-mini", seed=1), load_clip("clip-mini", seed=1)
    pretrain_tower(clip, SceneConfig(), 22, tmp_path / "state.pt")
    assert losses[-1] < losses[0] / 5
    unbiased = {"zipf": 0.0, "natural_order": 0.5, "relation_concentration": 50.0}
    assert configs == {SceneConfig(**unbiased, typical_color=0.0)}, "no noun tells anything"
    before = fresh.model.state_dict()
    changed = {
        n for n, value in clip.model.state_dict().items() if not torch.equal(value, before[n])
    }
    assert changed == {name for name in before if name.startswith("visual.")}
    assert not clip.model.training and not clip.model.visual.output_tokens


def test_tower_learns_from_scenes_of_no_dataset(drawn, scenes_of, config, tmp_path, monkeypatch):
    """With the statistics of the sets, a split of theirs would give scenes of theirs."""
    monkeypatch.setattr(tower, "UNBIASED", {})
    monkeypatch.setattr(tower, "BATCH", 64)
    pretrain_tower(load_clip("clip-mini"), config.scenes, 1, tmp_path / "state.pt")
    pretrain = build.make_datasets(config, "pretrain")
    others = [image.scenes for dataset in pretrain for image in dataset.images.values()]
    seeds = {scene.seed for scenes in (*scenes_of.values(), *others) for scene in scenes}
    seeds |= {seed - 1 for seed in seeds}  # of scenes with other contents
    assert len(drawn) == 64 and not {scene.seed for scene in drawn} & seeds

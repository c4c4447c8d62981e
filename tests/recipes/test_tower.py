"""What the image tower of the base is taught of a scene, and that its training goes on exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import same_weights

from cae_lib.models.clip import load_clip
from cae_lib.runtime import one_thread
from data.recipes.synthetic_scenes import build, tower
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import (
    Content,
    Scene,
    SceneConfig,
    Thing,
    arrange,
    sample_scene,
)
from data.recipes.synthetic_scenes.tower import (
    IGNORED,
    READINGS,
    VALUES,
    patch_targets,
    pretrain_tower,
    scene_targets,
)
from data.recipes.synthetic_scenes.vocabulary import NOUNS, RELATIONS

CAT, DOG, HAT = Thing("cat", "red"), Thing("dog", "blue", "small", "striped"), Thing("hat", "pink")
LEFT, RIGHT, TOP = Placement(0.25, 0.5, 0.3), Placement(0.75, 0.5, 0.3), Placement(0.5, 0.1, 0.15)
CAT_RIGHT_OF_DOG = Scene(Content((CAT, DOG, HAT), "right of"), (RIGHT, LEFT, TOP), "plain", 0)
DOG_LEFT_OF_CAT = Scene(Content((DOG, CAT, HAT), "left of"), (LEFT, RIGHT, TOP), "plain", 0)
# By the first letter of the thing at the middle of each patch.
MAP = "...h... ....... .dd.cc. .dd.cc. .dd.cc. ....... .......".replace(" ", "")
SIDES = "left", "right", "top", "bottom"


def patch(targets: dict[str, np.ndarray], place: Placement) -> dict[str, int]:
    """The targets of the patch under a thing's middle."""
    return {
        name: int(found[7 * int(7 * place.y) + int(7 * place.x)]) for name, found in targets.items()
    }


def test_the_gold_of_a_scene_by_hand():
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


def test_the_gold_of_patches_by_hand():
    targets = patch_targets(CAT_RIGHT_OF_DOG)
    nouns = [NOUNS[noun] if noun != IGNORED else "." for noun in targets["noun"]]
    assert "".join(noun[0] for noun in nouns) == MAP
    assert "".join(map(str, targets["place"])) == MAP.translate(str.maketrans("dch.", "1230"))
    dog, cat, hat = (patch(targets, place) for place in (LEFT, RIGHT, TOP))
    assert (NOUNS[dog["partner"]], SIDES[dog["side"]]) == ("cat", "right")
    assert (NOUNS[cat["partner"]], SIDES[cat["side"]]) == ("dog", "left")
    assert READINGS[dog["reading"]] == READINGS[cat["reading"]] == "left of"
    assert [VALUES["color"][found["color"]] for found in (dog, cat, hat)] == ["blue", "red", "pink"]
    assert hat["partner"] == hat["side"] == hat["reading"] == IGNORED
    empty = {name: found[0] for name, found in targets.items()}
    assert empty == dict.fromkeys(targets, IGNORED) | {"place": 0}


@pytest.mark.parametrize("targets", [scene_targets, patch_targets])
def test_two_statements_of_one_picture_have_one_gold(targets):
    first, second = targets(CAT_RIGHT_OF_DOG), targets(DOG_LEFT_OF_CAT)
    assert all(np.array_equal(value, second[name]) for name, value in first.items())
    other = targets(replace(DOG_LEFT_OF_CAT, content=Content((CAT, DOG, HAT), "left of")))
    assert not all(np.array_equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_and_its_inverse_are_read_alike_and_others_apart(relation):
    turned = RELATIONS[relation].inverse
    for name in RELATIONS:
        targets = scene_targets(arrange(Content((CAT, DOG), relation), 0))
        pair = (DOG, CAT) if name == turned else (CAT, DOG)
        other = scene_targets(arrange(Content(pair, name), 1))
        assert (targets["reading"] == other["reading"]) == (name in (relation, turned))
        if name in (relation, turned):
            assert np.array_equal(targets["nouns"], other["nouns"])


def test_a_nearer_thing_covers_a_farther_one():
    far, near = Placement(0.5, 0.4, 0.7, depth=1), Placement(0.5, 0.64, 0.3)
    for content, places in (
        (Content((DOG, CAT), "behind"), (far, near)),
        (Content((CAT, DOG), "in front of"), (near, far)),
    ):
        targets = patch_targets(Scene(content, places, "plain", 0))
        rows = "".join("." if noun == IGNORED else NOUNS[noun][0] for noun in targets["noun"])
        assert rows == ".ddddd. .ddddd. .ddddd. .dcccd. .dcccd. ..ccc.. .......".replace(" ", "")
        dog, cat = (patch(targets, place) for place in (replace(far, y=0.2), near))
        assert (SIDES[dog["side"]], SIDES[cat["side"]]) == ("bottom", "top")
        assert (dog["place"], cat["place"]) == (1, 2)


def test_an_absent_noun_weighs_a_tenth_by_hand():
    """Losses log 4 of one that is absent, log 8/5 of one that is first."""
    vectors = torch.tensor([[0, 0, 0, 0], [0, np.log(5), 0, 0]])
    loss = tower._loss(
        torch.nn.ModuleDict({"places": torch.nn.Identity()}),
        vectors,
        {"places": torch.tensor([0, 1])},
    )
    assert loss.item() == pytest.approx((0.1 * np.log(4) + np.log(8 / 5)) / 1.1)


@pytest.fixture
def drawn(brief_muon, monkeypatch):
    """Batches of four, drawn in this process on one thread; gives the scenes that were drawn."""
    found = []

    def sample(config, split, index):
        found.append(sample_scene(config, split, index))
        return found[-1]

    monkeypatch.setattr(tower, "BATCH", 4)
    monkeypatch.setattr(tower, "SAVE_EVERY", 2)
    monkeypatch.setattr(tower, "WARMUP", 1)
    monkeypatch.setattr(tower, "sample_scene", sample)
    monkeypatch.setattr(
        tower, "DataLoader", lambda batches, **_: (batches[i] for i in range(len(batches)))
    )
    with one_thread(torch.device("cpu")):
        yield found


def test_an_interrupted_training_ends_with_the_same_weights(drawn, tmp_path, monkeypatch):
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
    before = len(drawn)
    assert same_weights(taught("parts"), whole) and len(drawn) == before, "all is done"


def test_training_learns_four_scenes_and_changes_the_image_tower_alone(
    drawn, tmp_path, monkeypatch
):
    losses, configs = [], set()

    def sample(config, split, index):
        configs.add(config)
        return sample_scene(config, split, index % 4)

    class Recorded(tower.Progress):
        def update(self, n=1, **values):
            losses.append(values["loss"])
            super().update(n, **values)

    monkeypatch.setattr(tower, "Progress", Recorded)
    monkeypatch.setattr(tower, "sample_scene", sample)
    clip, fresh = load_clip("clip-mini", seed=1), load_clip("clip-mini", seed=1)
    pretrain_tower(clip, SceneConfig(), 22, tmp_path / "state.pt")
    assert losses[-1] < losses[0] / 5
    assert configs == {
        SceneConfig(zipf=0.0, natural_order=0.5, relation_concentration=50.0, typical_color=0.0)
    }, "nothing is guessed from a noun"
    before = fresh.model.state_dict()
    changed = {
        name
        for name, value in clip.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {name for name in before if name.startswith("visual.")}
    assert not clip.model.training and not clip.model.visual.output_tokens


def test_it_learns_from_scenes_of_no_dataset(drawn, made, config, tmp_path, monkeypatch):
    """With the statistics of the sets, a split of theirs would give scenes of theirs."""
    monkeypatch.setattr(tower, "UNBIASED", {})
    monkeypatch.setattr(tower, "BATCH", 64)
    pretrain_tower(load_clip("clip-mini"), config.scenes, 1, tmp_path / "state.pt")
    datasets = [*made.values(), *build.make_datasets(config, "pretrain")]
    seeds = {
        scene.seed
        for dataset in datasets
        for image in dataset.images.values()
        for scene in image.scenes
    }
    seeds |= {seed - 1 for seed in seeds}  # of scenes with other contents
    assert len(drawn) == 64 and not {scene.seed for scene in drawn} & seeds

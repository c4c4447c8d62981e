"""Linear probes, on vectors that hold the gold of the smoke world's pictures and on others."""

import json
from collections import Counter

import numpy as np
import pytest

from cae_lab.profiles import load_profile
from data.recipes.probes import probe_table
from data.recipes.synthetic_scenes.vocabulary import COLORS, NOUNS, RELATIONS

TURNED = "right of", "below", "in front of"
"""Relations whose object is the one that is asked for as the subject."""

VALUES = {"relation": (*RELATIONS,), "subject": NOUNS, "color of the subject": (*COLORS,)}


class Seen:
    """An encoder that knows, and keeps, what is asked of each picture; `vector` makes its own."""

    def __init__(self, root, vector) -> None:
        self.vector, self.asked = vector, []
        self.gold = {}
        for name in ("train", "val"):
            path = root / f"coco/annotations/scene_graphs_{name}2014.json"
            for image in json.loads(path.read_text("utf-8"))["images"]:
                pair = image["things"][:2]
                subject, obj = pair[::-1] if image["relation"] in TURNED else pair
                self.gold[image["file_name"]] = {
                    "relation": image["relation"],
                    "subject": subject["noun"],
                    "color of the subject": subject["color"],
                    "object": obj["noun"],
                }

    def encode_images(self, refs):
        self.asked.append([self.gold[ref.path.name] for ref in refs])
        return np.array([self.vector(facts) for facts in self.asked[-1]], dtype=np.float32)


def one_hot(facts):
    return [10.0 * (facts[name] == value) for name in VALUES for value in VALUES[name]]


@pytest.mark.parametrize("target", VALUES)
def test_facts_that_vectors_hold_are_answered_where_training_has_them(world_home, target):
    encoder = Seen(world_home, one_hot)
    table = probe_table(encoder, load_profile("smoke")).query("target == @target").reset_index()
    trained, tested = encoder.asked
    assert (len(trained), len(tested)) == (48, 24) and table["picture"].tolist() == [*range(24)]
    assert table["truth"].tolist() == [facts[target] for facts in tested]
    assert (table["correct"] == (table["answer"] == table["truth"])).all()
    in_training = table["truth"].isin([facts[target] for facts in trained])
    assert in_training.sum() >= 12 and table["correct"][in_training].all()
    if target == "subject":  # nouns that no training picture has are no hindrance
        assert not in_training.all()
        pairs = [{facts["subject"], facts["object"]} for facts in tested]
        assert all(answer in pair for answer, pair in zip(table["answer"], pairs, strict=True))
    else:
        assert not table["correct"][~in_training].any()


def test_vectors_that_hold_nothing_give_the_commonest_answer(world_home):
    encoder = Seen(world_home, lambda facts: [1.0, 0.0])
    table = probe_table(encoder, load_profile("smoke"))
    trained, tested = encoder.asked
    for target, rows in table.groupby("target"):
        counts = Counter(facts[target] for facts in trained)
        for facts, row in zip(tested, rows.itertuples(), strict=True):
            # Of two nouns the one that training has more often as subject; of others of all.
            in_training = [facts["subject"], facts["object"]] if target == "subject" else [*counts]
            assert row.answer in in_training and row.commonest in in_training
            most = max(counts[name] for name in in_training)
            assert counts[row.answer] == counts[row.commonest] == most

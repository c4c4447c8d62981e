"""Linear probes, on vectors that hold the gold of the smoke world's pictures and on others."""

import json
from collections import Counter

import numpy as np
import pytest

from cae_bench.encoder import Encoder
from cae_lab.measures import benchmark_table
from cae_lab.profiles import load_profile
from data.recipes.probes import SUBSETS, describe_base, probe_table, zero_shot_numbers
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
def test_what_the_vectors_hold_is_answered_where_training_has_it(world_home, target):
    encoder = Seen(world_home, one_hot)
    table = probe_table(encoder, load_profile("smoke")).query("target == @target").reset_index()
    trained, tested = encoder.asked
    assert (len(trained), len(tested)) == (48, 24) and table["picture"].tolist() == [*range(24)]
    assert table["truth"].tolist() == [facts[target] for facts in tested]
    assert (table["correct"] == (table["answer"] == table["truth"])).all()
    known = table["truth"].isin([facts[target] for facts in trained])
    assert known.sum() >= 12 and table["correct"][known].all()
    if target == "subject":  # nouns that no training picture has are no hindrance
        assert not known.all()
        pairs = [{facts["subject"], facts["object"]} for facts in tested]
        assert all(answer in pair for answer, pair in zip(table["answer"], pairs, strict=True))
    else:
        assert not table["correct"][~known].any()


def test_vectors_that_hold_nothing_give_the_commonest_answer(world_home):
    encoder = Seen(world_home, lambda facts: [1.0, 0.0])
    table = probe_table(encoder, load_profile("smoke"))
    trained, tested = encoder.asked
    for target, rows in table.groupby("target"):
        counts = Counter(facts[target] for facts in trained)
        for facts, row in zip(tested, rows.itertuples(), strict=True):
            # Of two nouns the one that training has more often as subject; of others of all.
            known = [facts["subject"], facts["object"]] if target == "subject" else [*counts]
            assert row.answer in known and row.commonest in known
            most = max(counts[name] for name in known)
            assert counts[row.answer] == counts[row.commonest] == most


def test_without_gold_there_is_nothing_to_ask(home):
    folder = home / "data/raw/photo"
    folder.mkdir(parents=True)
    assert probe_table(None, load_profile("photo")).empty
    (folder / "manifest.json").write_text('{"counts": {}}', "utf-8")
    assert probe_table(None, load_profile("photo")).empty


def test_what_the_base_knows_in_a_few_numbers(world_home, tiny_clip):
    point, final = (
        zero_shot_numbers(tiny_clip, load_profile("smoke")),
        describe_base(tiny_clip, load_profile("smoke")),
    )
    answered = benchmark_table(Encoder(tiny_clip), load_profile("smoke"))
    means = answered.groupby(answered.family + "/" + answered.subset).correct.mean()
    for kind, names in SUBSETS.items():
        assert point[kind] == pytest.approx(means[list(names)].mean())
        assert final[kind]["estimate"] == pytest.approx(point[kind])
        assert final[f"attention_{kind}"]["low"] < final[f"attention_{kind}"]["high"]
    probes = probe_table(Encoder(tiny_clip), load_profile("smoke"))
    for target, rows in probes.groupby("target"):
        probed = final[f"probe_{target}"]
        assert (probed["estimate"], probed["n_items"]) == (pytest.approx(rows.correct.mean()), 24)
        share = sum(rows.truth == rows.commonest) / 24
        assert final[f"commonest_{target}"] == pytest.approx(share)
    assert (final["n_pictures"], final["n_captions"]) == (24, 24 * 5)
    assert final["retrieval_i2t_r1"] == point["retrieval_i2t_r1"]

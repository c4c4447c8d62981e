"""Each relation can be seen in the geometry, and no other reading of its pair is as good."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.world.layout import Placement, place, place_extra
from cae_lib.world.vocabulary import RELATIONS, SIZES

CENTRES = {
    "left of": lambda s, o: s.x < o.x - 0.1,
    "right of": lambda s, o: s.x > o.x + 0.1,
    "above": lambda s, o: s.y < o.y - 0.1,
    "below": lambda s, o: s.y > o.y + 0.1,
    "on": lambda s, o: s.y < o.y - 0.1 and s.overlap(o) > 0,
    "under": lambda s, o: s.y > o.y + 0.1 and s.overlap(o) > 0,
    "in front of": lambda s, o: s.overlap(o) > 0.1 and s.depth < o.depth and s.y > o.y,
    "behind": lambda s, o: s.overlap(o) > 0.1 and s.depth > o.depth and s.y < o.y,
    "riding": lambda s, o: s.y < o.y - 0.1 and s.overlap(o) > 0 and o.motion != 0,
    "holding": lambda s, o: s.overlap(o) > 0 and s.depth > o.depth,
    "chasing": lambda s, o: (o.x - s.x) * s.motion > 0.1 and o.motion == 0,
    "touching": lambda s, o: (o.x - s.x) * s.contact > 0.1 and s.overlap(o) > 0,
}


def pairs(relation):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = [(None, *SIZES)[int(rng.integers(3))] for _ in range(2)]
        yield place(relation, *sizes, rng)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relation_is_visible_in_one_order_only(relation):
    for subject, obj in pairs(relation):
        assert CENTRES[relation](subject, obj) and not CENTRES[relation](obj, subject)


@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below"])
def test_positions_show_no_contact_and_no_marks(relation):
    for subject, obj in pairs(relation):
        assert subject.overlap(obj) == 0
        assert not (subject.motion or obj.motion or subject.contact or obj.contact)


@pytest.mark.parametrize("relation", RELATIONS)
def test_centres_stay_in_the_picture(relation):
    for pair in pairs(relation):
        assert all(0 < p.x < 1 and 0 < p.y < 1 for p in pair)


def test_overlap_on_hand_worked_squares():
    square = Placement(0.5, 0.5, 0.4)
    assert square.overlap(Placement(0.7, 0.5, 0.4)) == pytest.approx(0.5)
    assert square.overlap(Placement(0.5, 0.5, 0.2)) == pytest.approx(1.0)
    assert square.overlap(Placement(0.95, 0.5, 0.4)) == 0


def test_extras_stay_inside_and_keep_clear_where_there_is_room():
    others = [Placement(0.2, 0.5, 0.3), Placement(0.5, 0.5, 0.3)]
    extras = [place_extra(others, None, np.random.default_rng(i)) for i in range(60)]
    assert all(p.scale / 2 <= p.x <= 1 - p.scale / 2 for p in extras)
    overlaps = [max(p.overlap(other) for other in others) for p in extras]
    assert np.mean([overlap < 0.2 for overlap in overlaps]) > 0.8

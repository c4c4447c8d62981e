"""Attribution by role on hand-made scores."""

from __future__ import annotations

import numpy as np
import torch

from cae_lib.evaluation.attribution import by_role

SCORES = torch.tensor([[0.9, 0.4, 0.2, 0.1, 0.0], [0.9, 0.3, 0.5, 0.0, 0.0]])
ROLES = torch.tensor([[0, 1, 1, 3, 0], [0, 2, 1, 0, 0]], dtype=torch.int8)


def test_tokens_and_captions_by_role():
    result = by_role(SCORES, ROLES)
    np.testing.assert_allclose(result.tokens["object"], [0.4, 0.2, 0.5])
    np.testing.assert_allclose(result.tokens["attribute"], [0.3])
    np.testing.assert_allclose(result.captions["object"], [0.3, 0.5])
    np.testing.assert_allclose(result.captions["relation"], [0.1, np.nan])


def test_record_counts_and_averages_tokens_not_captions():
    record = by_role(SCORES, ROLES).to_record()
    assert record["n_captions"] == 2
    assert record["object"]["n_tokens"] == 3
    assert abs(record["object"]["mean"] - 1.1 / 3) < 1e-6
    assert record["relation"]["captions"] == [0.1, None]
    assert record["object"]["percentiles"][50] == 0.4
    assert len(record["object"]["percentiles"]) == 101


def test_a_role_without_tokens_has_no_mean():
    record = by_role(SCORES[:1], ROLES[:1]).to_record()
    assert record["attribute"] == {
        "n_tokens": 0, "mean": None, "percentiles": [], "captions": [None],
    }  # fmt: skip

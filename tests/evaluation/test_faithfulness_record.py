"""The records of faithfulness and of sensitivity, on a random clip-mini and a small world."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cae_lib.attribution import METHODS, get_method
from cae_lib.data.captions import load_caption_list
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import INTEGRATED, curve_areas, faithfulness
from cae_lib.evaluation.sensitivity import choices, sensitivity
from cae_lib.evaluation.word_sample import word_sample
from cae_lib.models import load_clip
from cae_lib.words.alignment import token_roles

LIMIT = 8


@pytest.fixture(scope="module")
def setting(smoke_world):
    clip = load_clip("clip-mini", seed=0)
    pairs = load_caption_list(smoke_world / "coco/coco_karpathy_test.json", smoke_world / "coco")
    with torch.no_grad():
        clip.model.token_embedding.weight.mul_(20)
    alignment = token_roles(pairs.captions, default_tagger(), clip.tokenizer)
    return Encoder(clip), pairs, alignment


@pytest.fixture(scope="module")
def record(setting):
    return faithfulness(*setting, limit=LIMIT)


@pytest.fixture(scope="module")
def sample(setting):
    return word_sample(*setting, LIMIT)


def test_the_record_is_plain_and_complete(record):
    assert json.loads(json.dumps(record)) == record
    assert record["n_captions"] == record["n_expected"] == LIMIT
    assert set(record["curves"]["methods"]) == {*METHODS, INTEGRATED}
    assert len(record["agreement"]) == 10
    assert all(len(v) == LIMIT for v in record["agreement"].values())
    stages = record["randomisation"]["stages"]
    assert stages[0] == "projection" and stages[-1] == "embeddings"
    assert record["integrated"]["largest_delta"] <= 0.01


def test_attention_does_not_see_the_projection(record):
    first = record["randomisation"]["methods"]["attention"]
    assert first["projection"] == [1.0] * LIMIT
    assert np.mean(first["blocks 4-1"]) < 0.9
    assert np.mean(record["randomisation"]["methods"]["perturbation"]["projection"]) < 0.9


def test_curves_start_and_end_where_they_must(record):
    curves = record["curves"]
    whole, empty = np.mean(curves["whole"]), np.mean(curves["empty"])
    for part in curves["methods"].values():
        ends = [part["deletion"]["mean"][i] for i in (0, -1)]
        assert ends == pytest.approx([whole, empty], abs=1e-5)
        ends = [part["insertion"]["mean"][i] for i in (0, -1)]
        assert ends == pytest.approx([empty, whole], abs=1e-5)


def test_a_curve_is_that_of_masking_one_word_after_the_other(setting, sample, record):
    """One caption and method, word by word through the plain encoder."""
    model, row = setting[0].clip.model, 0
    scores = sample.scores(model, "gradient")[row]
    order = np.argsort(-scores[np.isfinite(scores)], kind="stable")
    table = model.token_embedding
    tokens, words = sample.tokens[row : row + 1], sample.words[row]
    values, masked = [], torch.zeros_like(words, dtype=torch.bool)
    for word in [None, *order]:
        if word is not None:
            masked = masked | (words == int(word) + 1)
        with torch.no_grad():
            embeddings = torch.where(masked[:, None], table.weight.mean(0), table(tokens))
            padded = torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))
            filled = torch.nn.functional.pad(embeddings, (0, 0, 0, 77 - tokens.shape[1]))
            hook = table.register_forward_hook(lambda m, i, o, e=filled: e)
            text = model.encode_text(padded, normalize=True)[0]
            hook.remove()
        values.append(float(text @ sample.image_features[row]))
    area = np.mean([(a + b) / 2 for a, b in zip(values, values[1:], strict=False)])
    found = record["curves"]["methods"]["gradient"]["deletion"]["area"][row]
    assert found == pytest.approx(area, abs=2e-5)


def test_scores_of_words_are_means_over_their_tokens(setting, sample):
    model = setting[0].clip.model
    own = sample.scores(model, "gradient")
    tokens = get_method("gradient")(model, sample.tokens, sample.image_features).scores
    for row, n in enumerate(sample.n_words):
        for word in range(n):
            inside = sample.words[row] == word + 1
            assert own[row, word] == pytest.approx(float(tokens[row][inside].mean()), abs=1e-5)
        assert np.isnan(own[row, n:]).all()


def test_the_example_has_every_role_and_its_own_scores(setting, sample, record):
    example = record["example"]
    assert {1, 2, 3} <= set(example["roles"]) and len(example["words"]) <= 12
    texts = [sample.word_texts(i, setting[0].clip.tokenizer) for i in range(LIMIT)]
    row = texts.index(example["words"])
    attention = sample.scores(setting[0].clip.model, "attention")[row]
    found = example["scores"]["attention"]
    assert found == pytest.approx(attention[: len(found)].tolist(), abs=1e-5)
    assert len(found) == len(example["words"]) == len(example["roles"])


def test_better_scores_get_better_areas(setting, sample):
    """The drop of each single word, against its opposite."""
    model = setting[0].clip.model
    drops = sample.scores(model, "perturbation")
    areas = curve_areas(model, sample, {"drop": drops, "opposite": -drops})["methods"]
    own, opposite = (np.array(areas[k]["deletion"]["area"]) for k in ("drop", "opposite"))
    assert own.mean() < opposite.mean()
    np.testing.assert_allclose(opposite, areas["drop"]["insertion"]["area"], atol=2e-6)


@pytest.fixture(scope="module")
def compared(setting):
    return sensitivity(*setting, limit=LIMIT)


def test_sensitivity_compares_every_choice(compared):
    found = compared
    assert json.loads(json.dumps(found)) == found
    for method in METHODS:
        parts = found["choices"][method]
        assert parts[0]["name"] == "default" and parts[0]["correlation"] == [1.0] * LIMIT
        assert any(np.mean(part["correlation"]) < 0.999 for part in parts[1:])
        assert parts[-1]["name"] == "GELU in place of QuickGELU"
    assert set(found["masks"]) == {"zero", "token"}


def test_choices_exist_and_differ_from_the_default():
    for choice in choices(12, "gelu"):
        assert choice.activation == (get_method(choice.method, **choice.parameters)
                                     == get_method(choice.method))  # fmt: skip
    assert choices(12, "gelu")[-1].name == "QuickGELU in place of GELU"


def test_the_roles_of_a_choice_are_those_of_the_words(setting, sample, compared):
    found = compared["choices"]["attention"][0]
    scores = sample.token_scores(setting[0].clip.model, "attention")
    for row in range(LIMIT):
        chosen = (sample.roles[row] == 2) | (sample.roles[row] == 3)
        expected = float(scores[row][chosen].mean()) if chosen.any() else None
        assert found["composition"][row] == pytest.approx(expected, abs=1e-5)

"""Scores of words: their table, how faithful they are, and what they hang on."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import get_method
from cae_lib.attribution.measures import random_ranks
from cae_lib.data.captions import Pairs
from cae_lib.evaluation import faithfulness
from cae_lib.evaluation.attribution import (
    INTEGRATED,
    attribution_table,
    captions_of,
    word_sample,
)
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.faithfulness import RANDOM, ROW, choices
from cae_lib.methods import METHODS
from cae_lib.models.clip import load_clip
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, ROLE_NAMES, Span

CAPTIONS = ["a red cat", "the very small dog is on a wide bed", "", "a wet car near it", "two cups"]
PICTURES = [2, 0, 1, 0, 1]
ROLES = {OBJECT: "cat dog bed car cups", ATTRIBUTE: "red small wide wet", RELATION: "on near"}
ROLE_OF = {word: role for role, words in ROLES.items() for word in words.split()}
LIMIT = 8


@pytest.fixture
def five(tmp_path, clip):
    """Five captions, one token a word and one of them empty, of three pictures in no order."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    words = [re.finditer(r"\w+", text) for text in CAPTIONS]
    spans = [
        [Span(*word.span(), ROLE_OF[word[0]]) for word in found if word[0] in ROLE_OF]
        for found in words
    ]
    pairs = Pairs(paths, CAPTIONS, torch.tensor(PICTURES), "toy", 5, 5)
    return pairs, align(CAPTIONS, spans, clip.tokenizer)


@pytest.mark.parametrize("limit, rows", [(None, range(5)), (3, [0, 2, 4])])
def test_every_caption_is_scored_with_its_own_picture(clip, five, limit, rows):
    """A loop over single pairs that reads pictures and roles by itself."""
    encoder, model = Encoder(clip), clip.model.train()
    found = attribution_table(
        encoder, *five, methods=["gradient"], limit=limit, batch_size=2, reduction="grad_x"
    )
    assert model.training and set(found.method) == {"gradient"}
    model.eval()
    scorer, expected = get_method("gradient", reduction="grad_x"), []
    for row in rows:
        picture = Image.open(five[0].image_paths[PICTURES[row]])
        with torch.no_grad():
            image = F.normalize(model.encode_image(clip.preprocess(picture)[None]))
        scores = scorer(model, clip.tokenizer([CAPTIONS[row]]), image).scores[0]
        for place, word in enumerate(CAPTIONS[row].split(), start=1):
            role = ROLE_NAMES[ROLE_OF.get(word, 0)]
            expected.append((row, PICTURES[row], place, word, role, float(scores[place])))
    *texts, scores = zip(*expected, strict=True)
    for name, column in zip(("caption", "picture", "position", "word", "role"), texts, strict=True):
        assert tuple(found[name]) == column
    np.testing.assert_allclose(found.score, scores, rtol=1e-3, atol=1e-6)


def test_a_word_of_several_tokens_has_a_row_for_each(clip, five):
    captions = ["a unicyclist", *CAPTIONS[1:]]  # of 4 tokens
    alignment = align(captions, [[Span(2, 12, OBJECT)], *[[]] * 4], clip.tokenizer)
    found = attribution_table(Encoder(clip), five[0], alignment)
    assert list(found.method.unique()) == list(METHODS)
    for _, own in found[found.caption == 0].groupby("method"):
        assert list(own.position) == [1, 2, 3, 4, 5]
        assert list(own.word) == ["a", *["unicyclist"] * 4]
        assert list(own.role) == ["other", *["object"] * 4]
    found = attribution_table(Encoder(clip), *five, ["counterfactual"])
    assert len(found) and found.score.notna().all(), "of words that it scores"
    assert not (found.role == "other").any(), "which it does not replace"


def test_pictures_of_another_model_are_those_of_the_captions(clip, five):
    """Of every caption its own picture, by the picture's number, in the words of a new model."""
    other = load_clip(clip.name, seed=1)
    sample = word_sample(Encoder(clip), *five, limit=None)
    found = sample.with_images_of(Encoder(other), five[0])
    assert sample.pictures.tolist() == [2, 0, 0, 1], "the empty caption is left out"
    for row, number in enumerate(sample.pictures):
        pixels = other.preprocess(Image.open(five[0].image_paths[number]))[None]
        with torch.no_grad():
            expected = F.normalize(other.model.encode_image(pixels))[0]
        torch.testing.assert_close(found.image_features[row], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.tokens, sample.tokens) and found.captions is sample.captions


@pytest.fixture(scope="module")
def sample(clip, world_home):
    return captions_of(Encoder(clip), "smoke", LIMIT)


@pytest.fixture(scope="module")
def table(clip, world_home):
    return faithfulness.faithfulness_table(Encoder(clip), "smoke", LIMIT)


@pytest.fixture(scope="module")
def compared(clip, world_home):
    return faithfulness.sensitivity_table(Encoder(clip), "smoke", LIMIT)


def of(table, **columns):
    """The rows with these values, in their order."""
    for name, value in columns.items():
        table = table[table[name] == value]
    return table


def values(table, measure, **columns):
    return of(table, measure=measure, **columns).value.to_numpy()


def test_the_table_is_complete(table, sample):
    assert list(table) == list(ROW)
    areas = of(table, measure="area")
    assert set(areas.method) == {*METHODS, INTEGRATED, RANDOM}
    for _, own in areas.groupby(["method", "against"]):
        assert own.caption.tolist() == sample.captions.tolist() and len(own) == LIMIT
    agreement = of(table, measure="agreement").groupby(["method", "against"]).size()
    assert (agreement == LIMIT).all() and len(agreement) == 10
    assert values(table, "integration error").max() <= 0.01
    assert values(table, "integration points").min() >= 8


def test_attention_does_not_see_the_projection(table):
    randomised = of(table, measure="randomisation")
    stages = randomised.sort_values("place").against.unique()
    assert stages[0] == "projection" and stages[-1] == "embeddings"
    found = randomised.groupby(["method", "against"]).value.mean()
    assert found["attention", "projection"] == pytest.approx(1)
    assert max(found["attention", "blocks 4-1"], found["perturbation", "projection"]) < 0.9


def test_curves_start_and_end_where_they_must_and_mask_one_word_after_the_other(
    clip, sample, table
):
    ends = [values(table, "whole").mean(), values(table, "empty").mean()]
    for method, against in itertools.product(
        (*METHODS, INTEGRATED, RANDOM), ("deletion", "insertion")
    ):
        curve = values(table, "curve", method=method, against=against)
        expected = ends if against == "deletion" else ends[::-1]
        assert len(curve) == 11 and curve[[0, -1]] == pytest.approx(expected, abs=1e-5)
    for row, n in enumerate(sample.n_words):
        scores = sample.scores(clip.model, "gradient")[row, :n]
        places = (-scores).argsort(kind="stable").argsort()
        masked = places < np.arange(n + 1)[:, None]
        steps = sample.masked(clip.model, np.full(n + 1, row), masked)
        area = np.mean([(a + b) / 2 for a, b in itertools.pairwise(steps)])
        found = values(table, "area", method="gradient", against="deletion")[row]
        assert found == pytest.approx(area, abs=2e-5)


def test_the_random_curve_is_the_mean_of_two_orders():
    """Of a bag of five words and one of four: S is the sum of the weights that are left."""
    weights, n_words = np.array([[1.0, 2, 4, 8, 16], [1, 2, 4, 8, 0]]), np.array([5, 4])
    bag = SimpleNamespace(
        n_words=n_words,
        masked=lambda model, captions, masked, mask: np.where(masked, 0, weights[captions]).sum(
            axis=1
        ),
    )
    curves = faithfulness.score_curves(None, bag, {"own": weights})
    orders = [random_ranks(n_words, 5, seed) for seed in (0, 1)]
    assert (orders[0] != orders[1]).any(axis=1).all()
    left = [[(weights * (order >= k)).sum(axis=1) for k in range(6)] for order in orders]
    expected = np.where(np.arange(6) <= n_words[:, None], np.mean(left, axis=0).T, np.nan)
    np.testing.assert_allclose(curves[RANDOM, "deletion"], expected)
    np.testing.assert_array_equal(curves["own", "deletion"][0], [31, 15, 7, 3, 1, 0])


def test_the_example_has_every_role_and_its_own_scores(clip, sample, table):
    example = of(table, measure="example", method="attention")
    assert {"object", "attribute", "relation"} <= set(example.role) and len(example) <= 12
    row = sample.captions.tolist().index(example.caption.iloc[0])
    assert list(example.word) == sample.word_texts(row, clip.tokenizer)
    assert list(example.role) == sample.word_roles(row)
    assert example.place.tolist() == list(range(len(example)))
    attention = sample.scores(clip.model, "attention")[row, : len(example)]
    assert example.value.tolist() == pytest.approx(attention.tolist(), abs=1e-5)
    assert len(values(table, "example")) == 5 * len(example)


def test_sensitivity_compares_every_choice_and_each_differs_from_the_default(compared):
    for method, _, parameters in choices(12, "gelu"):
        assert (get_method(method, **parameters) == get_method(method)) == (not parameters)
    assert choices(12, "gelu")[-1][1] == "QuickGELU in place of GELU"
    for method in METHODS:
        own = of(compared, measure="correlation", method=method)
        assert own.choice.iloc[0] == "default" and own.value[:LIMIT].tolist() == [1.0] * LIMIT
        assert own.groupby("choice").value.mean().min() < 0.999
        assert own.choice.iloc[-1] == "GELU in place of QuickGELU"
        assert (own.groupby("choice").size() == LIMIT).all()
    areas = of(compared, measure="area")
    assert set(areas.choice) == {"zero", "token"} and set(areas.method) == {*METHODS, RANDOM}


@pytest.mark.parametrize("measure, roles", [("object", [1]), ("composition", [2, 3])])
def test_the_roles_of_a_choice_are_those_of_the_words(clip, sample, compared, measure, roles):
    found = values(compared, measure, method="attention", choice="default")
    scores = sample.token_scores(clip.model, "attention")
    for row in range(LIMIT):
        chosen = torch.isin(sample.roles[row], torch.tensor(roles))
        expected = float(scores[row][chosen].mean()) if chosen.any() else np.nan
        assert found[row] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_weights_with_the_other_activation_read_pictures_by_it(clip, world_home, compared):
    other = load_clip(clip.name, None, faithfulness.OTHER[clip.activation][0])
    other.model.load_state_dict(clip.model.state_dict())
    sample = captions_of(Encoder(other), "smoke", LIMIT)
    scores = sample.token_scores(other.model, "gradient")
    found = values(compared, "object", method="gradient", choice="GELU in place of QuickGELU")
    for row in range(LIMIT):
        objects = sample.roles[row] == OBJECT
        assert found[row] == pytest.approx(float(scores[row][objects].mean()), rel=1e-4)

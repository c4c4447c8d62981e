"""Attribution of one image and caption, and `cae attribute`: which weights it takes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lab import cli
from cae_lab.cli import main
from cae_lab.opening import find_model, model_opener
from cae_lab.profiles import load_profile
from cae_lib import config
from cae_lib.attribution.heatmap import image_relevances
from cae_lib.attribution.pair import attribute, word_roles
from cae_lib.data.images import read_image
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip, load_clip

CAPTION = "the cat is touching the elephant"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (130, 170, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def base(home: Path, tiny_clip: Clip) -> Path:
    path = load_profile("smoke").run("base").path
    return save_checkpoint(path, tiny_clip, CheckpointMeta("clip-mini", "quickgelu"))


def test_a_pair(tiny_clip: Clip, picture: Path) -> None:
    image = read_image(picture)
    found = attribute(tiny_clip, image, CAPTION, heatmap_start_layer=0)
    pixels, tokens = tiny_clip.preprocess(image)[None], tiny_clip.tokenizer([CAPTION])
    with torch.no_grad():
        text, features = tiny_clip.model.encode_text(tokens), tiny_clip.model.encode_image(pixels)
    expected = image_relevances(tiny_clip.model, pixels, text, (0,)).maps[0][0]
    np.testing.assert_allclose(found.relevance, expected / expected.sum(), rtol=1e-4)
    assert found.cosine == pytest.approx(float(F.cosine_similarity(text, features)), abs=1e-5)
    for table in (found.scores, found.shares):
        assert list(table.index) == CAPTION.split() and set(table) == set(PAPER_METHODS)


def test_a_pair_of_a_network_that_ends_in_attention_pooling(picture: Path) -> None:
    found = attribute(load_clip("clip-photo"), read_image(picture), CAPTION)
    assert found.relevance.shape == (7, 7) and found.relevance.min() >= 0
    assert found.relevance.sum() == pytest.approx(1) and found.relevance.std() > 0


def test_the_picture_is_what_the_model_saw(tiny_clip: Clip) -> None:
    image = Image.new("RGB", (200, 112), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 44, 112))  # cut away by the centre crop
    seen = attribute(tiny_clip, image, "a").image
    assert seen.shape == (112, 112, 3)
    np.testing.assert_allclose(seen[:, 1:], np.broadcast_to([1, 0, 0], (112, 111, 3)), atol=0.15)


def test_weights_by_run_file_and_tag(base: Path, tiny_clip: Clip, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain.pt")  # does not state its architecture
    torch.save(tiny_clip.model.state_dict(), plain)
    for clip in (
        model_opener(find_model("base", load_profile("smoke")))(),
        model_opener(find_model(str(base), load_profile("smoke")))(),
        model_opener(
            find_model(plain, load_profile("smoke"), model="clip-mini", activation="quickgelu")
        )(),
    ):
        assert torch.equal(clip.model.text_projection, tiny_clip.model.text_projection)
    for error, message, name, model in (
        (ConfigError, "plain.pt.*--model.*--activation", plain, None),
        (ConfigError, "no model 'openai': expected MODEL:TAG", "openai", None),
        (CheckpointError, "neither a file nor a tag", "opena", "ViT-B-32"),
        (CheckpointError, "train the model first", "clip-ft", None),
    ):
        with pytest.raises(error, match=message):
            model_opener(find_model(name, load_profile("smoke"), model=model))()


def test_words_have_their_roles(tiny_clip: Clip) -> None:
    assert word_roles(tiny_clip, "A red cat is chasing the dog") == [
        "other",
        "attribute",
        "object",
        "other",
        "relation",
        "other",
        "object",
    ]


def test_bad_input(tiny_clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no word"):
        attribute(tiny_clip, Image.new("RGB", (8, 8)), "  ")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text", "none"):
        with pytest.raises(DataError, match=rf"{name}\.png"):
            attribute(tiny_clip, tmp_path / f"{name}.png", "a cat")


def test_the_command(base: Path, picture: Path, tmp_path: Path, capsys) -> None:
    figure = tmp_path / "deep" / "out.png"
    twin = Path(shutil.copytree(base.parent, tmp_path / "twin"), base.name)  # of the same name
    weights = [word for name in ("base", base, twin) for word in ("--weights", str(name))]
    command = ["attribute", str(picture), CAPTION, *weights, "--profile", "smoke"]
    command += ["-o", str(figure)]
    assert main([*command, "--methods", "integrated_gradients, gradient"]) == 0
    printed = capsys.readouterr().out
    for title in ("clip-mini", "model", str(twin)):
        assert f"{title}: cosine" in printed
    assert "integrated gradients" in printed and "touching" in printed and "GradCAM" not in printed
    with Image.open(figure) as image:
        assert image.width > 1000
    for wrong, message in (
        (["--start-layer", "9"], "start_layer=9 does not fit"),
        (["--weights", "base"], "different ones"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_without_a_clone_the_error_says_where_weights_are(
    home, picture, capsys, monkeypatch
) -> None:
    for module in (cli, config):
        monkeypatch.setattr(module, "repository_root", lambda: None)
    assert main(["attribute", str(picture), CAPTION]) == 2
    message = capsys.readouterr().err
    assert "CAE_HOME" in message and "other --weights" in message
    assert main(["attribute", str(picture), CAPTION, "--weights", "no.safetensors"]) == 2
    assert "clone" not in capsys.readouterr().err

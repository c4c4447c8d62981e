"""Attribution of one image and caption, and `cae attribute`: which weights it takes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lab.cli import main
from cae_lab.opening import find_model, model_opener
from cae_lab.profiles import load_profile
from cae_lib.attribution.heatmap import image_relevances
from cae_lib.attribution.pair import attribute
from cae_lib.data.images import read_image
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip

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


def test_scores_map_and_cosine_of_a_pair(tiny_clip: Clip, picture: Path) -> None:
    image = read_image(picture)
    pair = attribute(tiny_clip, image, CAPTION, heatmap_start_layer=0)
    pixels, tokens = tiny_clip.preprocess(image)[None], tiny_clip.tokenizer([CAPTION])
    with torch.no_grad():
        text, features = tiny_clip.model.encode_text(tokens), tiny_clip.model.encode_image(pixels)
    expected = image_relevances(tiny_clip.model, pixels, text, (0,)).maps[0][0]
    np.testing.assert_allclose(pair.relevance, expected / expected.sum(), rtol=1e-4)
    assert pair.cosine == pytest.approx(float(F.cosine_similarity(text, features)), abs=1e-5)
    for table in (pair.scores, pair.shares):
        assert list(table.index) == CAPTION.split() and set(table) == set(PAPER_METHODS)


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


def test_inputs_that_are_no_picture_caption_or_model_are_refused(tiny_clip, tmp_path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text", "none"):
        with pytest.raises(DataError, match=rf"{name}\.png"):
            attribute(tiny_clip, tmp_path / f"{name}.png", "a cat")
    picture = Image.new("RGB", (32, 32))
    for model in (tiny_clip.model, None, "clip-mini"):
        with pytest.raises(ConfigError, match="load_clip"):
            attribute(model, picture, "a dog")
    for other in (np.asarray(picture), None, [picture]):
        with pytest.raises(DataError):
            attribute(tiny_clip, other, "a dog")
    for caption in (None, ["a dog"], "  "):
        with pytest.raises(DataError):
            attribute(tiny_clip, picture, caption)


def test_the_command_draws_a_figure_of_several_weights(base: Path, picture, tmp_path, capsys):
    figure = tmp_path / "deep" / "out.png"
    twin = Path(shutil.copytree(base.parent, tmp_path / "twin"), base.name)  # of the same name
    weights = [word for name in ("base", base, twin) for word in ("--weights", str(name))]
    command = ["attribute", str(picture), CAPTION, *weights, "--profile", "smoke"]
    command += ["-o", str(figure)]
    assert main([*command, "--methods", "integrated_gradients, gradient"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{title}: cosine" in printed for title in ("clip-mini", "model", str(twin)))
    assert "integrated gradients" in printed and "touching" in printed and "GradCAM" not in printed
    assert Image.open(figure).width > 1000
    assert main([*command, "--start-layer", "9"]) == main([*command, "--weights", "base"]) == 2
    message = capsys.readouterr().err
    assert "start_layer=9 does not fit" in message and "different ones" in message

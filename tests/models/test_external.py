"""Models of others: each source gives the weights and features that it was made from."""

import json
import re
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.push_to_hf_hub import save_for_hf
from PIL import Image
from torch import nn

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.evaluation.encoder import Encoder
from cae_lib.models import external
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.external import ExternalModel, load_external

CAPTIONS = ["a red dog", "the cat is next to a blue car"]
META = CheckpointMeta("clip-mini", "quickgelu")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("clip-mini", activation="quickgelu", seed=5)


@pytest.fixture
def picture(tmp_path: Path) -> ImageRef:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return ImageRef(tmp_path / "picture.png")


def save_folder(clip: Clip, folder: Path) -> None:
    """Write a model as open_clip's own function for the Hugging Face hub does."""
    settings = open_clip.get_model_config(clip.name) | {
        "quick_gelu": clip.activation == "quickgelu"
    }
    save_for_hf(clip.model, Mock(), settings, folder, safe_serialization=True)


def same(found: Clip, clip: Clip, picture: ImageRef) -> None:
    """Both give pictures and captions the same unit vectors."""
    encoders = Encoder(found), Encoder(clip)
    for ask in (lambda e: e.images([picture]), lambda e: e.texts(CAPTIONS)):
        first, second = map(ask, encoders)
        np.testing.assert_allclose(first, second, atol=2e-6)


def test_our_own_file_says_what_it_is_and_another_has_to_be_told(clip, tmp_path, picture):
    path = save_checkpoint(tmp_path / "own", clip, META)
    same(load_external(ExternalModel(str(path))), clip, picture)
    same(load_external(ExternalModel(str(path), "clip-mini")), clip, picture)
    with pytest.raises(CheckpointError, match="clip-mini"):
        load_external(ExternalModel(str(path), "ViT-B-32"))
    torch.save(clip.model.state_dict(), tmp_path / "plain.pt")
    found = load_external(ExternalModel(str(tmp_path / "plain.pt"), "clip-mini", "quickgelu"))
    assert (found.name, found.activation) == ("clip-mini", "quickgelu")
    same(found, clip, picture)


def test_what_a_file_does_not_say_has_to_be_given_and_every_tensor_has_its_place(clip, tmp_path):
    path = tmp_path / "weights.pt"
    state = dict(clip.model.state_dict())
    torch.save(state, path)
    asked = {
        (None, None): {"--model", "--activation"},
        ("clip-mini", None): {"--activation"},
        (None, "gelu"): {"--model"},
    }
    for (model, activation), options in asked.items():
        with pytest.raises(ConfigError, match="weights.pt") as caught:
            load_external(ExternalModel(str(path), model, activation))
        assert {*re.findall(r"--\w+", str(caught.value))} == options, "what is missing, alone"
    with pytest.raises(ConfigError, match="MODEL:TAG of open_clip"):
        load_external(ExternalModel("some-model"))
    for changed in (
        state | {"more": torch.ones(1)},
        state | {"attn_mask": torch.zeros(77, 77)},
        {k: v for k, v in state.items() if k != "visual.proj"},
    ):
        torch.save(changed, path)
        with pytest.raises(CheckpointError, match="weights.pt does not fit clip-mini"):
            load_external(ExternalModel(str(path), "clip-mini", "quickgelu"))
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_external(ExternalModel(str(path), "clip-mini", "quickgelu"))


def test_the_activation_is_read_from_a_folder_and_can_be_chosen(clip, tmp_path, picture, capsys):
    save_folder(clip, tmp_path / "export")
    for source in (str(tmp_path / "export"), f"local-dir:{tmp_path / 'export'}"):
        found = load_external(ExternalModel(source))
        assert found.activation == "quickgelu" and found.name == "export"
        same(found, clip, picture)
    other = load_external(ExternalModel(str(tmp_path / "export"), activation="gelu"))
    gelu = load_clip("clip-mini", activation="gelu", seed=5)
    assert other.activation == "gelu"
    same(other, gelu, picture)
    file = tmp_path / "export" / "open_clip_config.json"
    content = json.loads(file.read_text())
    del content["model_cfg"]["quick_gelu"]
    file.write_text(json.dumps(content))
    for activation, read in ((None, "gelu"), ("quickgelu", "quickgelu")):
        capsys.readouterr()
        found = load_external(ExternalModel(str(tmp_path / "export"), activation=activation))
        assert found.activation == read
        assert re.search(rf"quick_gelu: None.* {read}\n", capsys.readouterr().out)
    with pytest.raises(CheckpointError, match="cannot read local-dir:.*as open_clip's"):
        load_external(ExternalModel(f"local-dir:{tmp_path}"))


def test_a_file_with_adapters_is_a_model(clip, tmp_path, picture):
    state = {f"module.{k}": v for k, v in clip.model.state_dict().items()}
    name = next(name for name in state if name.endswith("mlp.c_fc.weight"))
    rows, columns = state[name].shape
    down, up = torch.randn(4, columns), torch.randn(rows, 4)
    state |= {name.replace("weight", "lora_A"): down, name.replace("weight", "lora_B"): up}
    torch.save({"state_dict": state}, tmp_path / "lora.pt")
    found = load_external(ExternalModel(str(tmp_path / "lora.pt"), "clip-mini", "quickgelu"))
    change = found.model.state_dict()[name.removeprefix("module.")] - state[name]
    torch.testing.assert_close(change, up @ down / 4)


def test_weights_are_mixed_with_the_start_and_a_shorter_context_is_kept(
    clip, tmp_path, picture, monkeypatch
):
    state = dict(clip.model.state_dict())
    state["positional_embedding"] = state["positional_embedding"][:12]
    torch.save(state, tmp_path / "short.pt")
    how = ExternalModel(str(tmp_path / "short.pt"), "clip-mini", "quickgelu")
    found = load_external(how)
    assert found.tokenizer(CAPTIONS).shape == (2, 12)
    same(found, clip, picture)  # the tower is causal: these captions do not reach the end
    monkeypatch.setattr(external, "START", ("clip-mini", None))
    start = load_clip("clip-mini", None, "quickgelu").model.state_dict()
    mixed = load_external(ExternalModel(how.source, how.model, how.activation, share=0.6))
    for name, value in mixed.model.state_dict().items():
        if value.is_floating_point():
            begun = start[name][:12] if name == "positional_embedding" else start[name]
            torch.testing.assert_close(value, 0.6 * state[name] + 0.4 * begun)


def save_hugging_face(kind: str, folder: Path) -> nn.Module:
    """A tiny random CLIP or SigLIP of transformers with tokenizer and preprocessing, on disk."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    names = ["<pad>", "<s>", "</s>", *sorted({w for c in CAPTIONS for w in c.split()})]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<pad>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
    }
    text = sizes | {
        "vocab_size": len(names),
        "max_position_embeddings": 16,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "projection_size": 16,
    }
    vision = sizes | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        made = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        made = transformers.SiglipModel(config)
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_of_transformers_gives_its_own_features(tmp_path, picture, kind):
    transformers = pytest.importorskip("transformers")
    model = save_hugging_face(kind, tmp_path / "hub")
    found = load_external(ExternalModel(str(tmp_path / "hub")))
    assert found.activation == ("quickgelu" if kind == "clip" else "gelu")
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "hub")(
        CAPTIONS, padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hub")
    pixels = processor(Image.open(picture.path).convert("RGB"), return_tensors="pt").pixel_values
    with torch.no_grad():
        texts, images = (
            getattr(out, "pooler_output", out)
            for out in (
                model.get_text_features(input_ids=tokens),
                model.get_image_features(pixel_values=pixels),
            )
        )
    encoder = Encoder(found)
    np.testing.assert_allclose(encoder.texts(CAPTIONS), F.normalize(texts, dim=-1), atol=1e-5)
    cosine = (encoder.images([picture]) * F.normalize(images, dim=-1).numpy()).sum()
    assert cosine > 0.999  # resized by Pillow here and by torchvision there
    other = load_external(ExternalModel(f"hf:{tmp_path / 'hub'}", activation="gelu"))
    assert other.activation == "gelu"
    assert (np.abs(Encoder(other).texts(CAPTIONS) - encoder.texts(CAPTIONS)).max() > 0) == (
        kind == "clip"
    )


def save_without_files(folder: Path) -> nn.Module:
    """A tiny CLIP of transformers with OpenAI's vocabulary, of which its files say nothing."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
    }
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=sizes | {"vocab_size": 49_408},
            vision_config=sizes | {"image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
    )
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    return model.eval()


def test_a_clip_without_files_takes_openais_tokenizer_and_preprocessing(tmp_path, picture, capsys):
    model = save_without_files(tmp_path / "hub")
    found = load_external(ExternalModel(str(tmp_path / "hub")))
    told = capsys.readouterr().out
    assert "no tokenizer" in told and "no preprocessing" in told
    ids = torch.tensor([[49406, 320, 736, 1929] + [49407] * 73])  # of "a red dog" in OpenAI's
    opened = Image.open(picture.path).convert("RGB")
    pixels = open_clip.image_transform(32, is_train=False)(opened).unsqueeze(0)
    with torch.no_grad():
        text, image = (
            getattr(out, "pooler_output", out)
            for out in (
                model.get_text_features(input_ids=ids),
                model.get_image_features(pixel_values=pixels),
            )
        )
    encoder = Encoder(found)
    np.testing.assert_allclose(encoder.texts(["A red  dog"]), F.normalize(text, dim=-1), atol=1e-6)
    np.testing.assert_allclose(encoder.images([picture]), F.normalize(image, dim=-1), atol=1e-6)


def test_a_tokenizer_that_does_not_fit_is_refused_unless_another_is_named(clip, tmp_path, picture):
    pytest.importorskip("transformers")
    save_hugging_face("clip", tmp_path / "whole")
    save_hugging_face("clip", tmp_path / "bare")
    whole = load_external(ExternalModel(str(tmp_path / "whole")))
    for path in (tmp_path / "bare").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(CheckpointError, match="bare"):
        load_external(ExternalModel(str(tmp_path / "bare")))
    named = ExternalModel(str(tmp_path / "bare"), processor=str(tmp_path / "whole"))
    same(load_external(named), whole, picture)
    save_without_files(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="13 tokens and the model 49,408"):
        load_external(ExternalModel(str(tmp_path / "clip"), processor=str(tmp_path / "whole")))
    save_folder(clip, tmp_path / "whole")  # and open_clip, with that tokenizer
    file = tmp_path / "whole" / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "its/own"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="13 tokens and the model 49,408"):
        load_external(ExternalModel(str(tmp_path / "whole")))
    with pytest.raises(ConfigError, match="no other processor"):
        load_external(ExternalModel("ViT-B-32:openai", processor="x"))


def test_what_is_no_model_of_transformers_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="cannot read .* as a model of transformers"):
        load_external(ExternalModel(f"hf:{tmp_path}"))

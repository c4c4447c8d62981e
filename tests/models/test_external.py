"""Models of others: each source gives the weights and features that it was made from."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.push_to_hf_hub import save_for_hf
from PIL import Image
from torch import Tensor, nn

from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import Encoder
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models import external
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.external import ExternalModel, load_external

CAPTIONS = ["a red dog", "the cat is next to a blue car"]
META = CheckpointMeta("clip-mini", "quickgelu")
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
IMAGE = {"image_size": 32, "patch_size": 16}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("clip-mini", activation="quickgelu", seed=5)


@pytest.fixture
def image(tmp_path: Path) -> ImageRef:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return ImageRef(tmp_path / "image.png")


def load(source: Path | str, *args, **options) -> Clip:
    return load_external(ExternalModel(str(source), *args, **options))


def save_folder(clip: Clip, folder: Path, **text_settings: str) -> None:
    """Write a model as open_clip's own function for the Hugging Face hub does."""
    settings = open_clip.get_model_config(clip.name)
    settings["quick_gelu"] = clip.activation == "quickgelu"
    settings["text_cfg"] |= text_settings
    save_for_hf(clip.model, Mock(), settings, folder, safe_serialization=True)


def assert_same(actual: Clip, expected: Clip, image: ImageRef) -> None:
    """Check that both give the image and the captions the same unit vectors."""
    ours, theirs = Encoder(actual), Encoder(expected)
    np.testing.assert_allclose(
        ours.encode_images([image]), theirs.encode_images([image]), atol=2e-6
    )
    np.testing.assert_allclose(
        ours.encode_texts(CAPTIONS), theirs.encode_texts(CAPTIONS), atol=2e-6
    )


def test_a_file_of_this_library_names_its_model_and_others_need_options(clip, tmp_path, image):
    path = save_checkpoint(tmp_path / "ours", clip, META)
    plain = tmp_path / "plain.pt"
    torch.save(clip.model.state_dict(), plain)
    for loaded in (load(path), load(plain, "clip-mini", "quickgelu")):
        assert (loaded.name, loaded.activation) == ("clip-mini", "quickgelu")
        assert_same(loaded, clip, image)
    for error, message, *arguments in (
        (CheckpointError, "clip-mini", path, "ViT-B-32"),
        (CheckpointError, "trained with quickgelu", path, "clip-mini", "gelu"),
        (ConfigError, "--model", plain, None, "gelu"),
        (ConfigError, "--activation", plain, "clip-mini"),
        (ConfigError, "relu", plain, "clip-mini", "relu"),
        (ConfigError, "MODEL:TAG of open_clip", "some-model"),
    ):
        with pytest.raises(error, match=message):
            load(*arguments)
    with pytest.raises(ConfigError, match="share"):
        load("ViT-B-32:openai", weights_share=0.6)


def lora(state: dict[str, Tensor], rank: int = 4) -> dict[str, Tensor]:
    """Add adapters of one layer, as CE-CLIP's files have them."""
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    rows, columns = state[name].shape
    down, up = torch.ones(rank, columns), torch.ones(rows, rank) / 100
    state |= {name.replace("weight", "lora_A"): down, name.replace("weight", "lora_B"): up}
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}}


def test_a_file_with_adapters_is_a_model(clip, tmp_path):
    torch.save(lora(dict(clip.model.state_dict())), tmp_path / "lora.pt")
    merged = load(tmp_path / "lora.pt", "clip-mini", "quickgelu").model.state_dict()
    change = merged["transformer.resblocks.0.mlp.c_fc.weight"]
    change = change - clip.model.state_dict()["transformer.resblocks.0.mlp.c_fc.weight"]
    torch.testing.assert_close(change, torch.full_like(change, 0.01))


def not_finite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["visual.proj"] = state["visual.proj"].clone()
    state["visual.proj"][3, 5] = torch.nan
    return state


MISFITS = {
    "another tensor": (lambda s: s | {"more": torch.ones(1)}, "does not fit clip-mini"),
    "a mask": (lambda s: s | {"attn_mask": torch.zeros(77, 77)}, "does not fit clip-mini"),
    "one too few": (
        lambda s: {name: value for name, value in s.items() if name != "visual.proj"},
        "does not fit clip-mini",
    ),
    "not finite": (not_finite, "1 of the .* numbers of visual.proj"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_refused(change, message, clip, tmp_path) -> None:
    torch.save(change(dict(clip.model.state_dict())), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=f"weights.pt.* {message}"):
        load(tmp_path / "weights.pt", "clip-mini", "quickgelu")


def test_folders_that_hold_no_usable_model_are_refused(clip, tmp_path):
    """Without weights open_clip would give random ones."""
    transformers = pytest.importorskip("transformers")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_folder(clip, ours)
    model = save_hugging_face("clip", theirs)
    model.text_model.final_layer_norm.bias.data[0] = torch.inf
    model.save_pretrained(theirs)
    with pytest.raises(CheckpointError, match="theirs: 1 of the .*final_layer_norm.bias"):
        load(theirs)
    for folder in (ours, theirs):
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="cannot read"):
            load(folder)
    for path in ours.glob("open_clip_model.*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load(ours)
    (tmp_path / "any").mkdir()
    with pytest.raises(CheckpointError, match="cannot read .* as a model of transformers"):
        load(f"hf:{tmp_path / 'any'}")
    transformers.Siglip2Config().save_pretrained(tmp_path / "any")  # takes images of any size
    with pytest.raises(CheckpointError, match="siglip2"):
        load(f"hf:{tmp_path / 'any'}")


def test_the_activation_is_read_from_a_folder_and_can_be_chosen(clip, tmp_path, image):
    folder = tmp_path / "export"
    save_folder(clip, folder)
    for source in (folder, f"local-dir:{folder}"):
        actual = load(source)
        assert (actual.activation, actual.name) == ("quickgelu", "export")
        assert_same(actual, clip, image)
    other = load(folder, activation="gelu")
    assert other.activation == "gelu"
    assert_same(other, load_clip("clip-mini", activation="gelu", seed=5), image)
    file = folder / "open_clip_config.json"
    content = json.loads(file.read_text())
    del content["model_cfg"]["quick_gelu"]
    file.write_text(json.dumps(content))
    assert load(folder).activation == "gelu"
    with pytest.raises(CheckpointError, match="cannot read local-dir:.*as open_clip's"):
        load(f"local-dir:{tmp_path}")


def test_weights_are_mixed_with_the_start_and_a_shorter_context_is_kept(
    clip, tmp_path, image, monkeypatch
):
    state = dict(clip.model.state_dict())
    state["positional_embedding"] = state["positional_embedding"][:12]
    path = tmp_path / "short.pt"
    torch.save(state, path)
    actual = load(path, "clip-mini", "quickgelu")
    assert actual.tokenizer(CAPTIONS).shape == (2, 12)
    assert_same(actual, clip, image)  # the tower is causal: these captions do not reach the end
    monkeypatch.setattr(external, "OPENAI_WEIGHTS", ("clip-mini", None))
    start = load_clip("clip-mini", None, "quickgelu").model.state_dict()
    start["positional_embedding"] = start["positional_embedding"][:12]
    mixed = load(path, "clip-mini", "quickgelu", weights_share=0.6)
    for name, value in mixed.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.6 * state[name] + 0.4 * start[name])
    torch.save(state | {"extra.weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="short.pt"):
        load(path, "clip-mini", "quickgelu", weights_share=0.6)


def save_hugging_face(kind: str, folder: Path) -> nn.Module:
    """Write a tiny random CLIP or SigLIP of transformers with tokenizer and preprocessing."""
    transformers, tokenizers = map(pytest.importorskip, ("transformers", "tokenizers"))
    names = ["<pad>", "<s>", "</s>", *sorted({w for c in CAPTIONS for w in c.split()})]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<pad>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>"
    )
    text = SIZES | {"num_hidden_layers": 2, "vocab_size": len(names), "projection_size": 16}
    text |= {"max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    configs = {"text_config": text, "vision_config": SIZES | IMAGE | {"num_hidden_layers": 2}}
    torch.manual_seed(0)
    if kind == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(projection_dim=8, **configs))
        sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor = transformers.CLIPImageProcessor(**sizes)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(**configs))
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    for part in (tokenizer, model, processor):
        part.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
def own_features(model: nn.Module, tokens: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit vectors of texts and images by a model of transformers."""
    outputs = (
        model.get_text_features(input_ids=tokens),
        model.get_image_features(pixel_values=pixels),
    )
    texts, images = (getattr(output, "pooler_output", output) for output in outputs)
    return F.normalize(texts, dim=-1), F.normalize(images, dim=-1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_of_transformers_gives_its_own_features(tmp_path, image, kind):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "hub"
    model = save_hugging_face(kind, folder)
    actual = load(folder)
    assert actual.activation == ("quickgelu" if kind == "clip" else "gelu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(CAPTIONS, padding="max_length", max_length=16, return_tensors="pt")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(Image.open(image.path).convert("RGB"), return_tensors="pt").pixel_values
    texts, images = own_features(model, tokens.input_ids, pixels)
    encoder = Encoder(actual)
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS), texts, atol=1e-5)
    cosine = (encoder.encode_images([image]) * images.numpy()).sum()
    assert cosine > 0.999  # resized by Pillow here and by torchvision there
    other = load(f"hf:{folder}", activation="gelu")
    assert other.activation == "gelu"
    change = np.abs(Encoder(other).encode_texts(CAPTIONS) - encoder.encode_texts(CAPTIONS)).max()
    assert (change > 0) == (kind == "clip")


def save_without_files(folder: Path) -> nn.Module:
    """Write a tiny CLIP of transformers with OpenAI's vocabulary, without tokenizer files."""
    transformers = pytest.importorskip("transformers")
    text, vision = SIZES | {"num_hidden_layers": 1, "vocab_size": 49_408}, SIZES | IMAGE
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision | {"num_hidden_layers": 1}, projection_dim=8
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    model.save_pretrained(folder)
    return model.eval()


def test_a_clip_without_files_takes_openais_tokenizer_and_preprocessing(tmp_path, image):
    model = save_without_files(tmp_path / "hub")
    ids = torch.tensor([[49406, 320, 736, 1929] + [49407] * 73])  # of "a red dog" in OpenAI's
    opened = Image.open(image.path).convert("RGB")
    pixels = open_clip.image_transform(32, is_train=False)(opened).unsqueeze(0)
    texts, images = own_features(model, ids, pixels)
    encoder = Encoder(load(tmp_path / "hub"))
    np.testing.assert_allclose(encoder.encode_texts(["A red  dog"]), texts, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_images([image]), images, atol=1e-6)


def test_a_tokenizer_of_another_vocabulary_is_refused(clip, tmp_path, image):
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    for folder in (whole, bare):
        save_hugging_face("clip", folder)
    for path in {*bare.iterdir()} - {bare / "config.json", bare / "model.safetensors"}:
        path.unlink()
    with pytest.raises(CheckpointError, match="bare"):
        load(bare)
    assert_same(load(bare, processor=str(whole)), load(whole), image)
    save_without_files(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="13 tokens and the model 49,408"):
        load(tmp_path / "clip", processor=str(whole))
    save_folder(clip, whole, hf_tokenizer_name="its/own")  # of open_clip, with that tokenizer
    with pytest.raises(CheckpointError, match="13 tokens and the model 49,408"):
        load(whole)
    with pytest.raises(ConfigError, match="no other processor"):
        load("ViT-B-32:openai", processor="x")

"""Models of others: each source gives the weights and features that it was made from."""

import copy
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


def test_a_file_of_this_library_says_what_it_is_and_another_has_to_be_told(clip, tmp_path, image):
    path = save_checkpoint(tmp_path / "ours", clip, META)
    assert_same(load(path), clip, image)
    with pytest.raises(CheckpointError, match="clip-mini"):
        load(path, "ViT-B-32")
    assert_same(load(path, "clip-mini", "quickgelu"), clip, image)
    with pytest.raises(CheckpointError, match="trained with quickgelu"):
        load(path, "clip-mini", "gelu")
    torch.save(clip.model.state_dict(), tmp_path / "plain.pt")
    actual = load(tmp_path / "plain.pt", "clip-mini", "quickgelu")
    assert (actual.name, actual.activation) == ("clip-mini", "quickgelu")
    assert_same(actual, clip, image)
    for model, activation, option in (
        (None, "gelu", "--model"),
        ("clip-mini", None, "--activation"),
    ):
        with pytest.raises(ConfigError, match=option):
            load(tmp_path / "plain.pt", model, activation)
    with pytest.raises(ConfigError, match="MODEL:TAG of open_clip"):
        load("some-model")
    with pytest.raises(ConfigError, match="relu"):
        load(tmp_path / "plain.pt", "clip-mini", "relu")
    with pytest.raises(ConfigError, match="share"):
        load("ViT-B-32:openai", weights_share=0.6)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"more": torch.ones(1)},
        lambda state: state | {"attn_mask": torch.zeros(77, 77)},
        lambda state: {k: v for k, v in state.items() if k != "visual.proj"},
    ],
)
def test_every_tensor_of_a_file_has_its_place(change, clip, tmp_path) -> None:
    torch.save(change(dict(clip.model.state_dict())), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="weights.pt does not fit clip-mini"):
        load(tmp_path / "weights.pt", "clip-mini", "quickgelu")


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


def test_a_folder_without_weights_is_not_loaded_with_random_ones(clip, tmp_path):
    save_folder(clip, tmp_path)
    for file in tmp_path.glob("open_clip_model.*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load(tmp_path)


def test_damaged_weights_of_a_folder_are_an_error_of_the_checkpoint(clip, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_folder(clip, ours)
    save_hugging_face("clip", theirs)
    for folder in (ours, theirs):
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="cannot read"):
            load(folder)
    save_hugging_face("clip", theirs)
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(config | {"projection_dim": 12}))
    with pytest.raises(CheckpointError, match="cannot read"):
        load(theirs)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("form", ["safetensors", "pt", "folder", "transformers", "tag"])
def test_weights_with_one_number_that_is_not_finite_are_refused(
    form, value, clip, tmp_path, monkeypatch
):
    """The message names the file, folder or tag and the tensor."""
    broken, source = copy.deepcopy(clip), tmp_path / "broken"
    name, options = "transformer.resblocks.0.mlp.c_fc.weight", ()
    broken.model.get_parameter(name).data[3, 5] = value
    if form == "safetensors":
        source = save_checkpoint(source, broken, META)
    elif form == "pt":
        source = source.with_suffix(".pt")
        torch.save(broken.model.half().state_dict(), source)
        options = ("clip-mini", "quickgelu")
    elif form == "folder":
        save_folder(broken, source)
    elif form == "tag":
        created = broken.model, None, broken.preprocess
        monkeypatch.setattr(open_clip, "create_model_and_transforms", lambda *_, **__: created)
        source = "ViT-B-32:openai"
    else:
        model, name = save_hugging_face("clip", source), "text_model.final_layer_norm.bias"
        model.get_parameter(name).data[0] = value
        model.save_pretrained(source)
    with pytest.raises(CheckpointError, match=f"{source}: 1 of the .* numbers of {name}"):
        load(source, *options)


def test_a_file_with_adapters_is_a_model(clip, tmp_path):
    state = {f"module.{name}": value for name, value in clip.model.state_dict().items()}
    name = next(name for name in state if name.endswith("mlp.c_fc.weight"))
    rows, columns = state[name].shape
    down, up = torch.randn(4, columns), torch.randn(rows, 4)
    state |= {name.replace("weight", "lora_A"): down, name.replace("weight", "lora_B"): up}
    torch.save({"state_dict": state}, tmp_path / "lora.pt")
    actual = load(tmp_path / "lora.pt", "clip-mini", "quickgelu").model.state_dict()
    torch.testing.assert_close(actual[name.removeprefix("module.")] - state[name], up @ down / 4)


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


def test_a_model_for_images_of_any_size_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="siglip2"):
        load(f"hf:{tmp_path}")


def save_hugging_face(kind: str, folder: Path) -> nn.Module:
    """Write a tiny random CLIP or SigLIP of transformers with tokenizer and preprocessing."""
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
    text = SIZES | {"num_hidden_layers": 2, "vocab_size": len(names), "projection_size": 16}
    text |= {"max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = SIZES | {"num_hidden_layers": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model = transformers.SiglipModel(config)
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
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
    text = SIZES | {"num_hidden_layers": 1, "vocab_size": 49_408}
    vision = SIZES | {"num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
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


def test_a_tokenizer_that_does_not_fit_is_refused_unless_another_is_named(clip, tmp_path, image):
    pytest.importorskip("transformers")
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    save_hugging_face("clip", whole)
    save_hugging_face("clip", bare)
    for path in bare.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
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


def test_what_is_no_model_of_transformers_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="cannot read .* as a model of transformers"):
        load(f"hf:{tmp_path}")

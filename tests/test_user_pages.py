"""What users copy: `use-it` runs and trains as a plain loop would; the commands of `paper-scale`
exist, and fetch what the tables need; README's lines give the book's numbers."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import open_clip
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import REPOSITORY
from PIL import Image
from torch import Tensor, nn
from toys import FT, toy_clip, toy_run

from book.extension.provenance import Provenance
from book.extension.source import read_page
from cae_lab.cli import cae
from cae_lab.profiles import PROFILES, load_profile
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.training.losses import CAELoss
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION

PAGE = REPOSITORY / "book" / "experiments" / "use-it.md"
SCALE = PAGE.with_name("paper-scale.md")
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"```sh\n(.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if not line.startswith("make ")]
SMALL = {"profile": "smoke", "pictures": 8, "batch_size": 4, "epochs": 2}
CAPTIONS = ["a red cat chases a dog", "a small bird on a tree"]


def _cells() -> list[Any]:
    return [cell for cell in read_page(PAGE).cells if cell.cell_type == "code"]


def _run(old: str = "", new: str = "", **parameters: Any) -> dict[str, Any]:
    """Execute the page's code cells in one namespace, with a line replaced, other parameters."""
    namespace: dict[str, Any] = {}
    for cell in _cells():
        exec(compile(cell.source.replace(old, new), PAGE.name, "exec"), namespace)
        if "parameters" in cell.metadata.get("tags", []):
            assert set(parameters) <= set(namespace)
            namespace.update(parameters)
    return namespace


def _fenced(mark: str, **names: Any) -> dict[str, Any]:
    """Execute the one block of the page's text that holds `mark`, among these names."""
    (block,) = (text for text in FENCED.findall(PAGE.read_text(encoding="utf-8")) if mark in text)
    exec(block.replace("per_device_train_batch_size=8", "**options"), names)
    return names


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The namespace of the page after a short run."""
    return _run(**SMALL)


def test_the_page_runs_from_start_to_end(page: dict) -> None:
    assert len(page["history"]) == 4 and (page["found"]["object"] != "").all()
    assert all(torch.tensor(list(line.values())).isfinite().all() for line in page["history"])
    assert min(line["n_objects"] for line in page["history"]) > 0
    assert isinstance(page["provenance"]("use-it", page), Provenance)


def _itc(model: nn.Module, images: Tensor, texts: Tensor) -> Tensor:
    logits = model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def test_the_page_s_loop_adds_the_attribution_loss_to_clip_s(page: dict) -> None:
    """The page's own lines, in float64; the losses themselves have oracles of their own."""
    model = load_clip("clip-mini", page["weights"]).model.double()
    words = page["words"].take(torch.arange(4))
    options = {"model": model, "weight": 3.0, "batch_size": 4, "epochs": 1, "words": words}
    namespace = page | options | {"images": page["images"][:4].double()}
    (loop,) = [cell.source for cell in _cells() if "loss.backward()" in cell.source]
    exec(loop.replace("shuffle=True", "shuffle=False").replace("lr=1e-4", "lr=0.0"), namespace)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert namespace["history"][0]["attribution"] > 0.01
    model.zero_grad()
    images = model.encode_image(namespace["images"], normalize=True)
    attribution = CAELoss(model, page["method"], weight=3.0)
    output = attribution(images, words.tokens, words.roles, words.words)
    loss = _itc(model, images, model.encode_text(words.tokens)) + output.loss
    loss.backward()
    torch.testing.assert_close(namespace["loss"].detach(), loss.detach(), atol=1e-10, rtol=0)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients, expected, atol=1e-9, rtol=1e-7)


def test_spans_of_ones_own(page: dict) -> None:
    words = _fenced("Span(", **page)["own_words"]
    expected = [OTHER, OTHER, ATTRIBUTE, OBJECT, RELATION, OTHER, OBJECT, OTHER]
    assert words.roles[0, :8].tolist() == expected and words.n_unmatched == 0
    assert page["tokenizer"](CAPTIONS[:1]).equal(words.tokens)


def test_the_block_on_several_gpus(page: dict, tmp_path: Path) -> None:
    """In a group of one process, the block's gradients are those of the plain lines."""
    model = page["model"]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model.zero_grad()
        names = _fenced("DistributedDataParallel(", **page)
    finally:
        dist.destroy_process_group()
    gradient = model.positional_embedding.grad.clone()
    model.zero_grad()
    step = names["Step"](model, names["attribution"], open_clip.ClipLoss())
    step(*(page[name] for name in ("pixels", "tokens", "roles", "numbers"))).backward()
    torch.testing.assert_close(gradient, model.positional_embedding.grad, atol=1e-6, rtol=1e-5)


def test_a_method_of_ones_own(page: dict) -> None:
    names = _fenced("class Share", **page)
    images = page["model"].encode_image(page["pixels"], normalize=True)
    output = names["attribution"](images, page["tokens"], page["roles"])
    plain = names["cae"].get_method("gradient")(page["model"], page["tokens"], images.detach())
    shares = plain.scores / plain.scores.sum(1, keepdim=True)
    roles = page["roles"][:, : shares.shape[1]]
    both = ((roles == 1).any(1) & (roles >= 2).any(1)).unsqueeze(1)
    torch.testing.assert_close(output.objects, shares[both & (roles == 1)].mean())


def test_the_block_on_false_captions_is_the_book_s_run(page: dict) -> None:
    """Its hinge is that of a training step with the settings of `hinge-negclip`."""
    images = page["model"].encode_image(page["images"], normalize=True)
    names = page | {"tokens": page["words"].tokens, "image_features": images}
    names = _fenced("def margin_loss(", **names)
    first = [texts[0] for texts in names["negatives"] if texts]
    assert first == [names["negatives"][row][0] for row in names["owners"]]
    assert len(first) == len(names["negative_tokens"]) > 0 and names["hinge"] > 0
    itc = _itc(page["model"], images, names["texts"]).item()
    assert names["loss"].item() == pytest.approx(itc + names["hinge"].item(), abs=1e-6)
    run = toy_run(replace(FT, **PROFILES["mini"].runs["hinge-negclip"], batch_size=8))
    batch, model = run.batches.at(0), toy_clip().model
    images = model.encode_image(batch.image_inputs, normalize=True)
    inputs = batch.tokens, batch.negatives, batch.caption_of_negative
    _, hinge = names["margin_loss"](model, images, *inputs)
    assert hinge.item() == pytest.approx(run.step(0, batch)["attribution"], rel=1e-4)


def test_the_trainer_of_hugging_face(page: dict, tmp_path: Path, monkeypatch) -> None:
    """One epoch moves both towers; the loss is that of the plain lines."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    small |= {"num_hidden_layers": 1, "projection_dim": 8}
    text = small | {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = small | {"image_size": 112, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    clip = transformers.CLIPModel(config)
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    options = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "report_to": []}
    options |= {"use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    names = _fenced(
        "class ClipWithCae", **page | {"clip": clip, "options": options, "method": "gradient"}
    )
    for name in ("visual_projection.weight", "text_model.embeddings.token_embedding.weight"):
        assert not torch.equal(clip.state_dict()[name], before[name]), name
    batch = torch.utils.data.default_collate(names["rows"][:4])
    trained = names["trainer"].model
    images = clip.get_image_features(batch["pixel_values"]).pooler_output
    texts = clip.get_text_features(batch["input_ids"]).pooler_output
    attribution = trained.cae(F.normalize(images, dim=-1), *[*batch.values()][1:]).loss
    expected = _itc(clip, images, texts) + attribution
    torch.testing.assert_close(trained(**batch)["loss"], expected)


def test_the_lines_for_open_clips_own_training(page: dict, monkeypatch) -> None:
    """The block's objects, given what `open_clip_train/main.py` holds at that place."""
    flags = {"local_loss": False, "gather_with_grad": False}
    arguments = SimpleNamespace(rank=0, world_size=1, accum_freq=2, **flags)
    names = _fenced("CAEClipLoss(", **page | {"args": arguments, "method": "gradient"})
    packed = names["role_tokenizer"](CAPTIONS)
    losses = names["loss"](**names["model"].train()(page["pixels"][:2], packed), output_dict=True)
    assert set(losses) == {"contrastive_loss", "attribution_loss"}
    after = SimpleNamespace(CLIPTask=lambda model, *, loss: (model, loss))  # is not in 3.3
    monkeypatch.setitem(sys.modules, "open_clip.task", after)
    assert _fenced("CLIPTask(", **names)["task"] == (names["model"], names["loss"])


def test_the_api_s_examples_run_in_order_and_it_lists_all_public_names() -> None:
    names: dict[str, Any] = {}
    text = (REPOSITORY / "book" / "api.md").read_text(encoding="utf-8")
    for block in FENCED.findall(text):
        exec(block, names)
    for package in ("cae_lib", "cae_bench", "cae_lab"):
        documented = {*re.findall(rf"auto\w+:: {package}\.(\w+)$", text, re.MULTILINE)}
        assert documented == {*importlib.import_module(package).__all__}


def test_open_clip_publishes_and_loads_a_run(tmp_path: Path, monkeypatch) -> None:
    """The page's recipe, with a folder in the place of the hub."""

    def save(model: nn.Module, tokenizer: Any, settings: dict, name: str) -> None:
        push.save_for_hf(model, Mock(), settings, tmp_path / name, safe_serialization=True)

    push = importlib.import_module("open_clip.push_to_hf_hub")
    monkeypatch.setattr(push, "push_to_hf_hub", save)
    monkeypatch.chdir(tmp_path)
    clip = load_clip("clip-mini", activation="gelu", seed=3)
    file = tmp_path / "data/checkpoints/mini/clip-ft/0/model.safetensors"
    save_checkpoint(file, clip, CheckpointMeta("clip-mini", "gelu"))
    (recipe,) = (
        text for text in FENCED.findall(PAGE.read_text("utf-8")) if "push_to_hf_hub" in text
    )
    exec(recipe, {})
    tokens, pixels = clip.tokenizer(["a red dog"]), torch.rand(1, 3, 112, 112)
    folder = f"local-dir:{tmp_path / 'OWNER' / 'NAME'}"
    loaded, _, preprocess = open_clip.create_model_and_transforms(folder)
    direct = open_clip.create_model("clip-mini", str(file), quick_gelu=False)
    for model in (loaded.eval(), direct.eval()):
        for feed, features in (("encode_text", tokens), ("encode_image", pixels)):
            ours = getattr(clip.model, feed)(features)
            torch.testing.assert_close(getattr(model, feed)(features), ours, atol=1e-6, rtol=0)
    assert torch.equal(open_clip.get_tokenizer(folder)(["a red dog"]), tokens)
    image = Image.effect_noise((140, 120), 80).convert("RGB")
    assert torch.equal(preprocess(image), clip.preprocess(image))


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command of `cae` that some words call, and its parameters."""
    name, *rest = words
    return name, cae.commands[name].make_context(name, rest).params


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str, tmp_path: Path) -> None:
    words = shlex.split(line, comments=True)
    if words[0].endswith("snakemake"):
        called = [sys.executable, "-m", "snakemake", *words[1:], "runs=clip-ft", "seeds=1"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CAE_HOME": str(tmp_path)}
        subprocess.run(called, cwd=REPOSITORY, check=True, capture_output=True, env=environment)
        return
    start = words.index("cae_lab.cli") if words[0] == "torchrun" else 0
    name, parameters = parse(words[start + 1 :])
    assert parameters.get("profile", "paper") == "paper"
    if name == "train":
        assert parameters["name"] in PROFILES["paper"].runs


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_one_call_of_make_trains_and_measures_a_row() -> None:
    line = "make row NAME=cae-attention SEED=0 PROFILE=paper"
    dry = [*shlex.split(line), "-n", "-C", str(REPOSITORY)]
    planned = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    calls = [shlex.split(text)[1:] for text in planned.splitlines() if "/cae " in text]
    parsed = [parse(words) for words in calls]
    assert [name for name, _ in parsed] == ["train", "evaluate"]
    expected = {"name": "cae-attention", "seed": 0, "profile": "paper"}
    assert all(expected.items() <= parameters.items() for _, parameters in parsed)


def test_the_page_of_the_papers_scale_names_what_is_downloaded() -> None:
    """Images that datasets share are among them; what no table reads is left out."""
    page: dict[str, Any] = {}
    for cell in read_page(SCALE).cells:
        if cell.cell_type == "code" and "provenance" not in cell.metadata.get("tags", []):
            exec(compile(cell.source, SCALE.name, "exec"), page)
    names = [source.name for source in page["read"]]
    assert {"openai-vit-b-32", "coco-val2014", "visual-genome", "winoground"} <= set(names)
    assert "clip-cae" not in names and len(names) == len(set(names)) == len(page["table"])
    costs = pd.DataFrame({"seconds": {"clip-ft": 1.0, "gradcam": 1.2, "images": 0.8}})
    seconds = FunctionType(page["cost"].__code__, page | {"costs": costs})
    # With hard negatives a row has two images and four texts, and CAE two captions.
    for name, expected in (("clip-ft", 1), ("negclip", 2.4), ("negclip-cae-gradcam", 2.8)):
        assert seconds(load_profile("paper").experiment(name), "seconds") == pytest.approx(expected)

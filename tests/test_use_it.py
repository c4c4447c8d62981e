"""The code of the page `use-it` runs, and trains as a plain loop would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from oracles import Batch, explicit_attention
from torch import Tensor, nn

from cae_lib.attribution import METHODS
from cae_lib.pages.source import read_page
from cae_lib.pages.stamp import Provenance
from cae_lib.training.task import CompositionAttributionLoss
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION

PAGE = Path(__file__).resolve().parents[1] / "book" / "experiments" / "use-it.md"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {"profile": "smoke", "pictures": 8, "batch_size": 4, "epochs": 2}
EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])


def _cells() -> list[Any]:
    return [cell for cell in read_page(PAGE).cells if cell.cell_type == "code"]


def _run(replaced: tuple[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
    """Execute the page's code cells in one namespace, with other parameters."""
    namespace: dict[str, Any] = {}
    for cell in _cells():
        source = cell.source
        if replaced and replaced[0] in source:
            source, replaced = source.replace(*replaced), None
        exec(compile(source, PAGE.name, "exec"), namespace)  # noqa: S102
        if "parameters" in cell.metadata.get("tags", []):
            assert set(parameters) <= set(namespace)
            namespace.update(parameters)
    assert replaced is None, f"the page has no {replaced}"
    return namespace


def _fenced(mark: str) -> str:
    """The one block of the page's text that holds `mark`."""
    blocks = [block for block in FENCED.findall(PAGE.read_text(encoding="utf-8")) if mark in block]
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The namespace of the page after a short run."""
    return _run(**SMALL)


def test_the_page_runs_from_start_to_end(page: dict, capsys: pytest.CaptureFixture) -> None:
    assert len(page["history"]) == 4  # steps
    assert all(torch.tensor(list(line.values())).isfinite().all() for line in page["history"])
    assert min(line["n_objects"] for line in page["history"]) > 0
    assert isinstance(eval("provenance(profile)", page), Provenance)  # noqa: S307


def test_the_three_lines(page: dict) -> None:
    namespace = page | {"image_features": page["image_features"].detach()}
    exec(_fenced("in place of model.encode_text"), namespace)  # noqa: S102
    page["model"].zero_grad()
    namespace["loss"].backward()
    assert page["model"].token_embedding.weight.grad.abs().max() > 0


def test_words_are_shown_by_role(page: dict) -> None:
    found = page["found"]
    assert list(found.index) == page["captions"][:4] and list(found) == [
        "object", "attribute", "relation"
    ]
    for caption, row in found.iterrows():
        words = " ".join(row).split()
        assert words and set(words) <= set(caption.replace(",", "").rstrip(".").split())
    assert (found["object"] != "").all()


@pytest.mark.parametrize("kind", [CompositionAttributionLoss, *METHODS.values()])
def test_every_setting_has_a_meaning(kind: type, page: dict) -> None:
    whose = {"all": CompositionAttributionLoss} | METHODS
    settings = page["settings"].query("method in @names", local_dict={
        "names": [name for name, known in whose.items() if known is kind]})
    documented = re.findall(r"^ +(\w+): ", kind.__doc__, re.MULTILINE)
    assert set(settings["setting"]) <= set(documented)


def test_the_loop_trains_both_towers(page: dict) -> None:
    fresh = open_clip.create_model("clip-mini", pretrained=page["weights"])
    for name in ("visual.conv1.weight", "token_embedding.weight", "logit_scale"):
        assert not torch.equal(page["model"].get_parameter(name), fresh.get_parameter(name)), name


def test_text_features_are_those_of_open_clip(page: dict) -> None:
    tokens, roles = page["words"].tokens, page["words"].roles
    with torch.no_grad():
        images = page["model"].encode_image(page["images"], normalize=True)
        features = page["attribution"](images, tokens, roles).text_features
        expected = page["model"].encode_text(tokens, normalize=True)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)


def _plain_scores(method: str, batch: Batch, words: Tensor) -> Tensor:
    """Scores `(B, 77)` by the definitions, over all 77 tokens; differentiable."""
    if method == "attention":
        return batch.attention_rows().mean(dim=(0, 2))
    if method == "gradcam":  # the temperature is a constant of S
        batch.model.logit_scale.requires_grad_(False)
        scores = batch.relevance(create_graph=True)
        batch.model.logit_scale.requires_grad_(True)
        return scores
    embeddings = batch.text.token_embedding(batch.tokens)
    if method == "gradient":
        with explicit_attention(batch.text):  # open_clip's cannot be differentiated twice
            whole = batch.score(embeddings)
        (gradient,) = torch.autograd.grad(whole.sum(), embeddings, create_graph=True)
        return gradient.norm(dim=-1)
    whole = batch.score(embeddings)
    mean = batch.text.token_embedding.weight.mean(dim=0).detach()
    scores = torch.zeros(words.shape, dtype=whole.dtype)
    for number in range(1, int(words.max()) + 1):
        masked = words == number
        drop = whole - batch.score(torch.where(masked.unsqueeze(-1), mean, embeddings))
        scores = scores + masked * drop.unsqueeze(1)
    return scores


def _plain_loss(method: str, weight: float, model: nn.Module, pixels: Tensor, tokens: Tensor,
                roles: Tensor, words: Tensor) -> Tensor:
    """The loss of a loop that encodes the text once for each of its two terms."""
    images = F.normalize(model.encode_image(pixels), dim=-1)
    texts = F.normalize(model.encode_text(tokens), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    labels = torch.arange(len(tokens))
    itc = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    batch = Batch(model, tokens, tokens.argmax(-1), images.detach())
    scores = _plain_scores(method, batch, words)
    both = ((roles == 1).any(1) & (roles >= 2).any(1)).unsqueeze(1)
    lead = scores[both & (roles == 1)].mean() - scores[both & (roles >= 2)].mean()
    return itc + weight * lead.clamp(min=0)


@EVERY
def test_a_step_has_the_gradients_of_a_plain_loop(method: str, page: dict) -> None:
    """The page's own lines, in float64, against the definitions."""
    pixels, tokens = page["images"][:4].double(), page["words"].tokens[:4]
    roles = page["words"].roles[:4]
    words = torch.where(roles > 0, torch.arange(77), 0)  # every word of this batch is one token
    assert (page["words"].roles[:4] > 0).sum() >= 8
    namespace = page | {"model": open_clip.create_model("clip-mini", pretrained=page["weights"]),
                        "method": method, "weight": 3.0, "images": pixels,
                        "batch_size": 4, "epochs": 1}
    model = namespace["model"].double()
    alignment = type(page["words"])
    namespace["words"] = alignment(tokens, roles, 0, 0, 0)
    (loop,) = [cell.source for cell in _cells() if "loss.backward()" in cell.source]
    loop = loop.replace("shuffle=True", "shuffle=False").replace("lr=1e-4", "lr=0.0")
    exec(loop, namespace)  # noqa: S102
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert namespace["history"][0]["attribution"] > 0.01
    model.zero_grad()
    loss = _plain_loss(method, 3.0, model, pixels, tokens, roles, words)
    loss.backward()
    torch.testing.assert_close(namespace["loss"].detach(), loss.detach(), atol=1e-10, rtol=0)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-9, rtol=1e-7)


def test_another_model_needs_another_name_only(tmp_path: Path) -> None:
    """The comment of the page names OpenAI's CLIP; its text tower stands here, cut in depth."""
    ours = 'name, weights = "clip-mini", str(paths().mini / "base.safetensors")'
    clip = '# For OpenAI\'s CLIP: name, weights = "ViT-B-32-quickgelu", "openai"'
    assert sum(ours in c.source and clip in c.source for c in _cells()) == 1
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    config["text_cfg"]["layers"] = config["vision_cfg"]["layers"] = 1
    config["vision_cfg"]["width"] = 64
    (tmp_path / "shallow-ViT-B-32.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    page = _run(
        (ours, 'name, weights = "shallow-ViT-B-32", None'),
        **SMALL | {"pictures": 4, "epochs": 1, "method": "gradient"},
    )
    assert page["images"].shape == (4, 3, 224, 224) and len(page["history"]) == 1
    tokens = page["words"].tokens
    expected = page["model"].encode_text(tokens, normalize=True)
    found = page["attribution"](torch.ones(4, 512), tokens, page["words"].roles).text_features
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_spans_of_ones_own(page: dict) -> None:
    namespace = dict(page)
    exec(_fenced("Span("), namespace)  # noqa: S102
    words = namespace["own_words"]
    expected = [OTHER, OTHER, ATTRIBUTE, OBJECT, RELATION, OTHER, OBJECT, OTHER]
    assert words.roles[0, :8].tolist() == expected and words.n_unmatched == 0
    assert page["tokenizer"](["a red cat chases a dog"]).equal(words.tokens)


def test_the_block_on_mixed_precision(page: dict) -> None:
    namespace = dict(page)
    page["model"].zero_grad()
    exec(_fenced("torch.autocast"), namespace)  # noqa: S102
    assert namespace["output"].loss.dtype == torch.float32
    weight = page["model"].transformer.resblocks[0].attn.in_proj_weight
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0


@EVERY
def test_the_block_on_several_gpus(method: str, page: dict, tmp_path: Path) -> None:
    """In a group of one process, the block's gradients are those of the plain lines."""
    namespace = page | {"method": method}
    model = page["model"]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model.zero_grad()
        exec(_fenced("DistributedDataParallel("), namespace)  # noqa: S102
    finally:
        dist.destroy_process_group()
    found = model.get_parameter("positional_embedding").grad.clone()
    model.zero_grad()
    namespace["Step"](model, namespace["attribution"], open_clip.ClipLoss())(
        page["pixels"], page["tokens"], page["roles"]
    ).backward()
    expected = model.get_parameter("positional_embedding").grad
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_method_of_ones_own(page: dict) -> None:
    namespace = dict(page)
    exec(_fenced("class Share"), namespace)  # noqa: S102
    images = namespace["model"].encode_image(page["pixels"], normalize=True)
    output = namespace["attribution"](images, page["tokens"], page["roles"])
    found = namespace["get_method"]("gradient")(page["model"], page["tokens"], images.detach())
    shares = found.scores / found.scores.sum(1, keepdim=True)
    roles = page["roles"][:, : shares.shape[1]]
    both = ((roles == 1).any(1) & (roles >= 2).any(1)).unsqueeze(1)
    torch.testing.assert_close(output.objects, shares[both & (roles == 1)].mean())


def test_the_trainer_of_hugging_face(page: dict, tmp_path: Path, monkeypatch) -> None:
    """One epoch moves both towers; the first loss is that of the plain lines."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2,
             "num_hidden_layers": 1, "projection_dim": 8}
    text = {**small, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=text,
            vision_config={**small, "image_size": 112, "patch_size": 16},
            projection_dim=8,
        )
    )
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    block = _fenced("class ClipWithCae").replace("per_device_train_batch_size=8", "**options")
    options = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "report_to": [],
               "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    namespace = page | {"clip": clip, "options": options, "method": "gradient"}
    exec(block, namespace)  # noqa: S102
    after = clip.state_dict()
    for name in ("visual_projection.weight", "text_model.embeddings.token_embedding.weight"):
        assert not torch.equal(after[name], before[name]), name
    clip.load_state_dict(before)
    rows = namespace["rows"][:4]
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    loss = namespace["trainer"].model(**batch)["loss"]
    images = F.normalize(clip.get_image_features(batch["pixel_values"]).pooler_output, dim=-1)
    texts = F.normalize(clip.get_text_features(batch["input_ids"]).pooler_output, dim=-1)
    logits = clip.logit_scale.exp() * images @ texts.T
    labels = torch.arange(4)
    itc = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    attribution = namespace["trainer"].model.cae(images, *list(batch.values())[1:]).loss
    torch.testing.assert_close(loss, itc + attribution)


def test_the_lines_for_open_clips_own_training(page: dict) -> None:
    """The block's objects, given what `open_clip_train/main.py` holds at that place."""
    arguments = SimpleNamespace(
        local_loss=False, gather_with_grad=False, rank=0, world_size=1, accum_freq=2
    )
    namespace = page | {"args": arguments, "method": "gradient"}
    exec(_fenced("CaeClipLoss("), namespace)  # noqa: S102
    packed = namespace["role_tokenizer"](["a red cat chases a dog", "a small bird on a tree"])
    output = namespace["model"].train()(page["pixels"][:2], packed)
    losses = namespace["loss"](**output, output_dict=True)
    assert set(losses) == {"contrastive_loss", "attribution_loss"}
    images = page["model"].encode_image(page["pixels"][:2], normalize=True)
    captions = ["a red cat chases a dog", "a small bird on a tree"]
    words = page["token_roles"](captions, page["SceneGraphTagger"](), page["tokenizer"])
    expected = page["CompositionAttributionLoss"](page["model"], "gradient", page["weight"])(
        images, words.tokens, words.roles
    )
    torch.testing.assert_close(losses["attribution_loss"], expected.loss)

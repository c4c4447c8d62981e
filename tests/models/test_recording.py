"""Attention is recorded without a trace left behind, and whatever else runs meanwhile."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, ROLES, WORDS, Case
from torch import Tensor, nn

from cae_lib.attribution import METHODS, get_method
from cae_lib.errors import ConfigError
from cae_lib.models import encode_image, text_encoder
from cae_lib.models.recording import recording
from cae_lib.models.reference import ReferenceEncoder, TextModel
from cae_lib.training.task import CompositionAttributionLoss

FUSED = F.scaled_dot_product_attention
TOWERS = ("bidirectional", "Hugging Face CLIP, eos 2", "Hugging Face CLIP, eager", "BLIP")
GIVEN = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """What a recording changes for a while is as before after every test."""
    yield
    assert F.scaled_dot_product_attention is FUSED
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture(params=TOWERS)
def case(request: pytest.FixtureRequest) -> Case:
    """A model with a reference encoder alone."""
    return FAMILIES[request.param]()


def _scores(case: Case, method: str) -> Tensor:
    encoder = text_encoder(case.model, "reference")
    return get_method(method)(encoder, case.tokens, case.images, words=WORDS).scores


def _loss(case: Case, method: str) -> list[Tensor]:
    """The loss, its parts, and the gradients of the text tower."""
    case.model.zero_grad()
    task = CompositionAttributionLoss(case.model, method, margin=9.0, path="reference")
    output = task(case.images, case.tokens, ROLES, WORDS)
    (output.loss + case.cosine(output.text_features).sum()).backward()
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    return [output.loss.detach(), output.objects, output.composition, *gradients]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
        {"attn_mask": torch.randn(2, 1, 5, 5).double()},
        {"enable_gqa": True},
    ],
)
def test_explicit_attention_is_that_of_torch(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64, requires_grad=True)
    if "enable_gqa" in options:
        k, v = k[:, :2], v[:, :2]
    expected = FUSED(q, k, v, **options)
    with recording(nn.Identity()) as maps:
        found = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    (weights,) = maps
    assert weights.shape == (2, 4, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5).double())
    assert torch.autograd.grad(found.sum(), weights)[0].abs().max() > 0


def test_dropout_of_the_maps_is_on_the_way_to_the_output() -> None:
    q, k, v = torch.randn(3, 1, 1, 6, 8, dtype=torch.float64)
    with recording(nn.Identity()) as maps:
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
        all_of_it = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(*maps) and not torch.allclose(found, all_of_it)


def test_nothing_is_left_behind_by_an_error(case: Case) -> None:
    tower = text_encoder(case.model, "reference").text.tower
    for module in tower.modules():
        for name in ("grad_checkpointing", "gradient_checkpointing"):
            if hasattr(module, name):
                setattr(module, name, True)
    state = lambda: [  # noqa: E731
        {
            name: copy.copy(value) if "hooks" in name else getattr(value, "__dict__", value)
            for name, value in vars(module).items()
            if "hooks" in name or "checkpointing" in name or name == "config"
        }
        for module in tower.modules()
    ]
    before = copy.deepcopy(state())
    with pytest.raises(IndexError), recording(tower):
        assert state() != before
        raise IndexError
    assert state() == before
    with pytest.raises(IndexError):
        text_encoder(case.model, "reference").encode(case.tokens + 99, attention="row")
    assert state() == before


def test_a_recording_in_a_recording(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    expected = encoder.encode(case.tokens, attention="maps").attention
    with recording(encoder.text.tower) as outer:
        found = encoder.encode(case.tokens, attention="maps").attention
        case.features(case.tokens)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(outer[-2:], expected)


def _in_another_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


def test_another_thread_runs_the_model_as_it_is(case: Case) -> None:
    """The other thread runs while the embeddings are replaced and the maps are recorded."""
    encoder = text_encoder(case.model, "reference")
    own = case.features(case.tokens)
    alone = encoder.encode(case.tokens, embeddings=GIVEN, attention="maps")
    assert (alone.features - own).abs().max() > 1e-3
    other: list[Tensor] = []
    me = threading.get_ident()

    def meanwhile(*_: Any) -> None:
        if threading.get_ident() == me:
            thread, found = _in_another_thread(lambda: case.features(case.tokens))
            thread.join()
            other.extend(found)

    case.attentions[0].register_forward_hook(meanwhile)
    both = encoder.encode(case.tokens, embeddings=GIVEN, attention="maps")
    torch.testing.assert_close(other, [own])
    torch.testing.assert_close(both.features, alone.features)
    torch.testing.assert_close(both.attention, alone.attention)


def test_two_threads_that_record(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    tower = encoder.text.tower
    if hasattr(tower, "config"):
        before = tower.config._attn_implementation
    expected = encoder.encode(case.tokens, attention="maps")
    inside, over = threading.Event(), threading.Event()

    def record() -> list[Tensor]:
        with recording(tower) as maps:
            inside.set()
            case.features(case.tokens)
            over.wait()
        return maps

    with recording(tower) as maps:
        thread, found = _in_another_thread(record)
        inside.wait(0.2)  # in vain: the other thread has to wait for this one
        features = case.features(case.tokens)
    over.set()
    thread.join()
    torch.testing.assert_close(features, expected.features)
    torch.testing.assert_close([maps, *found], [expected.attention] * 2)
    if hasattr(tower, "config"):
        assert tower.config._attn_implementation == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("tower", "reentrant"), [*((tower, False) for tower in TOWERS), (TOWERS[1], True)]
)
def test_gradient_checkpointing_changes_nothing(tower: str, reentrant: bool, method: str) -> None:
    case = FAMILIES[tower]()
    case.model.train()
    for module in case.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected, scores = _loss(case, method), _scores(case, method)
    if hasattr(case.model, "gradient_checkpointing_enable"):
        case.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    else:
        case.model.set_grad_checkpointing(True)
    torch.testing.assert_close(_loss(case, method), expected, atol=1e-11, rtol=1e-9)
    if not reentrant:  # which cannot be differentiated by torch.autograd.grad
        torch.testing.assert_close(_scores(case, method), scores, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize(
    ("tower", "methods"),
    [("bidirectional", METHODS), ("Hugging Face CLIP, eos 2", ["gradcam"]), ("BLIP", ["gradient"])],
)
def test_compiled_towers(tower: str, methods: list[str]) -> None:
    torch.compiler.reset()
    case = FAMILIES[tower]()
    expected = [(_loss(case, method), _scores(case, method)) for method in methods]
    if hasattr(case.model, "text"):
        case.model.text = torch.compile(case.model.text, backend="eager")
    else:
        text_encoder(case.model, "reference").text.tower.compile(backend="eager")
    own = case.features(case.tokens)  # compiled now, without hooks
    found = [(_loss(case, method), _scores(case, method)) for method in methods]
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)
    torch.testing.assert_close(case.features(case.tokens), own, atol=0, rtol=0)


def test_compiled_image_tower() -> None:
    torch.compiler.reset()
    case = FAMILIES["CLIP"]()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = encode_image(case.model, images, attention=True)
    scores = _scores(case, "gradcam")
    case.model.visual.transformer = torch.compile(case.model.visual.transformer, backend="eager")
    torch.testing.assert_close(encode_image(case.model, images).features, expected.features)
    found = encode_image(case.model, images, attention=True)
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.attention[0][:, :, :1], expected.attention[0])
    torch.testing.assert_close(_scores(case, "gradcam"), scores)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_autocast(case: Case, method: str, dtype: torch.dtype) -> None:
    case.model.float()
    case.images = case.images.float()
    exact = _scores(case, method)
    with torch.autocast("cpu", dtype):
        scores, (loss, *parts) = _scores(case, method), _loss(case, method)
        encoder = text_encoder(case.model, "reference")
        output = encoder.encode(case.tokens, attention="maps")
        own = case.features(case.tokens)
    assert scores.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(scores, exact, atol=0.05 * float(exact.abs().max()), rtol=0.2)
    assert all(part.isfinite().all() for part in parts)
    assert output.features.dtype == own.dtype
    for weights in output.attention:
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_scores_without_gradients(case: Case, method: str, mode: Callable[[], Any]) -> None:
    expected, (loss, *_) = _scores(case, method), _loss(case, method)
    with mode():
        found = _scores(case, method)
        task = CompositionAttributionLoss(case.model, method, margin=9.0, path="reference")
        output = task(case.images, case.tokens.clone(), ROLES, WORDS)
    torch.testing.assert_close(found, expected, atol=case.tolerance, rtol=1e-9)
    torch.testing.assert_close(output.loss, loss, atol=case.tolerance, rtol=1e-9)
    assert not found.requires_grad and not output.loss.requires_grad
    _loss(case, method)


def test_a_bias_that_modules_return_is_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5 returns the bias of positions in front of its maps."""
    case = FAMILIES["mt5"]()
    encoder = text_encoder(case.model, "reference")
    expected = encoder.encode(case.tokens, attention="maps")
    monkeypatch.setattr(type(encoder.text.tower), "_supports_sdpa", False)
    encoder.text.tower.config._attn_implementation = "eager"
    found = encoder.encode(case.tokens, attention="maps")
    torch.testing.assert_close(found.attention, expected.attention, atol=1e-5, rtol=0)
    monkeypatch.undo()
    case.attentions[0].relative_attention_bias.weight.data.abs_()
    assert len(encoder.encode(case.tokens, attention="maps").attention) == 2


def test_attention_that_cannot_be_read() -> None:
    embedding = nn.Embedding(40, 16)
    text = TextModel(
        embedding,
        lambda tokens: embedding(tokens).mean(1),
        embedding,
        embedding,
        lambda tokens: tokens.argmax(-1),
    )
    encoder = ReferenceEncoder(text)
    tokens = torch.tensor([[1, 2, 3]])
    assert encoder.encode(tokens).features.shape == (1, 16)
    with pytest.raises(ConfigError, match="cannot be read"):
        encoder.encode(tokens, attention="row")

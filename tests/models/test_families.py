"""Both encoders of every family of models, against the models' own code and by hand."""

import pytest
import torch
import torch.nn.functional as F
from families import MODEL_FAMILIES, ROLES, WORDS, Case, clip
from open_clip.hf_model import MaxPooler
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.errors import ConfigError
from cae_lib.models import TextEncoder, text_encoder
from cae_lib.training.losses import CAELoss

PACKED = ("CLIP", "CLIP, eos", "CLIP, own attention", "custom text")
Both = tuple[Case, TextEncoder]
PATHS = [(f, "reference") for f in MODEL_FAMILIES] + [(f, "packed") for f in PACKED]


@pytest.fixture(scope="module", params=PATHS, ids=": ".join)
def both(request: pytest.FixtureRequest) -> Both:
    """Return a model in float64, and an encoder of its text."""
    torch.manual_seed(0)
    family, path = request.param
    case = MODEL_FAMILIES[family]()
    assert (family in PACKED) == (text_encoder(case.model).implementation == "packed")
    return case, text_encoder(case.model, path)


def _gradients(case: Case, value: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the parameters that a value depends on."""
    case.model.zero_grad()
    value.backward()
    return {n: p.grad for n, p in case.model.named_parameters() if p.grad is not None}


def test_features_and_gradients_are_those_of_the_model(both: Both) -> None:
    case, encoder = both
    actual, expected = encoder.encode(case.tokens).features, case.features(case.tokens)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(encoder.encode_features(case.tokens), expected, atol=1e-10, rtol=0)
    expected_gradients = _gradients(case, case.cosine(expected).sum())
    gradients = _gradients(case, case.cosine(actual).sum())
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-10, rtol=1e-9)
    adapters = [gradient for name, gradient in gradients.items() if "lora_" in name]
    assert all(gradient.abs().max() > 1e-6 for gradient in adapters)
    assert bool(adapters) == hasattr(case.model, "peft_config")


def test_maps_are_those_written_out(both: Both) -> None:
    case, encoder = both
    exact = {"atol": case.tolerance, "rtol": 0}
    with case.by_hand() as expected:
        features = case.features(case.tokens)
    torch.testing.assert_close(features, case.features(case.tokens), **exact)
    output = encoder.encode(case.tokens, attention="maps")
    torch.testing.assert_close(output.features, features, **exact)
    torch.testing.assert_close(output.readout, case.readout)
    torch.testing.assert_close(encoder.encode(case.tokens).readout, case.readout)
    assert len(output.attention) == len(expected) == 2
    rows = [torch.einsum("bt,bhts->bhs", case.readout, m) for m in expected]
    actual = encoder.encode(case.tokens, attention="row").attention
    torch.testing.assert_close(actual, rows, **exact)
    for actual, whole, row in zip(output.attention, expected, rows, strict=True):
        if actual.shape[2] == 1:
            torch.testing.assert_close(actual[:, :, 0], row, **exact)
        else:  # packed: the shorter caption's states up to its end
            end = None if encoder.implementation == "reference" else 6
            torch.testing.assert_close(actual[:, :, :end], whole[:, :, :end], **exact)


def _expected_scores(case: Case, method: str) -> Tensor:
    """Compute scores `(2, 8)`, differentiable, from maps and gradients taken by hand."""
    if method == "perturbation":
        return _drops(case)
    embeddings = case.embedding(case.tokens)
    embeddings = embeddings if embeddings.requires_grad else embeddings.requires_grad_()
    with case.with_embeddings(embeddings), case.by_hand() as maps:
        similarity = case.cosine(case.features(case.tokens))
    if method == "gradient":
        (gradient,) = torch.autograd.grad(similarity.sum(), embeddings, create_graph=True)
        return torch.linalg.vector_norm(gradient, dim=-1)
    if getattr(case.model, "logit_scale", None) is not None:
        similarity = similarity * case.model.logit_scale.detach().exp()
    attention_grads = torch.autograd.grad(similarity.sum(), maps, create_graph=True)
    relevance = torch.eye(case.length, dtype=torch.float64).repeat(2, 1, 1)
    for weights, grad in zip(maps, attention_grads, strict=True):
        relevance = relevance + (grad * weights).clamp(min=0).mean(1) @ relevance
    return torch.einsum("bt,bts->bs", case.readout, relevance)[:, :8]


def _drops(case: Case) -> Tensor:
    """Compute the drop of S when a word is masked, one word at a time."""
    mean = case.embedding(torch.arange(40)).mean(0).detach()
    whole = case.cosine(case.features(case.tokens))
    scores = torch.zeros(WORDS.shape, dtype=torch.float64)
    for row in range(2):
        for word in range(1, int(WORDS[row].max()) + 1):
            inside = torch.where(torch.arange(2) == row, word, -1)[:, None] == WORDS
            embeddings = torch.where(inside[..., None], mean, case.embedding(case.tokens))
            with case.with_embeddings(embeddings):
                masked = case.cosine(case.features(case.tokens))
            scores = scores + inside * (whole - masked)[:, None]
    return scores


@pytest.mark.parametrize("method", ["gradcam", "gradient", "perturbation"])
def test_scores_and_loss_are_those_written_out(both: Both, method: str) -> None:
    case, encoder = both
    exact = {"atol": case.tolerance, "rtol": 1e-8}
    expected = _expected_scores(case, method)
    assert (expected * (WORDS > 0)).abs().amax(dim=1).min() > 1e-6
    actual = get_method(method)(encoder, case.tokens, case.images, words=WORDS).scores
    torch.testing.assert_close(actual, expected.detach(), **exact)
    task = CAELoss(case.model, method, 0.7, margin=50.0, implementation=encoder.implementation)
    output = task(case.images, case.tokens, ROLES, WORDS)
    gap = expected[ROLES == 1].mean() - expected[ROLES >= 2].mean()
    torch.testing.assert_close(output.loss, 0.7 * (gap + 50), **exact)
    expected_gradients, gradients = _gradients(case, 0.7 * gap), _gradients(case, output.loss)
    scale = max(gradient.abs().max() for gradient in expected_gradients.values())
    zero = torch.zeros(1)
    for name in expected_gradients | gradients:
        difference = gradients.get(name, zero) - expected_gradients.get(name, zero)
        torch.testing.assert_close(
            difference / scale, torch.zeros_like(difference), **exact, msg=name
        )


@pytest.mark.parametrize("family", ["roberta", "Hugging Face CLIP", "LoRA, MLP"])
def test_dropout_moves_no_score(family: str) -> None:
    """Caption and variants are scored as in evaluation, and features keep their dropout."""
    case = MODEL_FAMILIES[family]()
    for module in case.model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = nn.Dropout(0.1)
        if hasattr(module, "out_proj") and isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.1  # of the attention of Hugging Face's CLIP, where it is 0
    inputs = case.tokens, case.images
    for method in (get_method("perturbation"), get_method("integrated_gradients", points=4)):
        expected = method(case.model.eval(), *inputs, words=WORDS)
        output = method(case.model.train(), *inputs, words=WORDS)
        assert expected.scores.abs().max() > 1e-4
        torch.testing.assert_close(output.scores, expected.scores, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(output.text_features, expected.text_features)
        assert all(module.training for module in case.model.modules())
    if family == "LoRA, MLP":  # what is computed again in the backward pass is without it as well
        loss, inputs = CAELoss(case.model, "perturbation", margin=50.0), (*inputs[::-1], ROLES)
        plain = _gradients(case, loss(*inputs, WORDS).loss)
        case.model.get_base_model().set_grad_checkpointing(True)
        again = _gradients(case, loss(*inputs, WORDS).loss)
        torch.testing.assert_close(again, plain, rtol=1e-10, atol=1e-14)


def test_a_shorter_word_leaves_the_padding_of_its_caption() -> None:
    """A shorter word is followed by padding, which this tower's mean leaves out.

    The second word of the first caption, of two tokens, can only become the 25 of the second.
    """
    case = MODEL_FAMILIES["roberta"]()
    actual = get_method("counterfactual")(
        case.model, case.tokens, case.images, words=WORDS, roles=ROLES
    )
    assert case.tokens[0].tolist() == [3, 11, 12, 13, 14, 2, 1, 1]
    changed = torch.tensor([[3, 11, 25, 14, 2, 1, 1, 1]])
    whole, other = (
        F.cosine_similarity(case.features(tokens), case.images[:1])
        for tokens in (case.tokens[:1], changed)
    )
    expected = (whole - other).detach().expand(2)
    assert expected[0].abs() > 1e-3
    torch.testing.assert_close(actual.scores[0, 2:4], expected)


def test_stars_stand_in_vocabularies_of_clip_only() -> None:
    case = MODEL_FAMILIES["CLIP"]()
    with pytest.raises(ConfigError, match="40 tokens"):
        get_method("perturbation", replacement="token")(
            case.model, case.tokens, case.images, words=WORDS
        )


def test_models_that_are_refused() -> None:
    model, bert = clip(), MODEL_FAMILIES["bert"]().model
    bert.text.pooler = MaxPooler()
    wrappers = [nn.DataParallel(model), torch.compile(model, backend="eager")]
    sharded = clip()
    block = sharded.transformer.resblocks[0]
    block.__class__ = type("FSDPBlock", (type(block),), {})  # as `fully_shard` does
    with pytest.raises(ConfigError, match="FSDPBlock"):
        text_encoder(sharded)
    for refused in (*wrappers, bert, nn.Linear(2, 2), clip(pool_type="none")):
        with pytest.raises(ConfigError, match=f"{type(refused).__name__}|Pooler|none"):
            text_encoder(refused)
    with pytest.raises(ConfigError, match="fast"):
        text_encoder(model, "fast")


def test_adapters_are_found_in_their_wrapper_and_prompts_are_refused() -> None:
    peft = pytest.importorskip("peft")
    case = MODEL_FAMILIES["LoRA, MLP"]()
    assert text_encoder(case.model).model is case.model.get_base_model()
    with case.model.disable_adapter():
        plain = text_encoder(case.model).encode(case.tokens).features
        torch.testing.assert_close(plain, case.features(case.tokens))
    assert (plain - case.features(case.tokens)).abs().max() > 1e-3
    case.model.peft_config["default"] = peft.PromptTuningConfig(num_virtual_tokens=2)
    with pytest.raises(ConfigError, match="prompt"):
        text_encoder(case.model)

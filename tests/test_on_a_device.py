"""The same numbers on a device as on the CPU: all that meets a tensor on its way to a record; and
the pretend device keeps the rules of CUDA."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pretend_device import pretend_device
from torch import Tensor
from toys import TINY, forget, toy_clip

from book.studies import ALL_SUITES
from cae_bench.encoder import Encoder
from cae_lab.profiles import load_profile
from cae_lab.training_set import default_tagger
from cae_lab.validation import validation_gaps, validation_scores
from cae_lib.attribution import get_method
from cae_lib.attribution.pair import attribute
from cae_lib.config import Experiment
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk, read_image
from cae_lib.errors import ConfigError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models import text_encoder
from cae_lib.models.clip import Clip
from cae_lib.runtime import ExecutionOptions
from cae_lib.training.trainer import TrainingRun
from cae_lib.words.alignment import token_roles
from data.recipes.synthetic_scenes.build import build_world

STEPS = [
    (None, "batch", True),
    ("attention", "batch", False),
    ("gradcam", "caption", True),
    ("perturbation", "word", False),
    ("gradient", "word", True),
    ("counterfactual", "batch", False),
    ("binding", "batch", False),
]
VALUES = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
Measure = Callable[[Encoder], Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny world where the profile `smoke` has its own."""
    home = tmp_path_factory.mktemp("home")
    root = home / "data" / "raw" / "world-smoke"
    build_world(TINY, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        forget()
        yield root
    forget()


def on_both(measure: Measure) -> None:
    """Measure on the CPU and on a device, and compare."""
    with pretend_device() as device:
        clip = toy_clip()
        on_device = measure(Encoder(replace(clip, model=clip.model.to(device))))
    assert_close(on_device, measure(Encoder(toy_clip())))


def assert_close(on_device: Any, expected: Any, place: str = "") -> None:
    """Equal in shape and text, and in numbers up to rounding."""
    if isinstance(expected, pd.DataFrame):
        assert_close(dict(on_device), dict(expected), place)
    elif isinstance(expected, pd.Series):
        number = pd.api.types.is_numeric_dtype(expected.dtype)
        assert_close(
            *(s.to_numpy() if number else s.tolist() for s in (on_device, expected)), place
        )
    elif isinstance(expected, Mapping):
        assert list(on_device) == list(expected), place
        for key, value in expected.items():
            assert_close(on_device[key], value, f"{place}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(on_device) == len(expected), place
        for number, (a, b) in enumerate(zip(on_device, expected, strict=True)):
            assert_close(a, b, f"{place}/{number}")
    elif isinstance(expected, float | np.ndarray):
        np.testing.assert_allclose(on_device, expected, rtol=1e-3, atol=2e-4, err_msg=place)
    else:
        assert on_device == expected, place


@pytest.mark.parametrize("name", [name for name in ALL_SUITES if name != "validation"])
def test_suites(world: Path, name: str) -> None:
    on_both(lambda encoder: ALL_SUITES[name](encoder, load_profile("smoke")))


def test_validation(world: Path) -> None:
    pairs = load_negclip_tsv(world / "coco" / "valid_neg_clip.tsv", world)
    on_both(lambda encoder: validation_gaps(encoder, pairs, PAPER_METHODS))
    on_both(lambda encoder: validation_scores(encoder, pairs))


def test_attribution_of_a_pair(world: Path) -> None:
    image = read_image(next((world / "coco" / "val2017").glob("*.jpg")))
    on_both(lambda encoder: vars(attribute(encoder.clip, image, "a cat on the bed", 0)))


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_scores_and_their_gradients_by_the_reference_encoder(method: str) -> None:
    """Training has them by the packed one; also a second derivative for the gradient methods."""
    scorer = get_method(method, **({"renormalise": True} if method == "attention" else {}))

    def measure(encoder: Encoder) -> dict[str, Any]:
        model = encoder.clip.model.double()
        device = model.logit_scale.device
        tokens = encoder.clip.tokenizer(["a red dog chases a cat", "the giraffe", ""]).to(device)
        images = torch.linspace(-1, 1, 3 * 128).view(3, 128).sin().double().to(device)
        inputs = text_encoder(model, "reference"), tokens, images
        scores = scorer(*inputs, create_graph=True).scores
        scores.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return {name: g.detach().cpu().numpy() for name, g in ({"s": scores} | gradients).items()}

    on_both(measure)


@pytest.mark.parametrize(("method", "scope", "negatives"), STEPS)
def test_steps_of_training(world: Path, method: str | None, scope: str, negatives: bool) -> None:
    """The second step's loss is that of the weights after the first."""
    pairs = load_negclip_tsv(world / "coco" / "train_neg_clip.tsv", world)
    hinge = "margin" if method == "binding" else "log" if negatives else "difference"
    sizes = {"steps": 2, "batch_size": 4, "warmup": 1, "lr": 1e-3, "margin": 1.0}
    experiment = Experiment("run", "smoke", method=method, scope=scope, hinge=hinge, **sizes)
    experiment = replace(
        experiment, negatives=negatives, lock_image=negatives, augment=not negatives
    )
    source = ImagesOnDisk if negatives else ImagesInMemory

    def measure(encoder: Encoder) -> list[dict[str, float]]:
        alignment = token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger())
        images = source(pairs.image_paths, encoder.clip.image_size)
        run = TrainingRun(
            experiment, encoder.clip, pairs, alignment, images, None, ExecutionOptions(workers=0)
        )
        with run.prefetch(0, 2) as batches:
            return [run.step(step, batch) for step, batch in enumerate(batches)]

    on_both(measure)


@pytest.mark.parametrize("misplaced", ["tokens", "image_features"])
def test_inputs_on_another_device_are_refused(misplaced: str, tiny_clip: Clip) -> None:
    inputs = {"tokens": tiny_clip.tokenizer(["a red dog"]), "image_features": torch.randn(1, 128)}
    with pretend_device() as device:
        model = tiny_clip.model.to(device)
        moved = {name: v if name == misplaced else v.to(device) for name, v in inputs.items()}
        with pytest.raises(ConfigError, match=f"{misplaced}.*cpu"):
            get_method("attention")(model, **moved)


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretend_device() as device:
        yield device


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + VALUES,
        lambda x: VALUES @ x,
        lambda x: torch.cat([x, VALUES]),
        lambda x: x.index_select(0, torch.tensor([1])),
        lambda x: F.embedding(torch.tensor([1]), x),
        lambda x: VALUES[x.long()],
        lambda x: x.clone().index_put_((torch.tensor([0]),), VALUES[:1]),
        lambda x: x.clone().normal_(generator=torch.Generator()),
    ],
)
def test_the_pretend_device_refuses_what_a_gpu_refuses(
    device: torch.device, mixed: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(RuntimeError, match=r"Expected|indices should be"):
        mixed(VALUES.to(device))


def test_the_pretend_device_takes_what_a_gpu_takes(device: torch.device) -> None:
    x = VALUES.to(device)
    assert torch.equal((x * torch.tensor(2.0)).cpu(), 2 * VALUES)
    assert torch.equal(x[VALUES > 1].cpu(), VALUES[VALUES > 1])
    assert x.device == device == (x + 1).device and x.cpu().device.type == "cpu"
    with pytest.raises((RuntimeError, TypeError)):
        x.numpy()

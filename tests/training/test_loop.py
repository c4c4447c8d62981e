"""The trainer: it learns, resumes bit for bit, and stops cleanly."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import PatchDropout

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import CheckpointError, DataError
from cae_lib.models.checkpoint import read_meta, read_state_dict
from cae_lib.models.clip import Clip, load_clip
from cae_lib.training.loop import TrainResult, train
from cae_lib.training.order import Stream, generator
from cae_lib.training.run import NotFiniteError, Run
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

CAPTIONS = [f"{c} {o} on a mat" for c in ("red", "blue") for o in ("cat", "dog", "car", "cup")]
FT = Experiment("ft", "smoke", steps=5, batch_size=4, warmup=2, lr=1e-3)
CAE = replace(FT, name="cae", method="attention", weight=1.0, margin=0.5)


class Pictures:
    """Random pictures in memory; a crop is stood in for by noise from the generator."""

    def __init__(self, count: int) -> None:
        self.pixels = torch.randn(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index, generator=None):
        noise = torch.randn(len(index), 3, 1, 1, generator=generator)
        return self.pixels[index] + noise


class World:
    """A clip-mini, eight captions over four pictures, and their roles by hand."""

    def __init__(self) -> None:
        self.clip = load_clip("clip-mini", seed=0)
        index = torch.arange(8) % 4
        paths = [Path(f"{i}.png") for i in range(4)]
        self.pairs = Pairs(paths, CAPTIONS, index, "toy", 8, 8)
        spans = []
        for caption in CAPTIONS:
            first, second = caption.index(" ") + 1, caption.index(" on")
            spans.append([
                Span(0, first - 1, ATTRIBUTE), Span(first, second, OBJECT),
                Span(second + 1, second + 3, RELATION), Span(second + 6, second + 9, OBJECT),
            ])
        self.alignment = align(CAPTIONS, spans, self.clip.tokenizer)
        self.images = Pictures(4)

    def train(self, experiment: Experiment, out: Path, **options) -> tuple[TrainResult, Clip]:
        clip = load_clip("clip-mini", seed=0)
        options = {"log": False, **options}
        result = train(experiment, clip, self.pairs, self.alignment, self.images, out, **options)
        return result, clip


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def lines(path: Path) -> list[dict]:
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    for line in kept:
        line.pop("samples_per_second")
    return kept


def same_weights(a: Clip, b: Clip) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_first_step_is_the_contrastive_loss_of_open_clip(world, tmp_path):
    result, _ = world.train(replace(FT, steps=1), tmp_path)
    run = Run(FT, load_clip("clip-mini", seed=0), world.pairs, world.alignment, world.images)
    rows = run.batches.order.rows(0)
    pixels = world.images.batch(world.pairs.image_index[rows], generator(0, Stream.CROP, 0))
    with torch.no_grad():
        image = world.clip.model.encode_image(pixels, normalize=True)
        text = world.clip.model.encode_text(world.alignment.tokens[rows], normalize=True)
        logits = world.clip.model.logit_scale.exp() * image @ text.T
        target = torch.arange(4)
        expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert result.last["loss"] == pytest.approx(expected.item(), abs=1e-4)
    assert result.last["lr"] == pytest.approx(FT.lr / 2)


def test_training_lowers_the_loss_and_moves_both_towers(world, tmp_path):
    result, clip = world.train(replace(FT, steps=12, lr=2e-3), tmp_path)
    losses = [line["loss"] for line in lines(result.log)]
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.3
    start = world.clip.model.state_dict()
    for name in ("visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"):
        assert not torch.equal(clip.model.state_dict()[name], start[name])


def test_a_locked_image_tower_stays_as_it_is(world, tmp_path):
    _, clip = world.train(replace(CAE, lock_image=True), tmp_path)
    start, end = world.clip.model.state_dict(), clip.model.state_dict()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert "transformer.resblocks.0.attn.in_proj_weight" in moved
    assert not [name for name in moved if name.startswith("visual.")]


@pytest.mark.parametrize(
    "experiment", [FT, CAE, replace(CAE, precision="bf16")], ids=["ft", "cae", "cae-bf16"]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(world, tmp_path, experiment):
    whole, expected = world.train(experiment, tmp_path / "whole")
    part, halfway = world.train(experiment, tmp_path / "parts", stop_after=3)
    assert part.step == 3 and read_meta(part.checkpoint).step == 3
    assert not same_weights(halfway, expected)
    torch.manual_seed(99)  # the global generator must not matter
    result, resumed = world.train(experiment, tmp_path / "parts")
    assert same_weights(resumed, expected)
    assert lines(result.log) == lines(whole.log)
    assert [line["step"] for line in lines(result.log)] == [1, 2, 3, 4, 5]


def test_the_checkpoint_says_what_it_is_and_the_state_goes_at_the_end(world, tmp_path):
    result, clip = world.train(FT, tmp_path)
    meta = read_meta(result.checkpoint)
    assert (meta.model, meta.activation, meta.step) == ("clip-mini", "quickgelu", 5)
    assert meta.config_key == FT.key()
    run = Run(FT, world.clip, world.pairs, world.alignment, world.images)
    assert meta.extra["identity"] == run.identity
    stored = read_state_dict(result.checkpoint)
    assert all(torch.equal(stored[k], v) for k, v in clip.model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.jsonl", "model.json", "model.safetensors",
    ]
    assert not clip.model.training


def test_the_attribution_loss_joins_and_can_be_weighed(world, tmp_path):
    one, _ = world.train(CAE, tmp_path / "one")
    two, _ = world.train(replace(CAE, weight=2.0), tmp_path / "two")
    first, doubled = lines(one.log)[0], lines(two.log)[0]
    hinge = max(0, first["objects"] - first["composition"] + CAE.margin)
    assert first["attribution"] == pytest.approx(hinge, abs=1e-6) and hinge > 0.1
    assert first["loss"] == pytest.approx(first["contrastive"] + hinge, abs=1e-5)
    assert doubled["attribution"] == pytest.approx(2 * hinge, abs=1e-6)
    assert first["n_objects"] == 8 and first["n_composition"] == 8
    assert lines(one.log)[-1]["loss"] != lines(two.log)[-1]["loss"]


def test_the_hook_sees_the_model_on_its_way_and_changes_nothing(world, tmp_path):
    seen = []

    def look(step, model):
        seen.append((step, model.training))
        torch.rand(5)

    _, watched = world.train(CAE, tmp_path / "a", every=2, on_step=look)
    before = torch.get_rng_state()
    _, unwatched = world.train(CAE, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == [(2, False), (4, False), (5, False)]
    assert same_weights(watched, unwatched)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_the_run_goes_on_from_there(world, tmp_path, number):
    before = signal.getsignal(number)

    def send(step, model):
        if step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        world.train(FT, tmp_path / "a", every=1, on_step=send)
    assert signal.getsignal(number) == before
    assert (tmp_path / "a" / "state.pt").exists()
    assert not (tmp_path / "a" / "model.safetensors").exists()
    _, resumed = world.train(FT, tmp_path / "a")
    _, whole = world.train(FT, tmp_path / "b")
    assert same_weights(resumed, whole)


def test_a_second_signal_acts_at_once_and_one_after_the_last_step_is_too_late(world, tmp_path):
    def send(at: int, times: int):
        def hook(step, model):
            for _ in range(times if step == at else 0):
                os.kill(os.getpid(), signal.SIGTERM)

        return hook

    with pytest.raises(KeyboardInterrupt) as stopped:
        world.train(FT, tmp_path / "a", every=1, on_step=send(2, 2))
    assert stopped.value.args == () and not (tmp_path / "a" / "state.pt").exists()
    try:
        result, _ = world.train(FT, tmp_path / "b", every=1, on_step=send(5, 1))
    except KeyboardInterrupt:
        pytest.fail("a complete run was stopped")
    assert result.step == 5 and read_meta(result.checkpoint).step == 5


def test_a_run_ends_with_its_last_step_and_logs_each_as_it_is_taken(world, tmp_path):
    seen = []

    def read(step, model):
        seen.append(len(lines(tmp_path / "log.jsonl")))

    result, _ = world.train(FT, tmp_path, stop_after=9, every=1, on_step=read)
    assert result.step == 5 and seen == [1, 2, 3, 4, 5]


def test_the_model_is_in_training_mode_again_after_the_hook(world, tmp_path):
    """Its patches are dropped in every step then, as they are without a hook."""
    ends = []
    for every in (None, 1):
        clip = load_clip("clip-mini", seed=0)
        clip.model.visual.patch_dropout = PatchDropout(0.5)
        train(FT, clip, world.pairs, world.alignment, world.images, tmp_path / str(every),
              log=False, every=every, on_step=lambda step, model: None)
        ends.append(clip)
    assert same_weights(*ends) and not same_weights(ends[0], world.train(FT, tmp_path / "c")[1])


def test_what_the_model_draws_depends_on_seed_and_step_alone(world):
    def loss(seed: int, step: int) -> float:
        clip = load_clip("clip-mini", seed=0)
        clip.model.visual.patch_dropout = PatchDropout(0.5)
        run = Run(replace(FT, seed=seed), clip, world.pairs, world.alignment, world.images)
        return run.step(step, batch)["loss"]

    batch = Run(FT, world.clip, world.pairs, world.alignment, world.images).batches.at(0)
    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(1, 1), loss(0, 2)}) == 3


@pytest.mark.parametrize(("start", "bound"), [(9.0, math.log(100)), (-9.0, 0.0)])
def test_the_temperature_is_within_its_bounds_after_a_step(world, tmp_path, start, bound):
    clip = load_clip("clip-mini", seed=0)
    clip.model.logit_scale.data.fill_(start)
    train(replace(FT, steps=1), clip, world.pairs, world.alignment, world.images, tmp_path,
          log=False)
    assert clip.model.logit_scale.item() == pytest.approx(bound)


def test_a_crash_costs_the_steps_since_the_last_state_only(world, tmp_path):
    def crash(step, model):
        if step == 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        world.train(FT, tmp_path / "a", save_every=2, every=1, on_step=crash)
    log = tmp_path / "a" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "lo')
    steps = []
    result, resumed = world.train(
        FT, tmp_path / "a", every=1, on_step=lambda step, model: steps.append(step)
    )
    assert steps == [3, 4, 5]
    whole, expected = world.train(FT, tmp_path / "b")
    assert same_weights(resumed, expected)
    assert lines(result.log) == lines(whole.log)


def test_a_loss_that_is_not_finite_names_the_rows_and_saves_the_step_before(world, tmp_path):
    broken = World()
    run = Run(FT, broken.clip, broken.pairs, broken.alignment, broken.images)
    rows = run.batches.order.rows(0)
    bad = next(row for row in run.batches.order.rows(1).tolist() if row % 4 not in rows % 4)
    broken.images.pixels[bad % 4] = math.nan
    with pytest.raises(NotFiniteError, match="step 2 of ft: loss nan") as error:
        broken.train(FT, tmp_path)
    assert str(run.batches.order.rows(1).tolist()) in str(error.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(world, tmp_path):
    clip = load_clip("clip-mini", seed=0)
    clip.model.visual.proj.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFiniteError, match=r"loss [0-9.]+, gradient norm (nan|inf)"):
        train(FT, clip, world.pairs, world.alignment, world.images, tmp_path, log=False)
    assert same_weights(clip, world.clip)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 0


def test_the_state_of_another_run_is_refused(world, tmp_path):
    world.train(FT, tmp_path, stop_after=2)
    with pytest.raises(CheckpointError, match=r"state of another run \(other settings\)"):
        world.train(replace(FT, lr=2e-3), tmp_path)
    (tmp_path / "state.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged state file"):
        world.train(FT, tmp_path)


def test_pairs_and_pictures_that_do_not_belong_together_are_refused(world):
    with pytest.raises(DataError, match="4 picture paths with 3 pictures"):
        Run(FT, world.clip, world.pairs, world.alignment, Pictures(3))


def test_the_progress_line_shows_loss_attributions_and_speed(world, tmp_path, capsys):
    world.train(CAE, tmp_path, log=True)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    for part in ("cae/0 5/5", "loss ", "A_obj ", "A_comp ", "samples/s "):
        assert part in line

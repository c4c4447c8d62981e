"""The trainer: it learns, resumes bit for bit, and stops cleanly."""

import math
import signal
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from open_clip.transformer import PatchDropout
from toys import FT, Toys, lines, same_weights, send, toy_clip, toy_pairs, toy_run, toy_train

from cae_lib.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Terminated,
    TimeLimitError,
    WriteError,
)
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.weight_files import read_state_dict
from cae_lib.training import trainer
from cae_lib.training.inputs import run_inputs
from cae_lib.training.trainer import NotFiniteError

CAE = replace(FT, name="cae", method="attention", weight=1.0, margin=0.5)
HARD = replace(CAE, negatives=True)


@pytest.mark.parametrize("experiment", [FT, HARD], ids=["ft", "negclip-cae"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, experiment):
    expected, whole = toy_train(experiment, tmp_path / "whole")
    number = signal.SIGINT if experiment is FT else signal.SIGTERM
    before, parts = signal.getsignal(number), tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
        toy_train(experiment, parts, **send(number, at=3))
    assert signal.getsignal(number) == before
    assert sorted(path.name for path in parts.iterdir()) == ["log.jsonl", "state.pt"]
    with (parts / "log.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"step": 5, "lo')  # as a crash leaves it
    torch.manual_seed(99)  # the global generator must not matter
    resumed, log = toy_train(experiment, parts)
    assert same_weights(resumed, expected)
    assert log == whole
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]


def test_a_state_is_saved_each_minute(tmp_path, monkeypatch):
    """By a clock that gives each step 25 seconds; the process ends in step 4, without a signal."""

    def crash(step, model):
        if step == 4:
            raise RuntimeError

    ticks = count(step=25)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with pytest.raises(RuntimeError):
        toy_train(HARD, tmp_path, on_step_every=1, on_step=crash)
    assert torch.load(tmp_path / "state.pt")["step"] == 3


def test_a_training_that_would_take_too_long_stops_and_goes_on_once_it_may(tmp_path, monkeypatch):
    """By a clock that gives each step half an hour: 5 steps, of which 3 remain after two."""
    ticks = count(step=1800)  # read at the start and at the end of a step
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with pytest.raises(TimeLimitError, match=r"3 more steps .* 1 h 30 min .* hours=2"):
        toy_train(FT, tmp_path / "long", hours=1.0)
    assert [line["step"] for line in lines(tmp_path / "long")] == [1, 2]
    _, log = toy_train(FT, tmp_path / "long", hours=2.0)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5], "no step is taken twice"
    toy_train(FT, tmp_path / "any", hours=None)


def test_the_checkpoint_says_what_it_is_and_the_state_goes_at_the_end(tmp_path):
    clip, _ = toy_train(FT, tmp_path)
    checkpoint = tmp_path / "model.safetensors"
    meta = read_meta(checkpoint)
    assert (meta.model, meta.activation, meta.step) == ("clip-mini", "quickgelu", 5)
    assert (meta.config_key, meta.extra["identity"]) == (FT.key(), toy_run(FT).identity)
    stored = read_state_dict(checkpoint)
    assert all(torch.equal(stored[name], value) for name, value in clip.model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.jsonl",
        "model.json",
        "model.safetensors",
    ]
    assert not clip.model.training


def test_a_state_is_kept_until_the_weights_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "save_checkpoint", Mock(side_effect=WriteError("disk full")))
    with pytest.raises(WriteError):
        toy_train(FT, tmp_path, save_every=2)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def dropping_clip():
    """Return a model with randomness: it drops patches while it is in training mode."""
    clip = toy_clip()
    clip.model.visual.patch_dropout = PatchDropout(0.5)
    return clip


def test_the_hook_sees_the_model_on_its_way_and_changes_nothing(tmp_path):
    """The model is in training mode again after it: patches are dropped in every step."""
    seen, ends = [], []

    def look(step, model):
        seen.append((step, model.training, len(lines(tmp_path / "2"))))
        torch.rand(5)

    before = torch.get_rng_state()
    for every in (2, None):
        out = tmp_path / str(every)
        ends.append(toy_train(CAE, out, dropping_clip(), on_step_every=every, on_step=look)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == [(2, False, 2), (4, False, 4), (5, False, 5)]
    assert same_weights(*ends)
    assert not same_weights(ends[0], toy_train(CAE, tmp_path / "c")[0])


def test_draws_of_the_model_depend_on_seed_and_step_alone():
    def loss(seed: int, step: int) -> float:
        return toy_run(replace(FT, seed=seed), dropping_clip()).step(step, batch)["loss"]

    batch = toy_run(FT).batches.at(0)
    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(1, 1), loss(0, 2)}) == 3


def test_signals_that_come_twice_or_after_the_last_step(tmp_path):
    """Ctrl-C acts at once; `timeout` sends SIGTERM to a process and to its group."""
    with pytest.raises(KeyboardInterrupt) as stopped:
        toy_train(FT, tmp_path / "a", **send(signal.SIGINT, at=2, times=2))
    assert stopped.value.args == () and not (tmp_path / "a" / "state.pt").exists()
    with pytest.raises(Terminated):
        toy_train(FT, tmp_path / "b", **send(signal.SIGTERM, at=2, times=2))
    assert torch.load(tmp_path / "b" / "state.pt", weights_only=True)["step"] == 2
    try:
        toy_train(FT, tmp_path / "c", **send(signal.SIGTERM, at=5))
    except KeyboardInterrupt:
        pytest.fail("a complete run was stopped")
    assert read_meta(tmp_path / "c" / "model.safetensors").step == 5


@pytest.mark.parametrize(("start", "bound"), [(9.0, math.log(100)), (-9.0, 0.0)])
def test_the_temperature_is_within_its_bounds_after_a_step(tmp_path, start, bound):
    clip = toy_clip()
    clip.model.logit_scale.data.fill_(start)
    toy_train(replace(FT, steps=1), tmp_path, clip)
    assert clip.model.logit_scale.item() == pytest.approx(bound)


def test_a_loss_that_is_not_finite_names_the_rows_and_saves_the_step_before(tmp_path):
    first, second = (toy_run(FT).batches.row_numbers(step).tolist() for step in (0, 1))
    images = Toys()
    images.pixels[next(row for row in second if row not in first)] = math.nan
    with pytest.raises(NotFiniteError, match="step 2 of ft: loss nan") as error:
        toy_train(FT, tmp_path, images=images)
    assert str(second) in str(error.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(tmp_path):
    clip = toy_clip()
    clip.model.visual.proj.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFiniteError, match=r"loss [0-9.]+, gradient norm (nan|inf)"):
        toy_train(FT, tmp_path, clip)
    assert same_weights(clip, toy_clip())
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 0


GIVEN = {"foils": "given", "foil_hinge": True, "weight": 1.0, "margin": 0.3}
MATCHED = {"method": "gradcam", "weight": 3.0, "roles": "permuted", "match_gradient": True}
FURTHER = {"method": "gradcam", "weight": 3.0, "further_methods": (("attention", 1.0),)}
WITHOUT_SENSE = [
    (GIVEN | {"margin": 0.0}, "margin 0.0"),
    (GIVEN | {"weight": 0.0}, "weight"),
    (GIVEN | {"foils": None}, "foil_hinge"),
    ({"foils": "given", "negatives": True}, "foils cannot"),
    ({"lock_trunk": True}, "lock_trunk needs an image tower of timm"),
    ({"margin_rule": "adaptive"}, "margin_rule"),
    ({"margin_rule": "growing"}, "margin_rule"),
    (MATCHED | {"roles": "parsed"}, "match_gradient"),
    (MATCHED | {"method": None}, "match_gradient"),
    (MATCHED | {"hinge": "log"}, "match_gradient"),
    (MATCHED | {"scope": "caption"}, "match_gradient"),
    (MATCHED | {"further_methods": (("attention", 1.0),)}, "match_gradient"),
    (FURTHER | {"method": None}, "method"),
    (FURTHER | {"further_methods": (("gradcam", 1.0),)}, "method"),
    (FURTHER | {"further_methods": (("gradient", 1.0), ("gradient", 2.0))}, "method"),
    (FURTHER | {"further_methods": (("gradients", 1.0),)}, "method"),
    (FURTHER | {"further_methods": (("gradient", -1.0),)}, "weight"),
]


@pytest.mark.parametrize(("changes", "message"), WITHOUT_SENSE, ids=str)
def test_settings_that_make_no_sense_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_run(replace(FT, **changes))


@pytest.mark.parametrize(
    ("changes", "pairs", "message"),
    [
        ({}, {"image_paths": []}, "0 image paths with 8 images"),
        ({"negatives": True}, {"negatives": None, "hard_images": None}, "neg_caption"),
        ({"foils": "given"}, {"negatives": [[]] * 8}, "toy has no negative captions"),
    ],
)
def test_data_that_lack_what_a_run_needs_are_refused(changes, pairs, message):
    with pytest.raises(DataError, match=message):
        toy_run(replace(FT, **changes), pairs=toy_pairs(**pairs))


@pytest.mark.parametrize(
    "changes", [{"negatives": True}, {"foils": "given", "foil_hinge": True, "margin": 2.0}]
)
def test_a_batch_may_have_no_negative_captions(changes, tmp_path):
    experiment = replace(FT, weight=1.0, steps=4, batch_size=2, **changes)
    _, log = toy_train(experiment, tmp_path, pairs=toy_pairs(negatives=[[]] * 7 + [["one"]]))
    assert all(math.isfinite(line["loss"]) for line in log)
    if "foils" in changes:
        assert sorted(line["attribution"] > 0 for line in log) == [False] * 3 + [True]
    else:
        assert min(line["n_negatives"] for line in log) == 0


def test_a_state_of_other_inputs_or_of_no_training_is_refused(tmp_path) -> None:
    inputs, state = run_inputs(FT, "data", "start"), tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        toy_train(FT, tmp_path, inputs=inputs, **send(signal.SIGINT, at=2))
    for name in inputs:
        with pytest.raises(CheckpointError, match=f"other {name}"):
            toy_train(FT, tmp_path, inputs=inputs | {name: "other"})
    with pytest.raises(CheckpointError, match=r"\(other settings\)"):
        toy_train(FT, tmp_path, inputs=run_inputs(replace(FT, lr=2e-3), "data", "start"))
    state.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged state file"):
        toy_train(FT, tmp_path, inputs=inputs)
    for foreign in ({"weight": torch.zeros(2)}, [torch.zeros(2)], {"identity": inputs}):
        torch.save(foreign, state)
        with pytest.raises(CheckpointError, match=r"state\.pt: no state of a training"):
            toy_train(FT, tmp_path, inputs=inputs)

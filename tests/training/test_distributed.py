"""Two gloo processes give the losses, gradients and files of one."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import FT, Toys, lines, send, toy_run, toy_train

from cae_lab.profiles import load_profile
from cae_lab.training_set import training_set
from cae_lib.config import Experiment
from cae_lib.errors import ConfigError
from cae_lib.models.checkpoint import read_meta
from cae_lib.training.distributed import Ranks
from cae_lib.training.trainer import NotFiniteError

PLAIN = replace(FT, steps=3)
CAE = replace(PLAIN, method="attention", weight=3.0, margin=2.0)
HARD = replace(CAE, method="gradcam", negatives=True)
CASES = {
    "clip-ft": PLAIN,
    "negclip": replace(PLAIN, negatives=True),
    "negclip-cae": HARD,
    "locked": replace(HARD, lock_image=True, augment=False),
    "all-captions": replace(CAE, method="gradient", scope="word", complete_captions=False),
    "perturbation-constant-image": replace(CAE, method="perturbation", image_gradient=False),
    "gradient-caption": replace(CAE, method="gradient", scope="caption"),
    "margin-word": replace(CAE, hinge="margin", scope="word"),
    "log-batch": replace(CAE, hinge="log"),
    "margin-loss": replace(PLAIN, foils="given", foil_hinge=True, margin=2.0, weight=3.0),
}


def losses_and_gradients(experiment: Experiment, ranks: Ranks | None = None) -> dict[str, Tensor]:
    run = toy_run(experiment, ranks=ranks)
    measured = run.objective(run.batches.at(1))
    measured["loss"].backward()
    result = {name: value.detach().double() for name, value in measured.items()}
    gradients = {name: p.grad for name, p in run.model.named_parameters() if p.requires_grad}
    return result | gradients


def work(ranks: Ranks, folder: Path) -> None:
    """Do the work of one of two processes; the tests read what it writes."""
    for name, experiment in CASES.items():
        torch.save(losses_and_gradients(experiment, ranks), folder / f"{name}-{ranks.rank}.pt")
    toy_train(HARD, folder / f"own-{ranks.rank}")
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        toy_train(HARD, folder / "stopped", **send(signal.SIGTERM, at=2))  # to the main process
    ranks.barrier()
    toy_train(HARD, folder / "stopped")
    images = Toys()
    images.pixels[int(toy_run(PLAIN, ranks=ranks).batches.row_numbers(1)[-1])] = (
        torch.nan
    )  # in process 1
    with pytest.raises(NotFiniteError) as error:
        toy_train(PLAIN, folder / "nan", images=images)
    (folder / f"nan-{ranks.rank}.txt").write_text(str(error.value))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_loss_and_gradients_of_one(name: str, halves: Path, home) -> None:
    whole = losses_and_gradients(CASES[name])
    for rank in range(2):
        actual = torch.load(halves / f"{name}-{rank}.pt")
        assert actual.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(actual[key], value, atol=1e-5, rtol=1e-5, msg=key)
    if CASES[name].method:
        assert whole["attribution"] > 0
        assert whole["n_composition"] > 0
        gradient = whole["transformer.resblocks.0.attn.in_proj_weight"]
        plain = losses_and_gradients(replace(CASES[name], weight=0.0))
        other = plain["transformer.resblocks.0.attn.in_proj_weight"]
        assert (gradient - other).norm() > 0.05 * other.norm()  # L_attr is part of what is equal
        moves = CASES[name].method != "attention" and CASES[name].image_gradient
        for patches in {"visual.conv1.weight"} & whole.keys():
            assert torch.equal(whole[patches], plain[patches]) != moves


def test_the_trainer_logs_what_one_process_logs_and_only_one_process_writes(halves, tmp_path):
    _, expected = toy_train(HARD, tmp_path)
    for folder in ("own-0", "stopped"):  # the second went on after it was stopped
        for ours, theirs in zip(lines(halves / folder), expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
        actual = sorted(path.name for path in (halves / folder).iterdir())
        assert actual == ["log.jsonl", "model.json", "model.safetensors"]
    assert not list((halves / "own-1").iterdir())


def test_two_processes_train_a_run_of_the_profile(halves: Path, smoke_home: Path) -> None:
    """By `torchrun` on the command itself; `two_processes.py` has called it."""
    training_set.cache_clear()
    smoke = load_profile("smoke")
    smoke.run("cae-attention").train()
    training_set.cache_clear()
    one, two = (home / "data/checkpoints/smoke/cae-attention/0" for home in (smoke_home, halves))
    assert read_meta(two / "model.safetensors") == read_meta(one / "model.safetensors")
    assert len(lines(one)) == smoke.experiment("cae-attention").steps
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_all_processes_stop_at_a_loss_that_is_not_finite(halves: Path) -> None:
    rows = toy_run(PLAIN).batches.row_numbers(1).tolist()
    for rank in range(2):
        message = (halves / f"nan-{rank}.txt").read_text()
        assert message.startswith("step 2 of ft: loss nan")
        assert str(rows) in message
    state = torch.load(halves / "nan" / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_sum_over_processes_leaves_what_is_summed_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.add_(1))
    values = torch.arange(3.0)
    assert Ranks(0, 2).sum(values).tolist() == [1, 2, 3]
    assert values.tolist() == [0, 1, 2]


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is 4, but 3 processes"):
        toy_run(PLAIN, ranks=Ranks(0, 3))

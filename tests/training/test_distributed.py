"""Two gloo processes give the losses, gradients and files of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import ConfigError
from cae_lib.models.clip import load_clip
from cae_lib.training.batch import Batches
from cae_lib.training.distributed import Ranks, joined
from cae_lib.training.loop import train
from cae_lib.training.run import NotFiniteError, Run
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

PLAIN = Experiment("ft", "smoke", steps=2, batch_size=4, warmup=1, lr=1e-3)
METHODS = ("attention", "gradcam", "perturbation", "gradient")
CASES = {
    "clip-ft": PLAIN,
    "negclip": replace(PLAIN, negatives=True),
    "negclip-cae": replace(PLAIN, negatives=True, method="gradcam", weight=3.0, margin=2.0),
    "caption-scope": replace(PLAIN, method="attention", weight=3.0, margin=2.0, scope="caption"),
    "word-scope": replace(PLAIN, method="gradient", weight=3.0, margin=2.0, scope="word"),
    **{name: replace(PLAIN, method=name, weight=3.0, margin=2.0) for name in METHODS},
}


class Pictures:
    """Random pictures in memory; a crop is stood in for by noise from the generator."""

    def __init__(self, broken: int | None = None) -> None:
        self.pixels = torch.randn(8, 3, 112, 112, generator=torch.Generator().manual_seed(0))
        if broken is not None:
            self.pixels[broken] = torch.nan
        self.interrupt_at, self.calls = None, 0

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index, generator=None, part=None):
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        crops = self.pixels[index] + torch.randn(len(index), 3, 1, 1, generator=generator)
        return crops if part is None else crops[part]


def make_run(experiment: Experiment, ranks: Ranks | None = None) -> Run:
    """A run on eight captions: their composition words are unevenly spread over the batch."""
    clip, pairs, alignment = data()
    with torch.no_grad():  # scores far from 0, features far from each other
        clip.model.token_embedding.weight.mul_(20)
    return Run(experiment, clip, pairs, alignment, Pictures(), ranks)


def data():
    clip = load_clip("clip-mini", seed=0)
    captions = [f"a {adjective} cat sits on a mat" for adjective in ("red", "blue", "big", "wet")]
    captions += ["a cat", "the old grey dog chases two small cats", "red", "a dog near a car"]
    roles = {"cat": OBJECT, "cats": OBJECT, "mat": OBJECT, "dog": OBJECT, "car": OBJECT,
             "sits on": RELATION, "chases": RELATION, "near": RELATION, "red": ATTRIBUTE,
             "blue": ATTRIBUTE, "grey": ATTRIBUTE, "small": ATTRIBUTE}
    spans = [
        [Span(f" {c} ".index(f" {w} "), f" {c} ".index(f" {w} ") + len(w), r)
         for w, r in roles.items() if f" {w} " in f" {c} "]
        for c in captions
    ]
    negatives = [[f"no {caption}"] if row % 3 else [] for row, caption in enumerate(captions)]
    hard = [[(row + 1) % 8, (row + 5) % 8] for row in range(8)]
    paths = [Path(f"{i}.png") for i in range(8)]
    pairs = Pairs(paths, captions, torch.arange(8), "toy", 8, 8, negatives, hard)
    return clip, pairs, align(captions, spans, clip.tokenizer)


def losses_and_gradients(run: Run) -> dict[str, Tensor]:
    measured = run.objective(run.batches.at(1))
    measured["loss"].backward()
    result = {name: value.detach().double() for name, value in measured.items()}
    return result | {name: p.grad for name, p in run.model.named_parameters()}


def compare(ranks: Ranks, folder: Path) -> None:
    for name, experiment in CASES.items():
        found = losses_and_gradients(make_run(experiment, ranks))
        torch.save(found, folder / f"{name}-{ranks.rank}.pt")


def run_training(out: Path, images: Pictures | None = None, **options) -> None:
    clip, pairs, alignment = data()
    experiment = replace(CASES["negclip-cae"], steps=3)
    train(experiment, clip, pairs, alignment, images or Pictures(), out, log=False, **options)


def use_the_trainer(ranks: Ranks, folder: Path) -> None:
    run_training(folder / f"own-{ranks.rank}")
    run_training(folder / "parts", stop_after=1)
    run_training(folder / "parts")


def meet_what_is_not_finite(ranks: Ranks, folder: Path) -> None:
    row = int(make_run(PLAIN, ranks).batches.order.rows(1)[-1])  # in the share of process 1
    clip, pairs, alignment = data()
    with pytest.raises(NotFiniteError) as error:
        train(PLAIN, clip, pairs, alignment, Pictures(row), folder / "nan", log=False)
    (folder / f"nan-{ranks.rank}.txt").write_text(str(error.value))


def interrupt_one(ranks: Ranks, folder: Path) -> None:
    images = Pictures()
    if not ranks.is_main:
        images.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        run_training(folder / "stopped", images)


TASKS = (compare, use_the_trainer, meet_what_is_not_finite, interrupt_one)


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> Path:
    """What two processes left that ran this file."""
    folder = tmp_path_factory.mktemp("halves")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
             "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(errors)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_loss_and_gradients_of_one(name: str, halves: Path) -> None:
    whole = losses_and_gradients(make_run(CASES[name]))
    for rank in range(2):
        found = torch.load(halves / f"{name}-{rank}.pt")
        assert found.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5, msg=key)
    if CASES[name].method:
        assert whole["attribution"] > 0 and whole["n_composition"] > 0
        gradient = whole["transformer.resblocks.0.attn.in_proj_weight"]
        plain = losses_and_gradients(make_run(replace(CASES[name], weight=0.0)))
        other = plain["transformer.resblocks.0.attn.in_proj_weight"]
        assert (gradient - other).norm() > 0.05 * other.norm()  # L_attr is part of what is equal


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_trainer_logs_what_one_process_logs_and_only_one_process_writes(
    halves: Path, tmp_path: Path
) -> None:
    run_training(tmp_path)
    expected = lines(tmp_path / "log.jsonl")
    for folder in ("own-0", "parts"):
        found = lines(halves / folder / "log.jsonl")
        assert len(found) == len(expected) == 3
        for ours, theirs in zip(found, expected, strict=True):
            ours["samples_per_second"] = theirs["samples_per_second"] = 0.0
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    expected = ["log.jsonl", "model.json", "model.safetensors"]
    assert sorted(path.name for path in (halves / "own-0").iterdir()) == expected
    assert sorted(path.name for path in (halves / "parts").iterdir()) == expected
    assert not list((halves / "own-1").iterdir())


def test_all_processes_stop_at_a_loss_that_is_not_finite(halves: Path) -> None:
    rows = make_run(PLAIN).batches.order.rows(1).tolist()
    for rank in range(2):
        message = (halves / f"nan-{rank}.txt").read_text()
        assert message.startswith("step 2 of ft: loss nan") and str(rows) in message
    state = torch.load(halves / "nan" / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_signal_to_one_process_stops_both_after_the_same_step(halves: Path) -> None:
    assert torch.load(halves / "stopped" / "state.pt", weights_only=True)["step"] == 2


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    clip, pairs, alignment = data()
    with pytest.raises(ConfigError, match="batch_size is 4, but 3 processes"):
        Batches(PLAIN, pairs, alignment, Pictures(), clip.tokenizer, Ranks(0, 3))


def test_processes_of_other_machines_do_not_count_as_neighbours(monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (Ranks(3, 8).here, Ranks().here) == (2, 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert Ranks(1, 4).here == 4


@pytest.mark.parametrize("name", ["clip-ft", "negclip"])
def test_shares_make_up_the_batch(name: str) -> None:
    whole = make_run(CASES[name]).batches.at(1)
    clip, pairs, alignment = data()
    arguments = (CASES[name], pairs, alignment, Pictures(), clip.tokenizer)
    parts = [Batches(*arguments, Ranks(rank, 2)).at(1) for rank in range(2)]
    assert all(torch.equal(part.rows, whole.rows) for part in parts)
    for field in ("tokens", "pixels", "roles", "negatives"):
        if getattr(whole, field) is not None:
            both = torch.cat([getattr(part, field) for part in parts]).flatten(1)
            assert sorted(map(tuple, both.tolist())) == sorted(
                map(tuple, getattr(whole, field).flatten(1).tolist())
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ours:
        for task in TASKS:
            task(ours, Path(sys.argv[1]))
            ours.wait()

"""What a stranger adds: a method or a benchmark is a file and a line, a run an entry; each works in
a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cae_lab.profiles import load_profile
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint

FILE = """
from dataclasses import dataclass

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions


@dataclass(frozen=True)
class SizeAttribution(AttributionMethod):
    power: float = 1.0

    def score(self, captions: Captions) -> Attribution:
        output = captions.encoder.encode(captions.tokens)
        return Attribution(output.embeddings.norm(dim=-1) ** self.power, output.features)
"""
USE = """
import torch
from pathlib import Path

import cae_bench
import cae_lib as cae
from cae_lab import load_profile, plots
from cae_lab.cli import main
from cae_lib.attribution import get_method
from cae_lib.models import load_clip, read_meta

assert Path(cae.__file__).is_relative_to(Path.cwd())
assert plots.label("cae-size") == "CLIP-CAE (size)" and plots.method_label("cae-size") == "size"
assert plots.METHOD_COLORS["size"] == "red"
clip = load_clip()
tokens = clip.tokenizer(["a dog"])
scores = get_method("size", power=2.0)(clip.model, tokens, torch.ones(1, 128)).scores
squares = clip.model.token_embedding(tokens).square().sum(-1)
torch.testing.assert_close(scores, squares[:, : scores.shape[1]].detach(), rtol=1e-5, atol=0)
assert main(["train", "cae-size", "--profile", "smoke"]) == 0
run = load_profile("smoke").run("cae-size")
meta = read_meta(run.path)
assert meta.step == 3 and meta.config_key == run.config.key()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("cae_lib", "cae_bench", "cae_lab"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    (tmp_path / "pyproject.toml").touch()  # which makes it a clone
    return tmp_path


BENCHMARK = """
from collections.abc import Iterator
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import json_rows


def read(root: Path, subset: str) -> Iterator[Item]:
    for row in json_rows(root / "our-set/ours.json"):
        image = ImageRef(root / "our-set/images" / row.text("file"))
        yield Item(row.key, (image,), (row.text("right"), row.text("wrong")))


FAMILY = Family("ours", "our-set", read, {"all": 2}, ("our-set/ours.json",), images_advice="drawn")
"""
USE_BENCHMARK = """
table = cae_bench.evaluate(cae.load_clip(), "ours")
assert [*table["dataset"]] == ["ours/all"] and [*table["n_used"]] == [*table["n_expected"]] == [2]
"""


def use(package: Path, steps: str) -> None:
    """Run lines with the copy of the package."""
    done = subprocess.run(
        [sys.executable, "-c", steps],
        cwd=package,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )
    assert done.returncode == 0, done.stderr


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))


def test_a_method_and_a_benchmark_are_a_file_and_a_line_and_a_run_is_an_entry(
    package, home, smoke_world, tiny_clip
) -> None:
    (package / "cae_lib" / "attribution" / "size.py").write_text(FILE)
    line = '    "size": MethodInfo("SizeAttribution", "size", "red"),\n'
    edit(package / "cae_lib" / "methods.py", "] = {\n", "] = {\n" + line)
    runs = package / "configs" / "smoke.yaml"
    edit(runs, "runs:\n", "runs:\n  cae-size: {method: size, weight: 0.5}\n")
    folder = package / "cae_bench" / "benchmarks"
    (folder / "ours.py").write_text(BENCHMARK)
    edit(folder / "__init__.py", "    order,\n", "    order,\n    ours,\n")
    edit(
        folder / "__init__.py",
        "        mmvp_vlm.FAMILY,\n",
        "        mmvp_vlm.FAMILY,\n        ours.FAMILY,\n",
    )
    (home / "data" / "raw").mkdir(parents=True)
    (home / "data" / "raw" / "world-smoke").symlink_to(smoke_world)
    base = home / "data" / load_profile("smoke").experiment("clip-ft").weights
    save_checkpoint(base, tiny_clip, CheckpointMeta("clip-mini", "quickgelu"))
    folder = home / "data" / "raw" / "our-set"
    (folder / "images").mkdir(parents=True)
    picture = next(smoke_world.rglob("*.png"))
    shutil.copy(picture, folder / "images" / "a.png")
    rows = [{"file": "a.png", "right": "a dog", "wrong": other} for other in ("a cat", "a hat")]
    (folder / "ours.json").write_text(json.dumps(rows))
    use(package, USE + USE_BENCHMARK)

"""A new attribution method is one file: it scores, trains and is shown, and makes nothing stale."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cae_lib import methods
from cae_lib.config import experiment
from cae_lib.errors import ConfigError
from cae_lib.evaluation.suites import SUITES
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.pages import stamp
from cae_lib.runtime import PACKAGE, measuring_hash, training_hash

FILE = '''
from dataclasses import dataclass

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions


@dataclass(frozen=True)
class SizeAttribution(AttributionMethod, label="size", color="#123456", weight=0.5):
    power: float = 1.0

    def score(self, captions: Captions) -> Attribution:
        output = captions.encoder.encode(captions.tokens)
        return Attribution(output.embeddings.norm(dim=-1) ** self.power, output.features)
'''
USE = '''
import torch
from pathlib import Path

import cae_lib
from cae_lib import plots
from cae_lib.attribution import get_method
from cae_lib.cli import main
from cae_lib.config import experiment
from cae_lib.models import load_clip, read_meta
from cae_lib.runs import checkpoint_path

assert Path(cae_lib.__file__).is_relative_to(Path.cwd())
assert plots.label("cae-size") == "CLIP-CAE (size)" and plots.method_of("cae-size") == "size"
assert plots.METHOD_COLORS["size"] == "#123456"
clip = load_clip()
tokens = clip.tokenizer(["a dog"])
found = get_method("size", power=2.0)(clip.model, tokens, torch.ones(1, 128)).scores
squares = clip.model.token_embedding(tokens).square().sum(-1)
torch.testing.assert_close(found, squares[:, : found.shape[1]].detach(), rtol=1e-5, atol=0)
assert main(["train", "cae-size", "--profile", "smoke"]) == 0
meta = read_meta(checkpoint_path("cae-size", "smoke"))
assert meta.step == 3 and meta.config_key == experiment("cae-size", "smoke").key()
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "cae_lib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_one_file_scores_trains_and_is_shown(package, home, smoke_world, tiny_clip) -> None:
    (package / "attribution" / "size.py").write_text(FILE)
    (home / "data" / "raw").mkdir(parents=True)
    (home / "data" / "raw" / "world-smoke").symlink_to(smoke_world)
    shutil.copy(REPOSITORY / "data" / "sources.yml", home / "data")
    base = home / "data" / experiment("clip-ft", "smoke").weights
    save_checkpoint(base, tiny_clip, CheckpointMeta("clip-mini", "quickgelu"))
    done = subprocess.run([sys.executable, "-c", USE], cwd=package.parent, text=True,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(package.parent)})
    assert done.returncode == 0, done.stderr


def test_one_file_makes_nothing_stale(package) -> None:
    def hashes(method: str) -> list[str]:
        training_hash.cache_clear()
        measuring_hash.cache_clear()
        return [training_hash(package, method), training_hash(package, None),
                *(measuring_hash(suite.modules, (), package) for suite in SUITES.values())]
    before = hashes("gradient")
    (package / "attribution" / "size.py").write_text(FILE)
    assert hashes("gradient") == before
    first, *_ = hashes("size")
    (package / "attribution" / "size.py").write_text(FILE.replace("1.0", "2.0"))
    assert hashes("size")[0] != first != before[0]


def test_pages_are_stale_by_the_label_of_one_of_the_papers_methods_alone(home, monkeypatch) -> None:
    before, known = stamp.tables_hash("smoke"), methods.methods()
    other = known["gradcam"]._replace(label="other")
    for name, stale in (("size", False), ("gradcam", True)):
        monkeypatch.setattr(stamp, "methods", lambda name=name: known | {name: other})
        assert (stamp.tables_hash("smoke") != before) == stale


def test_a_header_that_cannot_be_read_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(methods, "FOLDER", tmp_path)
    (tmp_path / "size.py").write_text(FILE.replace("weight=0.5", "lambda_=0.5"))
    with pytest.raises(ConfigError, match="size.py: SizeAttribution.*lambda_.*label, color"):
        methods.methods.__wrapped__()

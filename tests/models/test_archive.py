"""OpenAI's own file format: what is in an archive is read, and nothing of it is run."""

import zipfile
from pathlib import Path

import pytest
import torch
from cae_lib.models.archive import read_archive, unpacked, write_archive

from cae_lib.config import experiment
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.runs import weights_of, weights_path


@pytest.fixture
def written(tiny_clip: Clip, tmp_path: Path) -> Path:
    path = tmp_path / "ViT.pt"
    write_archive(tiny_clip, path)
    return path


def test_weights_come_back_as_torch_reads_them(tiny_clip, written):
    expected = {name: value for name, value in torch.jit.load(str(written)).state_dict().items()
                if name not in ("input_resolution", "context_length", "vocab_size")}
    found = read_archive(written)
    assert found.keys() == expected.keys() == tiny_clip.model.state_dict().keys()
    for name, value in found.items():
        assert value.dtype == torch.float16 and torch.equal(value, expected[name]), name


def test_an_archive_by_another_program(tmp_path):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Linear(3, 2, bias=False).half()
            self.register_buffer("input_resolution", torch.tensor(224))
            self.logit_scale = torch.nn.Parameter(torch.tensor(4.6))
            self.sizes = [1, 2]

        def forward(self, values):
            return self.visual(values) * self.sizes[0]

    module = Plain()
    torch.jit.save(torch.jit.script(module), str(tmp_path / "other.pt"))
    found = read_archive(tmp_path / "other.pt")
    assert found.keys() == {"visual.weight", "logit_scale"}
    assert torch.equal(found["visual.weight"], module.visual.weight)


def test_what_could_run_is_refused(written, tmp_path):
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                content = b"cbuiltins\nprint\n(S'run'\ntR."
            target.writestr(name.replace("ViT/", "evil/"), content)
    with pytest.raises(CheckpointError, match="builtins"):
        read_archive(evil)
    (tmp_path / "none.pt").write_bytes(b"PK but no archive")
    with pytest.raises(CheckpointError, match="none.pt"):
        read_archive(tmp_path / "none.pt")


def test_it_stands_in_for_the_tag_and_says_its_activation(home, tiny_clip, monkeypatch):
    config = experiment("clip-ft", "paper", model="clip-mini")
    assert weights_path(config) == "openai"
    place = home / "data/raw/weights/openai/clip-mini.pt"
    write_archive(tiny_clip, place)
    path = weights_path(config)
    assert isinstance(path, Path) and path.is_relative_to(home / "data/cache")
    assert read_meta(path).activation == "quickgelu"
    weights = weights_of("base", "paper", model="clip-mini")
    read = weights.load().model.state_dict()
    own = tiny_clip.model.state_dict()
    assert all(torch.equal(read[name], value.half().float()) for name, value in own.items())
    before = path.stat().st_mtime_ns
    assert unpacked(place, "clip-mini", path) == path and path.stat().st_mtime_ns == before
    assert weights_path(experiment("clip-ft", "mini")) != path
    load_clip("clip-mini", path)

"""Files that the hub, Google Drive or open_clip give: stand-ins for their libraries."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from cae_lib.data import services
from cae_lib.data.completeness import check
from cae_lib.data.download import Offline
from cae_lib.data.fetch import get, instruction
from cae_lib.data.sources import Item
from cae_lib.errors import DataError


def gated(*arguments, **options):
    import httpx
    from huggingface_hub.errors import GatedRepoError

    raise GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "h:")))


def unreachable(*arguments, **options):
    from huggingface_hub.errors import LocalEntryNotFoundError

    raise LocalEntryNotFoundError("no connection")


HUB = Item(hub="datasets/facebook/winoground", path="data/examples.jsonl", to="examples.jsonl")


def test_gated_set_tells_where_to_accept_its_terms(make_source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", gated)
    with pytest.raises(DataError, match="Accept them at https://terms, then sign in with `hf auth"):
        get(make_source(HUB, gated="https://terms"))


def test_hub_out_of_reach(make_source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(Offline, match="Fetch the file at https://huggingface.co/datasets/facebook"):
        get(make_source(HUB))


def test_file_of_the_hub_comes_to_its_place(make_source, monkeypatch):
    def serve(name, path, repo_type, local_dir):
        assert (name, path, repo_type) == ("facebook/winoground", HUB.path, "dataset")
        found = Path(local_dir, path)
        found.parent.mkdir(parents=True)
        found.write_text("{}")
        return str(found)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    entry = make_source(HUB)
    get(entry)
    assert [p.name for p in entry.root.iterdir()] == ["examples.jsonl"]


def test_whole_repository_that_was_interrupted_goes_on(make_source, monkeypatch):
    calls = []

    def serve(name, repo_type, local_dir):
        calls.append((name, repo_type))
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / f"{len(calls)}.json").write_text("[]")
        if len(calls) == 1:
            raise ConnectionError("cut")

    monkeypatch.setattr("huggingface_hub.snapshot_download", serve)
    entry = make_source(Item(hub="datasets/a/b", to="."))
    with pytest.raises(Offline, match="Fetch all files at https://huggingface.co/datasets/a/b"):
        get(entry)
    assert get(entry) == get(entry) == []
    assert calls == [("a/b", "dataset")] * 2
    assert check(entry).lines() == ["toy: unknown; 2 files"]


def test_file_of_google_drive(make_source, monkeypatch, rows):
    def serve(id, output, resume):
        assert (id, resume) == ("X", True)
        Path(output).write_bytes(rows)

    entry = make_source(Item(drive="X", to="rows.json"))
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"cae-lib\[data\].*drive.google.com/file/d/X/view"):
        get(entry)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=serve))
    assert get(entry) == []
    assert (entry.root / "rows.json").read_bytes() == rows


def test_open_clips_weights(make_source, monkeypatch):
    item = Item(open_clip=("ViT-B-32", "openai"), cache="timm/x")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: None)
    assert services.open_clip_file(item) is None
    assert check(make_source(item)).state == "not here"
    assert "copy its folder ~/.cache/huggingface/hub" in instruction(make_source(item), item)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repository, name: str(Path(__file__))
    )
    assert get(make_source(item)) == []
    assert check(make_source(item)).state == "complete"

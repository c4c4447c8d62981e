"""The profile of photographs from end to end, on sixteen drawn pictures and two steps a run."""

import job
import pandas as pd
import pytest
import torch

from cae_lab import grid, results
from cae_lab.profiles import PROFILES, load_profile
from cae_lib.config import paths
from cae_lib.models.clip import load_clip
from cae_lib.models.weight_files import read_state_dict
from data.recipes.photographs.trunk import fill_trunk

HARD = "negclip-cae-gradcam"
ROWS = ("clip-ft", HARD)


@pytest.mark.slow
def test_runs_of_photographs_start_from_the_base_and_share_its_pictures(flickr, short):
    methods = {name: PROFILES["photo"].runs[name] for name in ROWS}
    short("photo", methods | {HARD: methods[HARD] | {"batch_size": 2}}, precision="fp32")
    selection = grid.parse_selection(load_profile("photo"), {"runs": ",".join(ROWS)})
    job.make_data(selection.profile)
    job.make_base(selection)
    base = read_state_dict(load_profile("photo").run("base").path)
    clip = load_clip("clip-photo")
    fill_trunk(clip.model)
    trunk = {name: value for name, value in clip.model.state_dict().items() if "trunk" in name}
    assert all(torch.equal(base[name], value.to(base[name].dtype)) for name, value in trunk.items())
    names = grid.planned_runs(selection)
    assert set(names) == {"data/0", "base/0", *(f"{name}/0" for name in ROWS)}
    for name in names:
        job.train_and_measure(names[name], selection.studies)
    texts = []
    for name in ROWS:
        state = read_state_dict(load_profile("photo").run(name).path)
        images = [key for key in base if key.startswith("visual.")]
        assert all(torch.equal(state[key].float(), base[key].float()) for key in images)
        texts.append(state["text_projection"])
    assert not torch.equal(*texts)
    features = list((paths().cache / "features").glob("*.safetensors"))
    assert len(features) == 2, "the trunk's of the base's pictures, the tower's of the runs'"
    shared = list((paths().cache / "image-vectors").glob("*.npz"))
    assert len(shared) == 1, "all runs share it"
    answers = results.load("benchmarks", "photo", ["base", *ROWS], 1)
    assert {"aro", "sugarcrepe", "half_truths"} <= set(answers.family)
    assert answers.groupby("run").size().nunique() == 1
    stored = [*(paths().runs / "photo").rglob("*.parquet")]
    assert {"attribution", "benchmarks", "texts"} <= {path.stem for path in stored}
    for path in stored:  # no word of a caption is stored
        frame = pd.read_parquet(path).select_dtypes(exclude="number")
        texts = {str(text) for column in frame for text in frame[column].unique()}
        assert not {word for text in texts for word in text.split()} & {"dog", "boy", "grass"}
    first = {path: path.stat().st_mtime_ns for path in stored}
    for name in names:
        job.train_and_measure(names[name], selection.studies)
    assert {path: path.stat().st_mtime_ns for path in first} == first, "nothing is made twice"

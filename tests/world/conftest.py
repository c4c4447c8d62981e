"""A small configuration of the small world, and its sets before they are written."""

import pytest

from cae_lib.world import build
from cae_lib.world.config import WORLDS, WorldConfig
from cae_lib.world.scenes import Scene, SceneConfig, scenes


@pytest.fixture(scope="session")
def config() -> WorldConfig:
    return WORLDS["smoke"]


@pytest.fixture(scope="session")
def sampled() -> list[Scene]:
    return list(scenes(SceneConfig(), "tests", 1000))


@pytest.fixture(scope="session")
def exports(config):
    """The sets of the smoke profile by name, not yet written."""
    return {export.name: export for export in build.exports(config)}


@pytest.fixture(scope="session")
def shown(exports) -> dict[str, list[Scene]]:
    """The scenes of each picture file."""
    return {
        path: picture.scenes
        for export in exports.values()
        for path, picture in export.pictures.items()
    }

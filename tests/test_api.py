"""What a stranger calls: `import cae_lib as cae`, and nothing deeper."""

from pathlib import Path

import pytest

import cae_lib as cae
from cae_lib.errors import ConfigError


def test_scores_of_a_model_are_those_of_its_stored_answers(smoke_world, home, tiny_clip) -> None:
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(Path(smoke_world).parent)
    table = cae.evaluate(tiny_clip, "sugarcrepe", profile="smoke")
    assert {*table["dataset"].str.partition("/")[0]} == {"sugarcrepe"}
    assert (table["n_used"] == table["n_expected"]).all() and table["value"].between(0, 1).all()
    opened = cae.evaluate(lambda: tiny_clip, "sugarcrepe", profile="smoke")
    assert opened.equals(table)
    with pytest.raises(ConfigError, match="sugarcrape.*Known: aro"):
        cae.evaluate(tiny_clip, "sugarcrape", profile="smoke")

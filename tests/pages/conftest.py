"""A browser for the tests of what readers see."""

from collections.abc import Iterator

import pytest
from browser import Browser, find_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a headless browser, if there is one."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to run this")
    started = Browser(tmp_path_factory.mktemp("user"))
    yield started
    started.close()

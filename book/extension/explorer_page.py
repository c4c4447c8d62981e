"""Write the explorer of items as a page of its own, outside of the book."""

from __future__ import annotations

import shutil
from pathlib import Path

from cae_lib.config import paths, shipped
from cae_lib.pages.explorer import build
from cae_lib.profiles import find_profile
from cae_lib.runtime import write_atomic

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Explorer: {name}</title><link rel="stylesheet" href="explorer.css">
<style>
:root {{ --pst-color-border: #ccc; --pst-color-primary: #176de8; --pst-color-surface: #f5f5f5;
  --pst-color-text-base: #222; --pst-color-text-muted: #555 }}
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem }}
</style>
<script src="explorer-index.js"></script><script src="explorer.js"></script></head>
<body><h1>Explorer: {name}</h1>{explorer}</body></html>
"""


def write_page(profile_name: str, per_subset: int, folder: Path | None = None) -> Path:
    """Write the explorer of a profile from its stored tables, trained runs and images.

    Args:
        profile_name: Name of the profile.
        per_subset: Largest number of items of a subset.
        folder: Folder for the page and its files; by default one below `build/`.

    Returns:
        The page.
    """
    name = find_profile(profile_name).name
    folder = folder or paths().build / f"explorer-{name}"
    explorer = build(name, folder, per_subset).html
    for file in ("explorer.js", "explorer.css"):
        shutil.copy(shipped(f"book/_static/{file}"), folder)
    page = folder / "index.html"
    write_atomic(page, PAGE.format(name=name, explorer=explorer))
    return page

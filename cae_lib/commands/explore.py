"""Write the explorer of items as a page of its own: `cae explore`.

This works for photographs as well, which the book does not include.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cae_lib.commands.options import add_arguments, option
from cae_lib.config import paths, shipped
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


@add_arguments(
    option("--profile", default="photo", metavar="P", help="photo (default), paired, ..."),
    option(
        "-n",
        "--per-subset",
        type=int,
        default=40,
        metavar="N",
        help="items of each subset at most (default 40)",
    ),
    option("-o", "--output", type=Path, metavar="DIR", help="where it goes, by default build/"),
)
def run(parsed: argparse.Namespace) -> None:
    """Write the explorer of a profile from its stored tables, trained runs and images."""
    from cae_lib.pages.explorer import build

    name = find_profile(parsed.profile).name
    folder = parsed.output or paths().build / f"explorer-{name}"
    explorer = build(name, folder, parsed.per_subset).html
    for file in ("explorer.js", "explorer.css"):
        shutil.copy(shipped(f"book/_static/{file}"), folder)
    write_atomic(folder / "index.html", PAGE.format(name=name, explorer=explorer))
    print(f"The explorer is {folder / 'index.html'}")

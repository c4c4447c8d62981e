"""A Sphinx extension that leaves out the scripts of Thebe.

The theme and Jupyter Book each add them, so every page would declare the same constants twice,
which is an error in a browser's console. The book has no live cells.
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", leave_out, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def leave_out(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Keep a page's scripts but those that name Thebe, by file or in their text."""
    context["script_files"] = [
        script for script in context["script_files"]
        if "thebe" not in f"{script} {getattr(script, 'attributes', '')}".lower()
    ]

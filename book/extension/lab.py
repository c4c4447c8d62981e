"""What JupyterLab does with the pages, as `make lab` starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def keep_language_version(
    model: dict[str, Any], path: str, contents_manager: Any, **_: object
) -> None:
    """Let a notebook that is saved keep the Python version of its outputs: a `pre_save_hook`."""
    import nbformat

    file = Path(contents_manager.root_dir, path)
    if model["type"] != "notebook" or file.suffix != ".ipynb" or not file.is_file():
        return
    stored, saved = nbformat.read(file, as_version=4), model["content"]
    outputs = [[cell.get("outputs") for cell in cells] for cells in (stored.cells, saved["cells"])]
    # JupyterLab writes the version of its own kernel into each notebook that is opened, even if no
    # cell is executed; a page that is only read would then count as changed.
    if outputs[0] == outputs[1] and "language_info" in stored.metadata:
        saved["metadata"]["language_info"] = stored.metadata["language_info"]

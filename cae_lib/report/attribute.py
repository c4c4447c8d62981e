"""The figure and the table of numbers of `cae attribute`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.attribute import PairAttribution, attribute_pair, open_weights, read_picture
from cae_lib.attribution import METHODS
from cae_lib.errors import ConfigError, DataError
from cae_lib.report.markup import number
from cae_lib.report.relevance_figure import Panel, SceneRow, relevance_figure
from cae_lib.report.runs import label, method_label

MOST_MODELS = 5
LARGEST = 5_000_000
"""Bytes of a figure that goes into a file, not onto a page."""


def attribute_image(
    image: Path, caption: str, weights: Sequence[str], output: Path, *, model: str | None = None,
    activation: str | None = None, start_layer: int = -1, profile: str = "mini", seed: int = 0,
) -> str:  # fmt: skip
    """Draw a picture's heat map and its words' shares for each of some weights into one file.

    Args:
        image: The picture.
        caption: Its caption.
        weights: Runs, weight files or tags, see `open_weights`.
        output: PNG file to write.
        model, activation: Of a file or tag that does not state them.
        start_layer: First layer of the heat map's rule.
        profile, seed: Of runs.

    Returns:
        The word scores of each model as a plain table.

    Raises:
        ConfigError: Too many weights, or weights that cannot be understood.
        DataError: The picture cannot be read, or the models see different pictures of it.
    """
    if len(weights) > MOST_MODELS or len(set(weights)) < len(weights):
        raise ConfigError(f"--weights: expected up to {MOST_MODELS} different ones")
    picture = read_picture(image)
    found: dict[str, PairAttribution] = {}
    for name in weights:
        clip = open_weights(name, model, activation, profile, seed)
        title = _title(name)
        title = name if title in found else title
        found[title] = attribute_pair(clip, picture, caption, start_layer)
    first = next(iter(found.values()))
    if any(part.picture.shape != first.picture.shape for part in found.values()):
        raise DataError("the models take pictures of different sizes: draw one figure for each")
    panels = {name: Panel(part.relevance, part.shares) for name, part in found.items()}
    row = SceneRow(first.picture, first.words, panels)
    figure = relevance_figure([row], list(METHODS), _layer(start_layer), LARGEST)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(figure.png)
    except OSError as error:
        raise DataError(f"cannot write {output} ({error.strerror or error})") from error
    return _table(found)


def _title(weights: str) -> str:
    """A run by its label, a file by its name."""
    name = label(weights)
    return Path(weights).stem if name == weights else name


def _layer(start_layer: int) -> str:
    words = {-1: "last layer", 0: "all layers"}
    return words.get(start_layer, f"layers from {start_layer}")


def _table(found: Mapping[str, PairAttribution]) -> str:
    lines = []
    for name, part in found.items():
        width = max(len(word) for word in part.words)
        lines += [f"{name}: cosine {number(part.cosine)}; score (share of the words)"]
        lines += [" " * width + "".join(f"  {method_label(method):>16}" for method in METHODS)]
        for place, word in enumerate(part.words):
            cells = (
                f"{number(float(part.scores[m][place]), 4)} "
                f"({number(float(part.shares[m][place]), 2)})"
                for m in METHODS
            )
            lines.append(f"{word:<{width}}" + "".join(f"  {cell:>16}" for cell in cells))
    return "\n".join(lines)

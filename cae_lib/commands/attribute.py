"""`cae attribute`: attribution of any picture and caption by any weights, as a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from cae_lib.commands.options import add_arguments, option, split_names
from cae_lib.errors import ConfigError, DataError
from cae_lib.methods import METHODS
from cae_lib.variants import BASE

MOST_MODELS = 5


@add_arguments(
    option("image", type=Path, help="the picture"),
    option("caption", help="its caption, in quotes"),
    option(
        "--weights",
        action="append",
        metavar="W",
        help="a run such as base or clip-ft, a weight file, or a tag of open_clip; repeat "
        "it to compare models on one colour scale (default: base)",
    ),
    option("--model", metavar="M", help="open_clip model of a file or tag"),
    option("--activation", choices=("quickgelu", "gelu"), help="of a file that does not state it"),
    option(
        "--start-layer",
        type=int,
        default=-1,
        metavar="L",
        help="first layer of the map's rule: -1 the last, 0 all",
    ),
    option(
        "--methods",
        default=",".join(METHODS),
        metavar="NAMES",
        help="attribution methods with commas between them (default: the paper's four)",
    ),
    option("--seed", type=int, default=0, help="seed of the runs (default 0)"),
    option("-o", "--output", type=Path, default=Path("attribution.png"), metavar="FILE"),
    option(
        "--profile",
        default="photo",
        metavar="P",
        help="whose runs: photo (default), or mini, whose pictures are drawn, ...",
    ),
)
def run(parsed: argparse.Namespace) -> None:
    """Draw a picture's heat map and its words' shares for each of some weights into one file."""
    from cae_lib.commands.figure import draw, open_weights
    from cae_lib.data.images import read_image
    from cae_lib.evaluation.pair import attribute
    from cae_lib.plots import METHOD_LABELS, label, number
    from cae_lib.runtime import whole_file

    weights = parsed.weights or [BASE]
    if len(weights) > MOST_MODELS or len(set(weights)) < len(weights):
        raise ConfigError(f"--weights: expected up to {MOST_MODELS} different ones")
    picture = read_image(parsed.image)
    found = {}
    for name in weights:
        clip = open_weights(name, parsed.model, parsed.activation, parsed.profile, parsed.seed)
        title = clip.name if name == BASE else label(name)
        title = Path(name).stem if title == name else title
        title = name if title in found else title
        found[title] = attribute(
            clip, picture, parsed.caption, parsed.start_layer, split_names(parsed.methods)
        )
    if len({pair.image.shape for pair in found.values()}) > 1:
        raise DataError("the models take pictures of different sizes: draw one figure for each")
    layer = {-1: "last layer", 0: "all layers"}.get(
        parsed.start_layer, f"layers from {parsed.start_layer}"
    )
    figure = draw(found, parsed.caption, layer)
    with whole_file(parsed.output) as path:
        figure.savefig(path, format="png", dpi=200)
    for title, pair in found.items():
        print(f"{title}: cosine {number(pair.cosine, 2)}; score (share of the words)")
        cells = pair.scores.map("{:.4f} (".format) + pair.shares.map("{:.2f})".format)
        print(cells.rename(columns=METHOD_LABELS).to_string())
    print(f"The figure is {parsed.output}")

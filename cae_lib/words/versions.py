"""Versions of what is read from the text of captions: raise one when its results change.

Keys of the trainings that use them contain these versions (see `cae_lab.keys`), and
`tests/golden` fails if the results of one change.
"""

SCENE_GRAPH_VERSION = 1
"""Version of the spans that `SceneGraphTagger` finds in the graphs of the paper's parser."""

DEPENDENCY_VERSION = 1
"""Version of the rules of `DependencyTagger`."""

GROUND_TRUTH_VERSION = 1
"""Version of the roles that are read from scene graphs or from the templates of captions."""

SWAPS_VERSION = 2
"""Version of `find_swaps`."""

NEGATIVES_VERSION = 1
"""Version of the hard negatives that `swap_negatives` makes from the text of captions."""

"""Versions of what is read from the text of captions: raise one when its results change.

Keys of the trainings that use them contain these versions (see `cae_lib.training.inputs`), and
`tests/golden` fails if the results of one change.
"""

SCENE_GRAPH_VERSION = 1  # spans that `SceneGraphTagger` finds in the graphs of the paper's parser

DEPENDENCY_VERSION = 1  # rules of `DependencyTagger`

GROUND_TRUTH_VERSION = 1  # roles read from scene graphs or from the templates of captions

SWAPS_VERSION = 2  # `find_swaps`

NEGATIVES_VERSION = 1  # `swap_negatives`

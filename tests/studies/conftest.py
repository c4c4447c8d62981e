"""The fixtures of the tests of attribution and of evaluation."""

from attribution.conftest import batch  # noqa: F401
from evaluation.conftest import benchmark_of, choice, clip, hand_encoder, world_home  # noqa: F401

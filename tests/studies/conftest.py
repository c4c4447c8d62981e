"""The fixtures of the tests of evaluation."""

from evaluation.conftest import benchmark_of, choice, clip, hand_encoder, world_home  # noqa: F401

"""Versions of what makes the datasets of photographs, for code that runs without PyTorch.

Raise one when code that decides its images, captions or items changes: all is built anew.
"""

from collections.abc import Mapping

SINGLE = 2
PAIRED = 1
VERSIONS: Mapping[str, int] = {"photo": SINGLE, "paired": PAIRED, "redrawn": PAIRED}
"""The version of each profile of photographs."""

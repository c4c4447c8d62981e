"""Name the packages, and two folders of data; all else is in `pyproject.toml`."""

import sys

from setuptools import find_namespace_packages, find_packages, setup

PACKAGES = [
    *find_packages(include=["cae_lib*", "cae_bench*", "cae_lab*"]),
    "cae_lib.models.configs",
    "cae_lab.configs",
]

# Pages import `book` and `data.recipes` wherever their kernel starts, so the environment of a
# clone (`pip install -e .`) knows them. A wheel holds the library alone.
if "editable_wheel" in sys.argv:
    PACKAGES += find_namespace_packages(include=["book", "book.*", "data.recipes*"])

setup(packages=PACKAGES)

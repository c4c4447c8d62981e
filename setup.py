"""Name the packages, the folder `configs` among them; all else is in `pyproject.toml`."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["cae_lib*"]), "cae_lib.configs"])

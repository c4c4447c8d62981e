"""Ship the folder `configs` inside the package; all else is in `pyproject.toml`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cae_lib*"]), "cae_lib.configs"],
    package_dir={"cae_lib.configs": "configs"},
    package_data={"cae_lib.configs": ["*.yaml"]},
)

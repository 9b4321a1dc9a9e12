"""Lists the packages of a wheel: those found in tinygpt_hf/, and configs/, which pyproject.toml cannot add to what is found."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["tinygpt_hf*"]), "tinygpt_hf.configs"])

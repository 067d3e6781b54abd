"""The build: the metadata stands in pyproject.toml, what a build has to decide on this machine stands here."""

from setuptools import setup

setup()

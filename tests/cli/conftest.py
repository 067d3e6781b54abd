"""A run that is there, and a command line that must be refused."""

import pytest
from odd_files import copy_of, one_line, train_in


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a run and its data, to be read only."""
    return train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run, to be spoilt."""
    return copy_of(trained / "run", tmp_path / "run")


@pytest.fixture
def fails(capsys):
    return lambda *args: one_line(capsys, *args)

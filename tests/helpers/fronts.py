"""What tests of the compiled front share."""

import pytest

from vae_fast import front
from vae_fast.operators import OPERATORS

# Of a test module: on the native backend, by conftest.py's fixture.
of_front = [
    pytest.mark.skipif(front.REASON != "", reason=f"no front: {front.REASON}"),
    pytest.mark.usefixtures("native_calls"),
]

NODES = {f"{operator.title}Backward" for operator in OPERATORS.values()}


def by_front(outs):
    """Whether results with a gradient come from the front."""
    return all(out.grad_fn.name() in NODES for out in outs)


def both_ways(function):
    """The results of the front and of the Python functions."""
    found = function()
    with front.disabled():
        return found, function()

"""What tests of the compiled front share."""

import pytest

from vae_fast import front
from vae_fast.operators import OPERATORS

needs_front = pytest.mark.skipif(front.REASON != "", reason=f"no front: {front.REASON}")


def node_name(op):
    return "".join(word.title() for word in op.split("_")) + "Backward"


def by_front(outs):
    """Whether results with a gradient come from the front."""
    return all(out.grad_fn.name() in map(node_name, OPERATORS) for out in outs)


def both_ways(function):
    """The results of the front and of the Python functions."""
    found = function()
    with front.disabled():
        return found, function()

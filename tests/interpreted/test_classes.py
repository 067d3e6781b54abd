"""What is kept of a class of calls is of no call in particular: each has data, and numbers, of its own."""

import pytest
import torch
from test_branches import LONG, SPLIT, compare, draw

from helpers.calls import BERNOULLI, GAUSSIAN, KL, RSAMPLE, RSAMPLE_KL, RSAMPLE_LOG_PROB
from vae_fast.triton_kernels import kept

pytestmark = pytest.mark.usefixtures("small_tiles")


def classes():
    return sum(len(recent) for recent in kept._all)


def turned(shape):
    """Columns that are not neighbours, which are copied first."""
    return draw(shape[::-1]).detach().T.requires_grad_()


def number(shape):
    """Passed by its value."""
    return torch.rand((), dtype=torch.float64)


def feature(shape):
    return draw(shape[1:])


CASES = {
    "scale": (BERNOULLI, (draw, draw), LONG, {"reduction": "sum"}, "scale", (1.0, -2.0, 0.5)),
    "mean": (BERNOULLI, (draw, draw), SPLIT, {"reduction": "mean"}, "scale", (1.0, -2.0, 0.5)),
    "x_scale": (GAUSSIAN, (draw, draw, draw), LONG, {"x_scale": 0.5}, "scale", (1.0, 3.0)),
    "copies": (GAUSSIAN, (draw, turned, draw), LONG, {}, "scale", (1.0, -1.0)),
    "numbers": (KL, (draw, number), LONG, {}, "scale", (1.0, -1.0, 2.0)),
    "sums": (KL, (draw, feature), LONG, {"reduction": "sum"}, "scale", (1.0, -1.0)),
    "split": (KL, (draw, draw), SPLIT, {}, "scale", (1.0, -1.0)),
    "seeds": (RSAMPLE_KL, (draw, draw), LONG, {}, "seed", (1, 2**62, -3)),
    "places": (RSAMPLE_KL, (draw, feature), LONG, {}, "offset", (4, 8, 2**40)),
    "samples": (RSAMPLE, (draw, draw), LONG, {"sample_shape": (16,)}, "first_sample", (0, 5, 2**31)),
    "temperatures": (RSAMPLE, (draw, turned), LONG, {}, "temperature", (0.5, 0.25, 2.0)),
    "numbers of samples": (RSAMPLE_KL, (draw, number), LONG, {}, "seed", (1, 2)),
    "densities": (RSAMPLE_LOG_PROB, (draw, number), LONG, {}, "seed", (1, 2**62, -3)),
    "densities of copies": (RSAMPLE_LOG_PROB, (turned, feature), LONG, {"sample_shape": 3}, "offset", (4, 8)),
    "densities of many": (RSAMPLE_LOG_PROB, (draw, draw), SPLIT, {"sample_shape": 16}, "first_sample", (0, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_of_one_class(name):
    call, operands, shape, options, varied, values = CASES[name]
    kept.forget()
    found = []
    for k, value in enumerate(values):
        torch.manual_seed(k)
        tensors = [make(shape) for make in operands]
        compare(call, tensors, upstream_seed=k, **options, **{varied: value})
        found.append(classes())
    assert found[0] and set(found) == {found[0]}


@pytest.mark.parametrize("options", ({}, {"temperature": 0.5}), ids=str)
def test_an_upstream_gradient_that_is_a_number(options):
    """That of one datum's KL, whose bits stand among a kernel's strides."""
    kept.forget()
    for k in range(2):
        compare(RSAMPLE_KL, [draw((70,), torch.float64) for _ in range(2)], upstream_seed=k, **options)

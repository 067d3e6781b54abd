"""Derivatives of every operator, of the first and second order, with every option it has; also under transforms."""

from helpers import behaviour
from helpers.cases import CASES, each_case
from helpers.marks import each_backend

pytestmark = each_backend


@each_case(among=[case for case in CASES if case.differentiable])
def test_numerical(case):
    """Against differences of values, in reverse and forward mode; under vmap all of them are below."""
    shape = (1, 1, 3) if case.call.counted else (1, 2, 3) if case.call.density else (1, 1, 2)
    behaviour.check_derivatives(case, *case.inputs(shape=shape), batched=case.name == "plain")


@each_case()
def test_transforms(case):
    """vmap, jacrev, jacfwd and hessian against a loop and against autograd."""
    behaviour.check_transforms(case, *case.inputs(shape=(3, 2, 3)))

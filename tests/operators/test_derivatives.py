"""Derivatives of every operator, of the first and second order, with every option it has; also under transforms.

Forward mode, second derivatives and transforms take the reference's operations on every backend: of those that are
not the reference the plain cases show that they do.
"""

import pytest

import vae_fast as vf
from helpers import behaviour
from helpers.cases import CASES, each_case
from helpers.marks import each_backend

DIFFERENTIABLE = [case for case in CASES if case.differentiable]


@pytest.fixture
def reference():
    with vf.use_backend("reference"):
        yield


def small(case):
    if not case.call.density:
        return 1, 1, 2
    return (1, 2, 3) if case.name == "plain" and not case.call.counted else (1, 1, 3)


@pytest.mark.usefixtures("reference")
class TestReference:
    @each_case(among=DIFFERENTIABLE[::2])
    def test_numerical(self, case):
        """Against differences of values, in reverse and forward mode; under vmap all of them are below."""
        behaviour.check_derivatives(case, *case.inputs(shape=small(case)), batched=case.name == "plain")

    @pytest.mark.slow
    @each_case(among=DIFFERENTIABLE[1::2])
    def test_numerical_of_the_rest(self, case):
        behaviour.check_derivatives(case, *case.inputs(shape=small(case)), batched=case.name == "plain")

    @each_case()
    def test_transforms(self, case):
        """vmap, jacrev, jacfwd and hessian against a loop and against autograd."""
        behaviour.check_transforms(case, *case.inputs(shape=(3, 2, 3)))


@each_backend
@each_case(among=DIFFERENTIABLE)
def test_reverse_mode(case):
    """Against differences of values."""
    behaviour.check_gradients(case, *case.inputs(shape=small(case)))


@each_backend
@each_case("plain")
def test_numerical(case):
    behaviour.check_derivatives(case, *case.inputs(shape=small(case)))


@each_backend
@each_case("plain")
def test_transforms(case):
    behaviour.check_transforms(case, *case.inputs(shape=(3, 2, 3)))

"""Every operator under torch.compile without graph breaks, and exported: gradients too, and any batch."""

import torch

import vae_fast as vf
from helpers import behaviour
from helpers.calls import INFLATED
from helpers.cases import Case, each_case
from helpers.marks import each_backend, needs_native


@each_backend
@each_case("mean", "samples")
def test_compiled(case):
    """Densities of bfloat16."""
    dtype = torch.bfloat16 if case.call.density else torch.float32
    behaviour.check_compiled(case, *case.inputs(dtype, (8, 4, 3)))


@needs_native
def test_compiled_of_a_long_formula():
    """Of which the reference's operations take a compiler a minute: kernels alone."""
    case = Case(INFLATED, "", {"reduction": "mean", "theta_param": "log_theta"})
    with vf.use_backend("native"):
        behaviour.check_compiled(case, *case.inputs(torch.bfloat16, (8, 4, 3)))


@each_backend
@each_case("plain", "mean", "samples")
def test_exported(case):
    behaviour.check_exported(case, *case.inputs(torch.float32))

"""Every operator under torch.compile without graph breaks, and exported: gradients too, and any batch."""

import pytest
import torch

from helpers import behaviour
from helpers.cases import each_case
from helpers.marks import each_backend

pytestmark = each_backend


@pytest.mark.compiles
@each_case("mean", "samples")
def test_compiled(case):
    """Densities of bfloat16."""
    dtype = torch.bfloat16 if case.call.density else torch.float32
    behaviour.check_compiled(case, *case.inputs(dtype, (8, 4, 3)))


@each_case("plain", "mean", "samples")
def test_exported(case):
    behaviour.check_exported(case, *case.inputs(torch.float32))

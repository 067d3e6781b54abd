"""The operators that a compiler sees: schemas that are kept, and shapes, dtypes and strides that are foretold."""

import pytest
import torch
from test_registration import calls
from torch.library import opcheck

# The last call of each: the one with most options.
CALLS = dict(calls(torch.float32))


@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name):
    operator = getattr(torch.ops.vae_fast_triton, name).default
    opcheck(operator, CALLS[name], test_utils=("test_schema", "test_faketensor"))

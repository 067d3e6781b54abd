"""The native backend against the definition."""

import os

import pytest
from hypothesis import given, settings

import vae_fast as vf
from helpers import definition

pytestmark = pytest.mark.skipif(
    not vf.backends()["native"].available, reason=f"native: {vf.backends()['native'].reason}"
)


@settings(max_examples=int(os.environ.get("VAE_FAST_TEST_CASES", "2000")))
@given(definition.cases())
def test_like_the_definition(case):
    definition.check(case, "native")

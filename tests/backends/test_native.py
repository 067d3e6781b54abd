"""The native backend against the definition."""

import os

from hypothesis import given, settings

from helpers import definition
from helpers.marks import needs_native

pytestmark = needs_native


@settings(max_examples=int(os.environ.get("VAE_FAST_TEST_CASES", "1000")))
@given(definition.cases())
def test_like_the_definition(case):
    definition.check(case, "native")

"""Nested tensors are refused with a recipe for the jagged ones, which does what a loop over their parts does."""

import re

import pytest
import torch

import vae_fast as vf
from helpers.calls import CALLS
from helpers.marks import each_backend, each_call, each_density, each_operand

pytestmark = [each_backend, pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")]

OFFSETS = (0, 3, 3, 8, 10)
LENGTHS = (3, 0, 4, 1)  # holes where they are less than what lies between two offsets


def jagged(values, holes=False):
    lengths = torch.tensor(LENGTHS) if holes else None
    return torch.nested.nested_tensor_from_jagged(values, torch.tensor(OFFSETS), lengths)


def strided(values):
    return torch.nested.nested_tensor(list(values.split([3, 7])), layout=torch.strided)


def refused(function, name, nested):
    """The message of a call with a nested operand of this name."""
    with pytest.raises(TypeError) as caught:
        function(nested)
    message = str(caught.value)
    assert message.startswith(f"{name} must be a dense ")
    if nested.layout == torch.jagged:
        assert "jagged nested tensor" in message and ".values()" in message and f"{name}.offsets()" in message
    else:
        assert "nested tensor of the strided layout" in message and f"{name}.unbind()" in message
    return message


each_layout = pytest.mark.parametrize("nest", [jagged, strided])


@each_layout
class TestRefused:
    @each_operand(*CALLS)
    @pytest.mark.parametrize("beside", ["nested", "dense", "double"])
    def test_each_operand(self, call, i, nest, beside):
        tensors = [t.detach() for t in call.draw((10, 4))]
        if beside == "double":  # operands of several dtypes, which are not of the common call
            tensors = [t.double() if k != i else t for k, t in enumerate(tensors)]
        if beside == "nested":
            refused(lambda n: call(*([n] * len(tensors))), call.operands[0], nest(tensors[0]))
        else:
            refused(lambda n: call(*tensors[:i], n, *tensors[i + 1 :]), call.operands[i], nest(tensors[i]))

    @each_density
    def test_weights(self, call, nest):
        refused(lambda n: call(*call.draw((10, 4)), weight=n), "weight", nest(torch.rand(10, 4)))

    def test_functions_that_watch(self, nest):
        mu = torch.randn(10, 4)
        refused(vf.active_units, "mu", nest(mu))
        refused(lambda n: vf.kl_per_dim(n, mu), "mu", nest(mu))
        refused(lambda n: vf.kl_per_dim(mu, mu, prior_mu=n), "prior_mu", nest(mu))

    def test_distributions(self, nest):
        mu = torch.rand(10, 4)
        refused(lambda n: vf.distributions.DiagonalNormal(n, mu), "loc", nest(mu))
        refused(lambda n: vf.distributions.DiagonalNormal(mu, n), "scale", nest(mu))
        refused(lambda n: vf.distributions.BernoulliVector(logits=n), "logits", nest(mu))
        refused(vf.DiagonalGaussian, "moments", nest(mu))


@each_call
@pytest.mark.parametrize("holes", [False, True])
def test_the_recipe_is_a_loop_over_the_parts(call, holes):
    leaves = call.draw((10, 4))
    nested = [jagged(t, holes) for t in leaves]
    message = refused(lambda n: call(n, *nested[1:]), call.operands[0], nested[0])
    recipe = re.search(r"torch\.nested\.nested_tensor_from_jagged\(.*\)$", message).group()
    names = dict(zip(call.operands, nested, strict=True))
    got = [
        eval(recipe, {"torch": torch, "result": result, **names}) for result in call(*(n.values() for n in nested))
    ]

    ends = [a + n for a, n in zip(OFFSETS, LENGTHS, strict=False)] if holes else OFFSETS[1:]
    parts = []
    for start, end in zip(OFFSETS, ends, strict=False):
        # A part's place in the noise is that of its first row.
        place = {} if call.density else {"offset": start * 4}
        parts.append(call(*(t[start:end] for t in leaves), **place))
    for nested_result, *expected in zip(got, *parts, strict=True):
        assert nested_result.is_nested and nested_result.layout == torch.jagged
        found = nested_result.unbind()
        assert [len(part) for part in found] == [end - start for start, end in zip(OFFSETS, ends, strict=False)]
        # The same rows of 4 terms each: vector units may round their ends in another way.
        torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=1e-6, atol=1e-6)
        sums = (torch.cat(p).sum() for p in (found, expected))
        grads = (
            torch.autograd.grad(total, call.wanted(leaves), retain_graph=True, allow_unused=True) for total in sums
        )
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

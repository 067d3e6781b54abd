"""Gradients by weights: ∂/∂w is the term of the operands as they are; and what a weight of 0 hides."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from helpers.calls import GAUSSIAN, KL, KL_PRIOR, same_bits
from helpers.cases import PARAMS
from helpers.marks import each_backend, each_density

pytestmark = each_backend

each_shape = pytest.mark.parametrize("shape", [(6, 5), (6, 1), (1, 5), (5,), (6, 1, 5), (1,), ()], ids=str)
# Two float32 results of one formula, summed over at most 30 elements (accuracy.rows_bound).
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def terms_of(call, tensors, **options):
    (terms,) = call(*(t.detach() for t in tensors), event_ndim=0, **options)
    return terms


def gradients(call, tensors, weight, upstream=torch.ones_like, **options):
    return call.with_grads(*tensors, weight, upstream=upstream, **options)[1:]


class Weighted:
    """A density as a call whose last operand is its weight."""

    def __init__(self, call):
        self.call, self.op = call, call.op

    def wanted(self, tensors):
        return [*self.call.wanted(tensors[:-1]), tensors[-1]]

    def __call__(self, *tensors, **options):
        return self.call(*tensors[:-1], weight=tensors[-1], **options)

    def with_grads(self, *tensors, **options):
        return type(self.call).with_grads(self, *tensors, **options)


class TestGradient:
    @each_density
    @each_shape
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    def test_is_the_term(self, call, shape, reduction):
        tensors = call.draw((6, 5))
        weight = torch.rand(shape, requires_grad=True)
        full = torch.broadcast_shapes((6, 5), shape)
        (value,) = call(*tensors, weight=weight, reduction=reduction, scale=-0.5)
        upstream = torch.rand_like(value)
        (got,) = torch.autograd.grad(value, weight, upstream)
        g = upstream * -0.5 / (full[:-1].numel() if reduction == "mean" else 1)
        g = g.reshape((*g.shape, *(1,) * (len(full) - g.ndim)))
        want = (g * terms_of(call, tensors).expand(full)).sum_to_size(shape)
        assert got.dtype == weight.dtype and got.shape == weight.shape
        assert_close(got, want, **CLOSE)

    @each_density
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
    def test_of_another_dtype(self, call, dtype):
        """In the weight's dtype; a float64 one has the whole call computed in float64."""
        tensors = call.draw((6, 5))
        weight = torch.rand(6, 5).to(dtype).requires_grad_()
        got = gradients(Weighted(call), tensors, weight)
        wide = [t.detach().double().requires_grad_() for t in tensors]
        want = gradients(Weighted(call), wide, weight.detach().double().requires_grad_())
        for g, w, t in zip(got, want, Weighted(call).wanted((*tensors, weight)), strict=True):
            assert g.dtype == t.dtype
            # float32 is computed in where float32 is the widest, or rounded to once.
            assert_close(
                g.double(), w, rtol=max(torch.finfo(g.dtype).eps, 0 if dtype == torch.float64 else 2e-6), atol=2e-6
            )

    @each_density
    def test_beside_others_and_alone(self, call):
        """The gradients of the operands are those of a call whose weight has none."""
        tensors = call.draw((6, 5))
        weight = torch.rand(6, 1, requires_grad=True)
        *others, of_weight = gradients(Weighted(call), tensors, weight)
        plain = call.with_grads(*tensors, weight=weight.detach())[1:]
        assert_close(others, list(plain), **CLOSE)
        (alone,) = gradients(Weighted(call), [t.detach() for t in tensors], weight)
        assert_close(alone, of_weight, rtol=0, atol=0)

    @pytest.mark.parametrize("call", [KL, KL_PRIOR], ids=str)
    def test_with_free_bits(self, call):
        tensors = call.draw((6, 5))
        weight = torch.rand(6, 5, requires_grad=True)
        *_, got = gradients(Weighted(call), tensors, weight, free_bits=0.8)
        kl = terms_of(call, tensors)
        assert bool((kl < 0.8).any()) and bool((kl > 0.8).any())
        assert_close(got, kl.clamp(min=0.8), **CLOSE)

    @each_density
    def test_second_derivatives(self, call):
        tensors = call.draw((3, 2), torch.float64)
        weight = torch.tensor([[1.5], [0.25], [0.7]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda *t: Weighted(call)(*t, reduction="mean")[0], (*tensors, weight))
        assert torch.autograd.gradgradcheck(lambda *t: Weighted(call)(*t, reduction="mean")[0], (*tensors, weight))


class TestZero:
    @each_density
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bool, torch.uint8], ids=str)
    def test_hides_anything(self, call, dtype, weight_dtype):
        """In every operand at once, of every parametrisation: the bits are those without it, gradients there 0."""
        params = PARAMS if "logvar" in call.operands else (None,)
        w = (torch.rand(6, 4) < 0.5).to(weight_dtype)
        for param, reduction in itertools.product(params, ("none", "mean")):
            options = {"weight": w, "reduction": reduction} | ({"param": param} if param else {})
            tensors = [(t.detach().abs() + 0.1 * (param is not None)).to(dtype) for t in call.draw((6, 4))]
            clean = call.with_grads(*(t.requires_grad_() for t in tensors), **options)
            for bad in (torch.nan, torch.inf, -torch.inf, -1.0, 0.0, 1.0, 3.0, 6e4):
                dirty = [torch.where(w == 0, bad, t.detach()).to(dtype).requires_grad_() for t in tensors]
                found = call.with_grads(*dirty, **options)
                assert same_bits(found, clean)
                assert all(bool((grad[w == 0] == 0).all()) for grad in found[1:])

    @each_density
    @pytest.mark.parametrize("value", [0.7, float("nan"), float("inf")])
    @pytest.mark.parametrize("reduction", ["none", "sum"])
    def test_the_true_term(self, call, value, reduction):
        """∂/∂w of the real operands, NaN where that is; the value, and the other gradients there, are 0."""
        for i in range(len(call.operands)):
            tensors = [t.detach() for t in call.draw((6, 5))]
            tensors[i][2, 3] = value
            tensors = [t.requires_grad_() for t in tensors]
            weight = torch.ones(6, 5)
            weight[2, 3] = 0.0
            weight.requires_grad_()
            *others, got = gradients(Weighted(call), tensors, weight, reduction=reduction)
            assert_close(got, terms_of(call, tensors), equal_nan=True, **CLOSE)
            assert all(bool(g.isfinite().all()) and g[2, 3] == 0 for g in others)
            (out,) = call(*tensors, weight=weight, reduction=reduction)
            assert bool(out.isfinite().all())

    @each_density
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("differentiable", [False, True], ids=["plain", "with_gradient"])
    def test_under_an_upstream_gradient_that_is_not_finite(self, call, value, reduction, differentiable):
        tensors = call.draw((6, 5))
        weight = torch.ones(6, 5)
        weight[1, 2] = weight[4] = 0.0
        weight.requires_grad_(differentiable)
        (out,) = call(*tensors, weight=weight, reduction=reduction)
        for g in torch.autograd.grad(out, call.wanted(tensors), torch.full_like(out, value)):
            assert bool((g[weight == 0] == 0).all())

    @each_density
    @pytest.mark.parametrize("place", [0, 17, 63, 511, 512, 1023])
    def test_wherever_it_is(self, call, place):
        """One weight of 0 among 1024, at the ends of packs and tiles."""
        tensors = [t.detach().reshape(-1) for t in call.draw((4, 256))]
        weight = torch.ones(1024)
        weight[place] = 0.0
        for t in tensors:
            t[place] = torch.nan
        out, *grads = call.with_grads(*(t.requires_grad_() for t in tensors), weight=weight)
        assert bool(out.isfinite()) and all(bool(g.isfinite().all()) and g[place] == 0 for g in grads)

    @each_density
    def test_where_sigma_is_0(self, call):
        """No operand is replaced that a clamp, or an eps, could turn into another σ of 0."""
        if call not in (KL, KL_PRIOR, GAUSSIAN):
            pytest.skip("no σ")
        tensors = call.draw((6, 5))
        weight = torch.zeros(6, 5)
        out, *grads = call.with_grads(*tensors, weight=weight, param="std", bounds=(0.0, 0.0))
        assert bool((out == 0).all()) and all(bool((g == 0).all()) for g in grads)


@each_density
def test_a_weight_a_datum_and_a_number(call):
    tensors = call.draw((5, 3), torch.float64)
    w = torch.rand(5, 1, dtype=torch.float64)
    (plain,) = call(*tensors)
    assert_close(call(*tensors, weight=w)[0], w[:, 0] * plain)
    assert_close(call(*tensors, weight=0.3)[0], 0.3 * plain)
    assert_close(call(*tensors, weight=w, reduction="mean")[0], (w[:, 0] * plain).mean())


class TestNotFinite:
    """A weight, or an upstream gradient, that is infinite or NaN gives what has no slope none, as torch.clamp."""

    @pytest.mark.parametrize("weight", [torch.inf, torch.nan, 2.0])
    @pytest.mark.parametrize("upstream", [torch.inf, torch.nan, 1.0])
    @pytest.mark.parametrize("reduction", ["none", "sum"])
    @pytest.mark.parametrize("call", [KL, KL_PRIOR], ids=str)
    def test_at_a_floor(self, call, weight, upstream, reduction):
        tensors = [torch.full((3, 20), 0.1, requires_grad=True) for _ in call.operands]
        (value,) = call(*tensors, weight=torch.full((20,), weight), free_bits=0.3, reduction=reduction)
        for grad in torch.autograd.grad(value, tensors, torch.full_like(value, upstream)):
            assert grad.tolist() == torch.zeros(3, 20).tolist()

    @pytest.mark.parametrize("weight", [torch.inf, torch.nan, 2.0])
    @pytest.mark.parametrize("call", [KL, KL_PRIOR, GAUSSIAN], ids=str)
    def test_beyond_a_bound(self, call, weight):
        tensors = [torch.full((3, 20), 3.0, requires_grad=True) for _ in call.operands]
        (value,) = call(*tensors, weight=torch.full((20,), weight), bounds=(-1.0, 1.5))
        for name, grad in zip(call.operands, torch.autograd.grad(value.sum(), tensors), strict=True):
            if name.endswith("logvar"):
                assert grad.tolist() == torch.zeros(3, 20).tolist()

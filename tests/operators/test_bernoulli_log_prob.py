"""bernoulli_log_prob: against truth, against PyTorch, and all its options."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy, behaviour
from helpers.accuracy import float32_patterns, ulp, units, wide
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Ranges of |logit| over which the worst errors are compared with PyTorch's, for either sign.
RANGES = ((0.0, 1.0), (1.0, 16.0), (16.0, 80.0), (80.0, float("inf")))


def ours(y, t):
    return vf.bernoulli_log_prob(y, t, event_ndim=0)


def torchs(y, t):
    return -F.binary_cross_entropy_with_logits(y, t, reduction="none")


def truth(y, t):
    """The value, its derivative by y, and Σ|terms| of both."""
    (value, terms), slopes = accuracy.truth(formulas.bernoulli, y, t)
    slope, slope_terms = slopes["logits"]
    return value, slope, terms, slope_terms


def logits(dtype):
    """Every float32 that 2¹⁹ evenly spread bit patterns meet; every half; sizes of all magnitudes in float64."""
    if dtype == torch.float64:
        # A worst error of PyTorch's to compare with needs some thousand draws in the ranges that are compared.
        return torch.cat([accuracy.everywhere(2500, dtype), accuracy.magnitudes(4000, dtype, 0.1, 110)])
    if dtype == torch.float32:
        y = torch.cat([float32_patterns(1 << 19), accuracy.magnitudes(1 << 17, dtype, 1e-3, 110)])
    else:
        y = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return y[torch.isfinite(y)]


def of_probs(p, t):
    return vf.bernoulli_log_prob(p, t, event_ndim=0, param="probs")


def torchs_of_probs(p, t):
    return -F.binary_cross_entropy(p, t, reduction="none")


def truth_of_probs(p, t):
    """The value, its derivatives by p and by t, and Σ|terms| of the value and of the derivative by t."""
    (value, terms), slopes = accuracy.truth(formulas.bernoulli_of_probs, p, t)
    by_t, by_t_terms = slopes["x"]
    return value, slopes["logits"][0], by_t, terms, by_t_terms


def probabilities(dtype):
    """All halves of [0, 1]; float32 evenly spread over their bit patterns, and over 1 − p; all sizes of float64."""
    info = torch.finfo(dtype)
    ends = [0.0, 1.0, 0.5, info.tiny * info.eps, info.tiny, 1e-12, 1 - info.eps, 1 - info.eps / 2]
    if dtype == torch.float64:
        p = accuracy.magnitudes(4000, dtype, high=1.0).abs()
        near = accuracy.magnitudes(2000, dtype, 1e-16, 1.0).abs()
    elif dtype == torch.float32:
        p = float32_patterns(1 << 21)
        near = accuracy.magnitudes(1 << 17, dtype, 1e-8, 1.0).abs()
    else:
        p, near = torch.arange(0, 2**15).to(torch.int16).view(dtype), torch.empty(0, dtype=dtype)
    p = torch.cat([torch.tensor(ends, dtype=torch.float64).to(dtype), p, near, 1 - near])
    return p[(p >= 0) & (p <= 1)]


class TestAccuracy:
    @pytest.mark.parametrize("target", [0.0, 1.0])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_binary_targets(self, dtype, target):
        """≤ 2 ULP, gradient ≤ 3 ULP; no worse than PyTorch in any range.

        Of the reference, log1p(e^−|y|) ≤ 3 ULP: a unit of e^−|y| is up to two of the logarithm, which has one more.
        Its gradient, e/(1 + e), ≤ 4: a unit and two roundings are 2ε of it, and ε is up to two units.
        """
        y = logits(dtype)
        t = torch.full_like(y, target)
        value, slope, *_ = truth(y, t)
        log_prob, dlogits, dx = with_grads(ours, y, t)
        errors, slope_errors = ulp(log_prob, value), ulp(dlogits, slope)
        accuracy.assert_within(accuracy.bar(2, 3, of=(y, t)), errors, y)
        accuracy.assert_within(accuracy.bar(3, 4, dtype), slope_errors, y)
        assert torch.equal(dx, y)
        torch_value, torch_slope, _ = with_grads(torchs, y, t)
        torch_errors, torch_slope_errors = ulp(torch_value, value, log_prob.dtype), ulp(torch_slope, slope)
        size = y.double().abs().cpu().numpy()
        results = ((errors, torch_errors, value, log_prob.dtype), (slope_errors, torch_slope_errors, slope, dtype))
        for ours_, theirs, truth_, unit in results:
            usual = accuracy.normal(truth_, unit)
            for low, high in RANGES:
                for sign in (-1, 1):
                    here = usual & (size >= low) & (size < high) & (np.sign(y.double().cpu().numpy()) == sign)
                    # A half type has no slopes but subnormal ones at the far end.
                    if here.any():
                        accuracy.assert_no_worse(ours_[here], theirs[here], unit, y[torch.from_numpy(here)])

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_grey_targets(self, dtype):
        """≤ 3ε·Σ|terms| of the value's two terms, |y|w and log(1 + e^−|y|), and of the gradient's, w and s."""
        y = logits(dtype)[:: 1 if dtype == torch.float64 else 4]
        t = torch.rand(len(y), dtype=torch.float64)
        t = torch.where(torch.rand(len(y)) < 0.5, t, torch.exp2(-50 * t)).to(dtype)
        value, slope, terms, slope_terms = truth(y, t)
        log_prob, dlogits, _ = with_grads(ours, y, t)
        bound = accuracy.bar(3, 3, of=(y, t))
        accuracy.assert_within(bound, accuracy.error(log_prob, value, units(terms, log_prob.dtype)), y, t)
        unit = units(slope_terms, dtype)
        accuracy.assert_within(3, accuracy.error(dlogits, slope, unit), y, t)
        torch_value, torch_slope, _ = with_grads(torchs, y, t)
        torch_errors = ulp(torch_value, value, log_prob.dtype)
        accuracy.assert_no_worse(ulp(log_prob, value), torch_errors, log_prob.dtype, y, t)
        # Where t − σ(y) cancels, ULP of the difference say nothing.
        accuracy.assert_no_worse(
            accuracy.error(dlogits, slope, unit), accuracy.error(torch_slope, slope, unit), dtype, y, t
        )

    def test_pytorch_loses_the_value(self):
        y, t = torch.tensor([-10.0, -15.0, -17.0]), torch.zeros(3)
        value, *_ = truth(y, t)
        lost = torchs(y, t)
        relative = abs(wide(lost) - value) / abs(value)
        assert 0.005 < relative[0] < 0.01
        assert relative[1] > 0.1 and lost[2] == 0
        accuracy.assert_within(accuracy.bar(2, 3), ulp(ours(y, t), value), y)

    def test_pytorch_loses_the_gradient(self):
        y, t = torch.tensor([15.0, 17.0, 20.0]), torch.ones(3)
        _, slope, *_ = truth(y, t)
        _, lost, _ = with_grads(torchs, y, t)
        assert 0.15 < abs(float(lost[0]) - slope[0]) / slope[0] < 0.2
        assert lost[1:].tolist() == [0.0, 0.0]
        _, dlogits, _ = with_grads(ours, y, t)
        accuracy.assert_within(accuracy.bar(3, 4), ulp(dlogits, slope), y)

    def test_infinite_logits(self):
        inf = torch.inf
        y = torch.tensor([inf, -inf, inf, -inf, inf, -inf, torch.nan])
        t = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 1.0])
        log_prob, dlogits, _ = with_grads(ours, y, t)
        assert log_prob.tolist()[:-1] == [0.0, 0.0, -inf, -inf, -inf, -inf]
        assert dlogits.tolist()[:-1] == [0.0, 0.0, -1.0, 1.0, -0.5, 0.5]
        assert log_prob[-1].isnan() and dlogits[-1].isnan()

    def test_targets_outside(self):
        """The formula continued; validate=True refuses them."""
        y, t = torch.randn(100, dtype=torch.float64), 5 * torch.randn(100, dtype=torch.float64)
        assert_close(ours(y, t), torchs(y, t))
        for bad in (-0.1, 1.1, torch.nan):
            with pytest.raises(ValueError, match="outside"):
                vf.bernoulli_log_prob(y, torch.full_like(y, bad), validate=True)
        vf.bernoulli_log_prob(y, torch.full_like(y, 255), x_scale=1 / 255, validate=True)


class TestAccuracyOfProbabilities:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_binary_targets(self, dtype):
        """One logarithm, ≤ 1.1 ULP, of the reference PyTorch's, which promises 1; gradients, four roundings in all,
        ≤ 3 ULP; neither worse than PyTorch's over all p and both targets."""
        p = torch.cat([probabilities(dtype)] * 2)
        t = torch.zeros_like(p)
        t[len(p) // 2 :] = 1
        value, slope, by_t, _, sizes = truth_of_probs(p, t)
        log_prob, dp, dt = with_grads(of_probs, p, t)
        errors, slope_errors = ulp(log_prob, value), ulp(dp, slope)
        accuracy.assert_within(1.1, errors, p, t)
        accuracy.assert_within(accuracy.bar(3, 3, dtype), slope_errors, p, t)
        accuracy.assert_within(3, accuracy.error(dt, by_t, units(sizes, dtype)), p, t)
        torch_value, torch_slope, _ = with_grads(torchs_of_probs, p, t)
        accuracy.assert_no_worse(errors, ulp(torch_value, value, log_prob.dtype), log_prob.dtype, p, t)
        accuracy.assert_no_worse(slope_errors, ulp(torch_slope, slope), dtype, p, t)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_grey_targets(self, dtype):
        """≤ 3ε·Σ|terms| of the value; t − p is rounded once, whatever cancels, so gradients are ≤ 4 ULP."""
        p = probabilities(dtype)
        t = torch.rand(len(p), dtype=torch.float64)
        t = torch.where(torch.rand(len(p)) < 0.5, t, torch.exp2(-50 * t)).to(dtype)
        near = torch.rand(len(p)) < 0.1
        t = torch.where(near, p, t)
        value, slope, _, sizes, _ = truth_of_probs(p, t)
        log_prob, dp, _ = with_grads(of_probs, p, t)
        accuracy.assert_within(3, accuracy.error(log_prob, value, units(sizes, log_prob.dtype)), p, t)
        accuracy.assert_within(4, ulp(dp, slope), p, t)
        assert (dp[near] == 0).all()

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_certain_probabilities(self, dtype):
        """The logarithm is no less than −100, the slope's denominator no less than 1e-12."""
        tiny = torch.finfo(dtype).tiny
        p = torch.tensor([0.0, -0.0, 1.0, 0.0, -0.0, 1.0, tiny], dtype=dtype)
        t = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype=dtype)
        log_prob, dp, dt = with_grads(of_probs, p, t)
        assert log_prob.tolist()[:-1] == [0.0, 0.0, 0.0, -100.0, -100.0, -100.0]
        assert -1.001 * tiny < log_prob[-1] < -0.999 * tiny
        assert dp.tolist()[:3] == [0.0, 0.0, 0.0] and dt.tolist()[:6] == [-100.0, -100.0, 100.0] * 2
        assert_close(dp[3:6], torch.tensor([1e12, 1e12, -1e12]).to(dtype))

    def test_pytorch_s_target_gradient_is_infinite(self):
        p, t = torch.tensor([0.0, 1e-45, 1.0]), torch.ones(3)
        _, _, theirs = with_grads(torchs_of_probs, p, t)
        assert theirs[0] == -torch.inf and theirs[1] < -103 and theirs[2] == torch.inf
        assert with_grads(of_probs, p, t)[2].tolist() == [-100.0, -100.0, 100.0]

    def test_pytorch_s_half_gradient_is_not_a_number(self):
        """p(1 − p) in float16, and 1e-12 is 0 there."""
        p, t = torch.tensor([1.0, 0.5], dtype=torch.float16), torch.ones(2, dtype=torch.float16)
        assert with_grads(torchs_of_probs, p, t)[1][0].isnan()
        assert with_grads(of_probs, p, t)[1].tolist() == [0.0, 2.0]

    def test_outside(self):
        p = torch.tensor([-0.1, 1.1, torch.inf, -torch.inf, torch.nan, -1e-38, 1 + 2**-23])
        for t in (0.0, 0.5, 1.0):
            assert of_probs(p, torch.full_like(p, t)).isnan().all()

    def test_like_logits(self):
        """p = σ(y) is rounded by 1e-16, which the logarithms multiply by 1/p and 1/(1 − p)."""
        y, t = torch.randn(1000, dtype=torch.float64) * 3, torch.rand(1000, dtype=torch.float64)
        y, t = y.requires_grad_(), t.requires_grad_()
        for reduction in ("none", "sum"):
            of_y = vf.bernoulli_log_prob(y, t, event_ndim=0, reduction=reduction)
            of_p = vf.bernoulli_log_prob(torch.sigmoid(y), t, event_ndim=0, reduction=reduction, param="probs")
            assert_close(of_p, of_y, rtol=1e-9, atol=1e-11)
            grads = [torch.autograd.grad(out.sum(), (y, t)) for out in (of_p, of_y)]
            assert_close(*grads, rtol=1e-8, atol=1e-9)


def test_derivatives_at_zero():
    """No kink where the formula changes branch."""
    y, t = torch.zeros(4, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
    behaviour.check_derivatives(lambda y: ours(y, t), y)


def test_derivatives_of_certain_probabilities():
    """Autograd of the value (under transforms) is the kernels' gradient, of any order, p(1 − p) < 1e-12 or not."""
    p = torch.tensor([0.0, 1e-300, 1e-13, 1e-11, 0.5, 1 - 1e-11, 1 - 1e-13, 1.0], dtype=torch.float64)
    for target in (0.0, 0.25, 1.0):
        t = torch.full_like(p, target)
        _, dp, dt = with_grads(of_probs, p, t)
        under = torch.func.grad(lambda p, t: of_probs(p, t).sum(), (0, 1))(p, t)
        assert_close(under, (dp, dt), rtol=1e-12, atol=0.0)
        y, x = p.clone().requires_grad_(), t.clone().requires_grad_()
        first = torch.autograd.grad(of_probs(y, x).sum(), (y, x), create_graph=True)
        second = [torch.autograd.grad(g.sum(), (y, x), retain_graph=True, allow_unused=True)[0] for g in first]
        hessian = torch.func.hessian(lambda p, t: of_probs(p, t).sum(), (0, 1))(p, t)
        assert_close(second[0].diag(), hessian[0][0], rtol=1e-9, atol=0.0)
        assert_close(second[1].diag(), hessian[1][0], rtol=1e-12, atol=0.0)
        assert_close(second[1], 1 / (p * (1 - p)).clamp(min=1e-12), rtol=1e-12, atol=0.0)


def test_second_derivative_of_saturated_logits():
    """−σ'(y): finite, down to 0."""
    y = torch.tensor([-2000.0, -800.0, -90.0, 90.0, 800.0, 2000.0], dtype=torch.float64, requires_grad=True)
    for t in (0.0, 1.0):
        (first,) = torch.autograd.grad(ours(y, torch.full_like(y, t)).sum(), y, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), y)
        assert_close(second, -torch.exp(-y.detach().abs()), rtol=1e-12, atol=2.3e-16)


@pytest.mark.parametrize("param", ["logits", "probs"])
def test_compiled_by_inductor(param):
    """The real compiler, forward and backward, with weights of events that it makes a constant of."""
    weight = torch.tensor([0.0, 1.0, 2.5])
    first = torch.rand(8, 4, 3) * 0.998 + 0.001 if param == "probs" else torch.randn(8, 4, 3)
    f = functools.partial(vf.bernoulli_log_prob, weight=weight, param=param)
    behaviour.check_compiled(f, first, torch.rand(8, 4, 3), compiler="inductor")

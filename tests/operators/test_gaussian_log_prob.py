"""gaussian_log_prob: against truth, against PyTorch, and all its options."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy
from helpers.accuracy import units
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import forms, formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")


def ours(mean, logvar, x):
    return vf.gaussian_log_prob(mean, logvar, x, event_ndim=0)


def torchs(mean, logvar, x):
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False).log_prob(x)


def truth(mean, logvar, x):
    """((value, Σ|terms|), …) of the log density and of its derivatives by mean, logvar and x."""
    value, slopes = accuracy.truth(formulas.gaussian, forms.Form(), mean, logvar, x)
    return value, *slopes.values()


class TestAccuracy:
    @pytest.mark.parametrize("spread", [1.0, 4.0, None], ids=["near", "ordinary", "wide"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_terms(self, dtype, spread):
        """≤ 3ε·Σ|terms|, gradients too; no worse than PyTorch. Wide: σ from 1e-37 to 1e37 (1e304).

        Of the reference ≤ 4: 1/σ² may be two factors 1/σ, each half a unit further off than correctly rounded.
        """
        n, slack = (1500, 1.25) if dtype == torch.float64 else (100_000, 1.05)
        if spread:
            args = [(spread * torch.randn(n, dtype=torch.float64)).to(dtype) for _ in range(3)]
        elif dtype == torch.float16:
            args = [accuracy.magnitudes(n, dtype, 1e-3, top) for top in (1e3, 20, 1e3)]
        else:
            (low, high), logs = ((1e-150, 1e150), 1400) if dtype == torch.float64 else ((1e-18, 1e18), 170)
            mean, x = (accuracy.magnitudes(n, dtype, low, high) for _ in range(2))
            args = [mean, accuracy.magnitudes(n, dtype, 1e-6, logs), x]
        args[0][::7] = args[2][::7]
        results, theirs = with_grads(ours, *args), with_grads(torchs, *args)
        for out, torch_out, (value, terms) in zip(results, theirs, truth(*args), strict=True):
            unit = units(terms, out.dtype)
            errors = accuracy.error(out, value, unit)
            accuracy.assert_within(accuracy.bar(3, 4, of=args), errors, *args)
            torch_errors = accuracy.error(torch_out, value, unit, out.dtype)
            accuracy.assert_no_worse(errors, torch_errors, out.dtype, *args, slack=slack)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_mean_equal_to_x(self, dtype):
        """x = m contributes 0 to the square whatever σ, and its gradients."""
        logvar = accuracy.everywhere(2000, dtype)
        logvar = torch.cat([logvar[logvar.abs() < torch.finfo(dtype).max / 4], torch.tensor([-800.0, 800, -3000])])
        x = torch.randn_like(logvar)
        log_prob, dmean, dlogvar, dx = with_grads(ours, x, logvar.to(dtype), x)
        assert_close(log_prob, -0.5 * (logvar.to(dtype) + math.log(2 * math.pi)))
        assert (dmean == 0).all() and (dx == 0).all() and (dlogvar == -0.5).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_finite_results_stay_finite(self, dtype):
        """½t² up to the largest number, where t² is beyond it."""
        t = torch.tensor([1.3, -1.3], dtype=dtype) * torch.finfo(dtype).max ** 0.5
        zero = torch.zeros_like(t)
        log_prob, _, dlogvar, _ = with_grads(ours, zero, zero, t)
        assert log_prob.isfinite().all() and dlogvar.isfinite().all()
        assert_close(dlogvar, (0.5 * t) * t)

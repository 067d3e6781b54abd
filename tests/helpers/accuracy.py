"""What the accuracy tests share: the backend they run on, error in ULP, truths in more precision, and inputs.

Truth is computed in float64 for the results of float32 and half tensors, in 50 digits (mpmath) for those of
float64 tensors; the formulas are the textbook's, written once for both.
"""

import importlib

import mpmath
import numpy as np
import torch

backends = importlib.import_module("vae_fast.backends")

_mp = mpmath.mp.clone()
_mp.dps = 50


# ---- numbers in more precision ---------------------------------------------------------------------------

_to_mp = np.frompyfunc(_mp.mpf, 1, 1)
_to_float = np.frompyfunc(float, 1, 1)


def wide(tensor):
    """The tensor's values as a flat array in which truth is computed: mpf for float64, else float64."""
    values = tensor.detach().double().cpu().reshape(-1).numpy()
    with np.errstate(all="ignore"):
        return _to_mp(values) if tensor.dtype == torch.float64 else values


def _function(name):
    in_mp, in_numpy = np.frompyfunc(getattr(_mp, name), 1, 1), getattr(np, name)

    def apply(a):
        with np.errstate(all="ignore"):
            return in_mp(a) if a.dtype == object else in_numpy(a)

    return apply


exp, expm1, log, log1p, sqrt = (_function(name) for name in ("exp", "expm1", "log", "log1p", "sqrt"))


def _piecewise(condition, a, then, otherwise):
    """``then(a)`` where the condition holds, ``otherwise(a)`` elsewhere; neither sees the other's arguments."""
    condition = np.asarray(condition, dtype=bool)
    result = np.empty_like(a)
    result[condition], result[~condition] = then(a[condition]), otherwise(a[~condition])
    return result


def expm1_minus(a):
    """e^a − 1 − a; near 0, where the difference cancels in any precision, from its power series."""

    def series(x):
        # 1/22! is 9e-22, 1/46! 2e-58.
        value = 0 * x
        for k in range(46 if x.dtype == object else 22, 1, -1):
            value = value * x + (1 / _mp.factorial(k) if x.dtype == object else 1 / float(_mp.factorial(k)))
        return value * x * x

    return _piecewise(abs(a) <= 1, a, series, lambda x: expm1(x) - x)


def softplus(a):
    return _piecewise(a > 0, a, lambda x: x + log1p(exp(-x)), lambda x: log1p(exp(x)))


def sigmoid(a):
    return _piecewise(a > 0, a, lambda x: 1 / (1 + exp(-x)), lambda x: exp(x) / (1 + exp(x)))


# ---- error -----------------------------------------------------------------------------------------------


def spacing(truth, dtype):
    """The distance between neighbouring numbers of ``dtype`` at each truth."""
    info = torch.finfo(dtype)
    with np.errstate(over="ignore"):
        _, exponent = np.frexp(np.abs(_to_float(truth).astype(np.float64)))
    smallest = np.frexp(info.tiny)[1]
    largest = np.frexp(info.max)[1]
    return np.ldexp(info.eps, np.clip(exponent, smallest, largest) - 1)


def error(result, truth, unit, dtype=None):
    """|result − truth| in ``unit``s, element by element, as float64.

    Infinity counts as the power of two that follows the largest finite number of the dtype (result's own where
    not given), on both sides: an overflow where the truth overflows is no error, and one just below it costs
    what the truth lacks to that number.
    """
    first = np.ldexp(1.0, np.frexp(torch.finfo(dtype or result.dtype).max)[1] - 1)
    values = wide(result)
    with np.errstate(all="ignore"):
        both_nan = np.array(values != values, dtype=bool) & np.array(truth != truth, dtype=bool)
        # Halved: 2¹⁰²⁴ is no float64.
        values = np.where(both_nan, 0.0, np.clip(values / 2, -first, first))
        truth = np.where(both_nan, 0.0, np.clip(truth / 2, -first, first))
        difference = np.abs(values - truth)
        return np.where(difference == 0, 0.0, _to_float(difference / unit * 2).astype(np.float64))


def ulp(result, truth, dtype=None):
    """|result − truth| in units of the spacing of a dtype, by default result's own, at the truth."""
    return error(result, truth, spacing(truth, dtype or result.dtype), dtype)


def units(terms, dtype):
    """eps·Σ|terms|, which underflow makes no smaller than the smallest number of the dtype."""
    info = torch.finfo(dtype)
    return info.eps * terms + info.smallest_normal * info.eps


def worst(errors, *inputs):
    """The largest error, NaN counting as infinite; and the inputs that make it, for the message of a failure."""
    errors = np.where(np.isnan(errors), np.inf, errors)
    i = int(errors.argmax())
    return float(errors[i]), tuple(t.reshape(-1)[i].item() for t in inputs)


def assert_within(bound, errors, *inputs):
    largest, where = worst(errors, *inputs)
    assert largest <= bound, f"{largest:.4g} > {bound} at {where}"


def bar(kernels, reference, dtype=torch.float32):
    """The bar in ULP of a result of the dtype, for the backend at hand: it stands on every machine.

    The kernels' exponentials and logarithms are the project's own (backends/test_formulas.py). The reference's are
    PyTorch's, each off by a whole unit at most: SLEEF's u10 functions, MKL's in their accurate mode and glibc's all
    promise that, and no more. Where such errors add up to more than the kernels' bar, the reference has its own. A
    half result is one of float32, rounded once more: what that lacked does not show.
    """
    if dtype in (torch.bfloat16, torch.float16):
        return 0.51
    return reference if backends._current == "reference" else kernels


# How much PyTorch's own worst error differs from processor to processor, in units of float32 and float64: half a
# unit lies between a function that is correctly rounded and one that is off by the 1 ULP it promises. Measured:
# 0.25, over the comparisons of these tests, on a Xeon with AVX-512 under ATEN_CPU_CAPABILITY=default, avx2 and
# avx512, each with MKL's functions for this processor and, MKL_CBWR=AVX2 and COMPATIBLE, for others.
PYTORCH_VARIES = 0.5


def assert_no_worse(ours, theirs, dtype, *inputs, slack=1.05):
    """Our worst ≤ max(PyTorch's worst, 0.51) + PYTORCH_VARIES, both in ULP of ``dtype``, or both in eps·Σ|terms|.

    The largest of some sampled errors is itself random: the slack allows for two equally good forms whose
    largest error another seed orders the other way round. Over 10⁵ samples such maxima differ by up to 4 %,
    over a few thousand (float64, whose truth is slow) by up to 13 %. What PyTorch's float32 functions differ by
    does not show in a half result.
    """
    varies = 0.0 if dtype in (torch.bfloat16, torch.float16) else PYTORCH_VARIES
    assert_within(max(worst(theirs)[0] * slack, 0.51) + varies, ours, *inputs)


def normal(truth, dtype):
    """Where the truth is no subnormal number: that is rounded once or twice, by how a processor makes 2ⁿ, which
    alone is a unit of difference between two of PyTorch's results."""
    return np.abs(_to_float(truth).astype(np.float64)) >= torch.finfo(dtype).tiny


def rows_bound(n):
    """What adding n terms may cost, as a fraction of Σ|terms|: float32 in tiles, wider across them."""
    return 1e-7 * (1 + np.log2(n))


# ---- inputs ----------------------------------------------------------------------------------------------


def specials(dtype):
    """Numbers at which branches and ranges of the dtype begin and end, of both signs."""
    info = torch.finfo(dtype)
    v = [0.0, info.smallest_normal * info.eps, info.tiny / 2, info.tiny, info.eps, 1e-3, 0.5, 1.0, 2.0, 17.0]
    v += [85.0, 88.7, 103.9, 700.0, 709.7, 745.1, info.max**0.5, info.max / 2, info.max]
    positive = torch.tensor(v, dtype=torch.float64).to(dtype)
    positive = positive[torch.isfinite(positive)]
    return torch.cat([positive, -positive])


def magnitudes(n, dtype, low=None, high=None):
    """n numbers of either sign whose logarithms are spread evenly over [low, high], default every finite one."""
    info = torch.finfo(dtype)
    low, high = low or info.tiny * info.eps, high or info.max
    exponents = torch.empty(n, dtype=torch.float64).uniform_(np.log2(low), np.log2(high))
    sign = 1 - 2 * torch.randint(0, 2, (n,))
    return (sign * torch.exp2(exponents).clamp(max=high)).to(dtype)


def everywhere(n, dtype):
    """n numbers: every size, the ordinary ones more often, and the special ones."""
    parts = [
        magnitudes(n // 2, dtype),
        magnitudes(n // 4, dtype, 1e-4, 200),
        torch.randn(n - n // 2 - n // 4).to(dtype),
    ]
    return torch.cat([specials(dtype), *parts])


def float32_patterns(n):
    """n (a power of two) of all float32 that are not NaN, evenly spread over their bit patterns."""
    step = 2**32 // n
    bits = torch.arange(-(2**31), 2**31, step) + torch.randint(0, step, (n,))
    values = bits.to(torch.int32).view(torch.float32)
    return values[~values.isnan()]

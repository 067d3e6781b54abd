"""What the accuracy tests share: truths in more precision, error in ULP, and inputs.

The error model is the check's: vae_fast/checking/formulas.py says what an element should be, and measure.py how far
a result is from it. Truth is computed in float64 for the results of float32 and half tensors, in 50 digits (mpmath)
for those of float64 tensors.
"""

import importlib
from types import SimpleNamespace

import mpmath
import numpy as np
import torch

from vae_fast import native
from vae_fast.checking import forms, formulas
from vae_fast.checking.measure import LIGHT, as_float, error, spacing, units
from vae_fast.checking.operands import specials as _specials

__all__ = ["error", "units"]

LIGHT_UNITS = LIGHT / torch.finfo(torch.float32).eps

backends = importlib.import_module("vae_fast.backends")

mp = mpmath.mp.clone()
mp.dps = 50


# ---- numbers in more precision ---------------------------------------------------------------------------

_to_mp = np.frompyfunc(mp.mpf, 1, 1)
# The functions of numpy that formulas are written in, of arrays of 50 digits.
MP = SimpleNamespace(
    **{name: np.frompyfunc(getattr(mp, name), 1, 1) for name in ("exp", "expm1", "log", "log1p", "sqrt")},
    where=lambda condition, a, b: np.where(np.asarray(condition, bool), a, b),
    ones=lambda shape: np.full(shape, mp.mpf(1), object),
    pi=mp.mpf(mp.pi),
)


def doubles(tensor):
    """The tensor's values as a flat array of float64."""
    return tensor.detach().double().cpu().reshape(-1).numpy()


def digits(tensor):
    """The tensor's values as a flat array of 50 digits."""
    with np.errstate(all="ignore"):
        return _to_mp(doubles(tensor))


def wide(tensor):
    """The tensor's values as a flat array in which truth is computed: of 50 digits for float64, else float64."""
    return digits(tensor) if tensor.dtype == torch.float64 else doubles(tensor)


def _functions(array):
    return MP if array.dtype == object else np


def _function(name):
    def apply(a):
        with np.errstate(all="ignore"):
            return getattr(_functions(a), name)(a)

    return apply


exp, expm1, log, log1p, sqrt = (_function(name) for name in ("exp", "expm1", "log", "log1p", "sqrt"))


def truth(formula, *arguments, numbers=wide, **options):
    """A formula of vae_fast/checking/formulas.py at tensors, perhaps after a Form, as the ``numbers`` of them."""
    arrays = [numbers(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    first = next(a for a in arrays if isinstance(a, np.ndarray))
    with np.errstate(all="ignore"):
        found = formula(*arrays, f=_functions(first), **options)
    # Of an element its value and slopes.
    return (found.value, found.slopes) if isinstance(found, formulas.Element) else found


def expm1_minus(a):
    return truth(formulas.expm1_minus, a)


def softplus(a):
    return truth(forms.softplus, a)


def sigmoid(a):
    return truth(forms.sigmoid, a)


# ---- error -----------------------------------------------------------------------------------------------


def ulp(result, truth, dtype=None):
    """|result − truth| in units of the spacing of a dtype, by default result's own, at the truth."""
    return error(result, truth, spacing(truth, dtype or result.dtype), dtype)


def worst(errors, *inputs):
    """The largest error, and the inputs that make it, for the message of a failure."""
    i = int(errors.argmax())
    return float(errors[i]), tuple(t.reshape(-1)[i].item() for t in inputs)


def assert_within(bound, errors, *inputs):
    largest, where = worst(errors, *inputs)
    assert largest <= bound, f"{largest:.4g} > {bound} at {where}"


def is_light(*operands, backend=None):
    """Whether a GPU's formulas for half types may serve these operands on a backend, by default the one at hand."""
    backend = backend or backends._current
    first, *_ = operands
    if any(t.dtype not in (torch.bfloat16, torch.float16, torch.uint8, torch.bool) for t in operands if t.ndim):
        return False
    here = backend == "native" and (first.is_cuda or native.instruction_set().startswith("cuda"))
    return backend == "triton" or here


def bar(kernels, reference, dtype=torch.float32, of=()):
    """The bar in ULP of a result of the dtype, for the backend at hand: it stands on every machine.

    The kernels' exponentials and logarithms are the project's own (backends/test_formulas.py). The reference's are
    PyTorch's, each off by a whole unit at most: SLEEF's u10 functions, MKL's in their accurate mode and glibc's all
    promise that, and no more. Where such errors add up to more than the kernels' bar, the reference has its own. A
    half result is one of float32, rounded once more: what that lacked does not show. A float32 result ``of``
    operands of half types is within ``LIGHT`` on a GPU.
    """
    if dtype in (torch.bfloat16, torch.float16):
        return 0.51
    bound = reference if backends._current == "reference" else kernels
    return max(bound, LIGHT_UNITS) if of and is_light(*of) else bound


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


def assert_terms(bound, results, theirs, truths, *inputs):
    """Results within the bound in ε·Σ|terms| of their truths, pairs with Σ|terms|; and no worse than PyTorch's."""
    slack = 1.25 if inputs[0].dtype == torch.float64 else 1.05
    for out, torch_out, (truth, terms) in zip(results, theirs, truths, strict=True):
        unit = units(terms, out.dtype)
        errors = error(out, truth, unit)
        assert_within(bound, errors, *inputs)
        assert_no_worse(errors, error(torch_out, truth, unit, out.dtype), out.dtype, *inputs, slack=slack)


def normal(truth, dtype):
    """Where the truth is no subnormal number: that is rounded once or twice, by how a processor makes 2ⁿ, which
    alone is a unit of difference between two of PyTorch's results."""
    return np.abs(as_float(truth)) >= torch.finfo(dtype).tiny


def rows_bound(n):
    """What adding n terms may cost, as a fraction of Σ|terms|: float32 in tiles, wider across them."""
    return 1e-7 * (1 + np.log2(n))


# ---- inputs ----------------------------------------------------------------------------------------------


def specials(dtype):
    """Numbers at which branches and ranges of the dtype begin and end, of both signs."""
    values = _specials(dtype).to(dtype)
    return values[values.isfinite()]


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

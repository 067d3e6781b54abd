"""The scalar formulas of csrc, every instruction set: error over the float32 numbers, and scalars like packs.

The bars stand above each formula in csrc/formulas.h, with the argument for them: the worst over every float32, and
over many float64, with a fused multiply-add and without one, which baseline x86 has not. The operators' bars, in
CONTRIBUTING.md, hold with these.
"""

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor

import instruction_sets
import numpy as np
import pytest
import stated_errors
import torch

from helpers import accuracy

pytestmark = instruction_sets.needed

INF = float("inf")
# name: (function in formulas.h, interval), in the order of formulas.cpp.
CORES = {
    "exp": ("exp(T x)", (-INF, INF)),
    "log": ("log(T x)", (-INF, INF)),
    "log1p_unit": ("log1p_unit(T e, T error)", (0.0, 1.0)),
    "half_expm1_minus": ("half_expm1_minus(T x)", (-INF, INF)),
    "half_expm1": ("half_expm1(T x)", (-INF, INF)),
    "softplus": ("softplus(T r)", (-INF, INF)),
    "logistic": ("logistic(T y)", (-INF, INF)),
    "clamped_log": ("clamped_log(T p)", (0.0, 1.0)),
    "clamped_log1m": ("clamped_log1m(T p)", (0.0, 1.0)),
    "half_exp": ("half_exp(T x)", (-INF, INF)),
    "exp_to_a_unit": ("exp_to_a_unit(T x)", (-INF, INF)),
    "exp_of_negative": ("exp_of_negative(T a)", (-INF, 0.0)),
    "half_expm1_minus by half and grown": ("half_expm1_minus(T x, T half, T grown)", (-INF, INF)),
    "half_expm1_minus by root": ("half_expm1_minus(T x, T root)", (-INF, INF)),
    "half_expm1 by root": ("half_expm1(T x, T root)", (-INF, INF)),
}
# Those of csrc/lean.h, behind them in formulas.cpp: (function, which of its results, interval).
LEAN = {
    "lean_exp": ("lean_exp(T x)", 0, (-INF, INF)),
    "lean_exp of half": ("lean_exp(T x)", 0, (-INF, INF)),
    "lean_exp of half, halved": ("lean_exp(T x)", 0, (-INF, INF)),
    "lean_exp_ordinary": ("lean_exp_ordinary(T x)", 0, (-85.0, 85.0)),
    "lean_exp_of_negative": ("lean_exp_of_negative(T a)", 0, (-INF, 0.0)),
    "lean_log1p_unit": ("lean_log1p_unit(T e)", 0, (0.0, 1.0)),
    "lean_share": ("lean_share(T e)", 0, (0.0, 1.0)),
    "lean_growth": ("lean_growth(T x)", 0, (-INF, INF)),
    "lean_growth's spread": ("lean_growth(T x)", 1, (-INF, INF)),
}
TRUTHS = {
    "exp": accuracy.exp,
    "log": accuracy.log,
    "log1p_unit": accuracy.log1p,
    "half_expm1_minus": lambda x: accuracy.expm1_minus(x) / 2,
    "half_expm1": lambda x: accuracy.expm1(x) / 2,
    "softplus": accuracy.softplus,
    "logistic": accuracy.sigmoid,
    "clamped_log": lambda x: np.maximum(accuracy.log(x), -100),
    "clamped_log1m": lambda x: np.maximum(accuracy.log1p(-x), -100),
    "half_exp": lambda x: accuracy.exp(x) / 2,
    "exp_to_a_unit": accuracy.exp,
    "exp_of_negative": accuracy.exp,
}


@functools.cache
def stated():
    """The errors above each function: {"exp(T x)": [float32, without FMA, float64, without FMA], …}."""
    return {
        function: four
        for found, functions in stated_errors.stated("formulas.h")
        for four, function in zip(found, functions, strict=False)
    }


def bar(name, isa, dtype=torch.float32):
    return stated_errors.of(stated()[CORES[name][0]], isa, dtype)


def test_every_core_has_a_bar():
    assert set(stated()) == {function for function, _ in CORES.values()}
    results = {(function, k) for function, errors in stated_errors.lean().items() for k in range(len(errors))}
    assert results == {(function, k) for function, k, _ in LEAN.values()}


@pytest.fixture(scope="module", params=instruction_sets.SETS)
def isa(request):
    return request.param


def loaded(isa, folder):
    compiled = ctypes.CDLL(str(instruction_sets.compiled("formulas", isa, folder)))
    compiled.formulas_sweep.restype = compiled.formulas_exp_and_error.restype = ctypes.c_double
    return compiled


@pytest.fixture(scope="module")
def library(isa, tmp_path_factory):
    return loaded(isa, tmp_path_factory.mktemp(isa))


def sweep(library, name, step, first=0, last=1 << 32):
    low, high = LEAN[name][-1] if name in LEAN else CORES[name][1]
    where = ctypes.c_float()
    arguments = map(ctypes.c_uint64, (first, last, step))
    limits = (ctypes.c_float(low), ctypes.c_float(high))
    worst = library.formulas_sweep([*CORES, *LEAN].index(name), *arguments, *limits, ctypes.byref(where))
    return worst, where.value


def apply(library, name, x, pack):
    out = torch.empty_like(x)
    kinds = (int(x.dtype == torch.float64), int(pack))
    pointers = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()))
    library.formulas_apply([*CORES, *LEAN].index(name), *kinds, *pointers, ctypes.c_int64(x.numel()))
    return out


@pytest.mark.parametrize("name", CORES)
def test_float32(library, isa, name):
    """Every 5003rd of all float32 patterns."""
    worst, where = sweep(library, name, 5003)
    assert worst <= bar(name, isa), f"{worst:.4g} ULP at {where!r}"


def sweep_all(library, isa, name):
    quarter = 1 << 30
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda k: sweep(library, name, 1, k * quarter, (k + 1) * quarter), range(4))
        worst, where = max(found)
    print(f"{isa} {name}: {worst:.4f} ULP at {where!r}")
    return worst, where


@pytest.mark.large
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", CORES)
def test_every_float32(library, isa, name):
    worst, where = sweep_all(library, isa, name)
    assert worst <= bar(name, isa), f"{worst:.4g} ULP at {where!r}"


@pytest.fixture(scope="module", params=[s for s in instruction_sets.SETS if stated_errors.has_fma(s)][:1])
def with_fma(request, tmp_path_factory):
    """The library for one set that has a fused multiply-add, as a GPU has."""
    return loaded(request.param, tmp_path_factory.mktemp("fma"))


def lean_bar(name):
    function, result, _ = LEAN[name]
    return stated_errors.lean()[function][result]


@pytest.mark.parametrize("name", LEAN)
def test_lean(with_fma, name):
    """Every 1009th of all float32 patterns; NaN, infinities and zeros as the formulas of formulas.h."""
    worst, where = sweep(with_fma, name, 1009)
    assert worst <= lean_bar(name), f"{worst:.4g} ULP at {where!r}"
    twins = {"lean_exp": "exp", "lean_growth": "half_expm1", "lean_growth's spread": "half_expm1_minus"}
    if name in twins:
        x = torch.tensor([0.0, INF, -INF, torch.nan, -0.0, 1e-45, 3e38, -3e38] * 2)
        got, want = (apply(with_fma, of, x, True) for of in (name, twins[name]))
        torch.testing.assert_close(got, want, rtol=3e-7, atol=0.0, equal_nan=True)


@pytest.mark.large
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", LEAN)
def test_lean_on_every_float32(with_fma, name):
    worst, where = sweep_all(with_fma, "with FMA", name)
    assert worst <= lean_bar(name), f"{worst:.4g} ULP at {where!r}"


def truth(library, name, x):
    """In 50 digits; of a formula of several arguments, of the others as they are."""
    wide = accuracy.wide(x)
    if name in TRUTHS:
        return TRUTHS[name](wide)
    near = np.abs(wide) <= 1
    of = "half_expm1" if name == "half_expm1 by root" else "half_expm1_minus"
    series = TRUTHS[of](np.where(near, wide, 0 * wide))
    if "grown" in name:
        square = accuracy.wide(apply(library, "half_exp", x, False))
    else:
        root = accuracy.wide(apply(library, "exp", x * 0.5, False))
        square = root * root / 2
    return np.where(near, series, square - (0.5 if of == "half_expm1" else wide / 2 + 0.5))


def check_float64(library, isa, name, n):
    x = accuracy.everywhere(n, torch.float64)
    if CORES[name][1] == (0.0, 1.0):
        x = torch.cat(
            [torch.rand(n, dtype=torch.float64), torch.exp2(-60 * torch.rand(n // 2, dtype=torch.float64))]
        )
    if name == "exp_of_negative":
        x = -x.abs()
    if name == "log":
        x = torch.where(x > 0, x, 1.0)
    x = x[: len(x) // 8 * 8].contiguous()
    errors = accuracy.ulp(apply(library, name, x, True), truth(library, name, x))
    accuracy.assert_within(bar(name, isa, torch.float64), errors, x)


@pytest.mark.parametrize("step", [997, pytest.param(1, marks=[pytest.mark.large, pytest.mark.timeout(3000)])])
def test_exponential_and_its_error(library, step):
    """Their sum, of normal numbers, as formulas.h has it."""
    assert library.formulas_exp_and_error(ctypes.c_uint64(step)) <= 0.21


@pytest.mark.parametrize("name", CORES)
def test_float64(library, isa, name):
    check_float64(library, isa, name, 3000)


@pytest.mark.large
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", CORES)
def test_many_float64(library, isa, name):
    check_float64(library, isa, name, 300_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CORES)
def test_a_number_like_a_pack(library, isa, name, dtype):
    """The same operations in the same order; AVX-512 has instructions of its own for a division and for 2ⁿ."""
    low, high = CORES[name][1]
    x = accuracy.everywhere(4096, dtype)
    x = x[(x >= low) & (x <= high)]
    x = x[: len(x) // 16 * 16].contiguous()
    one, pack = apply(library, name, x, False), apply(library, name, x, True)
    if isa == "v4" and name == "logistic":
        torch.testing.assert_close(one, pack, rtol=torch.finfo(dtype).eps, atol=0.0)
    else:
        torch.testing.assert_close(one, pack, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("pack", [False, True], ids=["number", "pack"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_special_values(library, dtype, pack):
    x = torch.tensor([0.0, INF, -INF, torch.nan] * 4, dtype=dtype)
    expected = {
        "exp": (1.0, INF, 0.0, torch.nan),
        "log": (-INF, INF, torch.nan, torch.nan),
        "half_expm1_minus": (0.0, torch.nan, INF, torch.nan),
        "half_expm1": (0.0, INF, -0.5, torch.nan),
        "softplus": (float(np.log(2)), INF, 0.0, torch.nan),
        "logistic": (0.5, 1.0, 0.0, torch.nan),
        "clamped_log1m": (0.0, torch.nan, torch.nan, torch.nan),
    }
    for name, values in expected.items():
        want = torch.tensor(values, dtype=torch.float64).to(dtype)
        torch.testing.assert_close(apply(library, name, x, pack)[:4], want, rtol=2e-16, atol=0.0, equal_nan=True)

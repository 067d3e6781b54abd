"""The scalar formulas of csrc, every instruction set: error over the float32 numbers, and scalars like packs.

Half a unit in the last place is a core's last rounding; the rest is what its polynomial and the step before round.
That is measured, and a bar is the worst over all float32, rounded up to a twentieth; the operators' bars, in
CONTRIBUTING.md, hold with these. A subnormal result of exp is rounded twice. Baseline x86 has no fused
multiply-add, and a bar of its own where that shows.
"""

import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor

import instruction_sets
import numpy as np
import pytest
import torch

from helpers import accuracy

pytestmark = instruction_sets.needed

INF = float("inf")
# name: (interval, bar in ULP, bar without a fused multiply-add), in the order of formulas.cpp.
CORES = {
    "exp": ((-INF, INF), 0.8, 0.8),
    "log": ((-INF, INF), 0.9, 0.9),
    "log1p_unit": ((0.0, 1.0), 1.05, 1.1),
    "half_expm1_minus": ((-INF, INF), 2.5, 2.6),
    "half_expm1": ((-INF, INF), 1.4, 1.5),
    "softplus": ((-INF, INF), 1.4, 1.45),
    "logistic": ((-INF, INF), 0.8, 0.8),
    "clamped_log": ((0.0, 1.0), 0.65, 0.75),
    "clamped_log1m": ((0.0, 1.0), 0.65, 0.75),
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
}


def bar(name, isa):
    has_fma = isa in ("v3", "v4") or platform.machine() in ("aarch64", "arm64")
    return CORES[name][1 if has_fma else 2]


@pytest.fixture(scope="module", params=instruction_sets.SETS)
def isa(request):
    return request.param


@pytest.fixture(scope="module")
def library(isa, tmp_path_factory):
    loaded = ctypes.CDLL(str(instruction_sets.compiled("formulas", isa, tmp_path_factory.mktemp(isa))))
    loaded.formulas_sweep.restype = ctypes.c_double
    return loaded


def sweep(library, name, step, first=0, last=1 << 32):
    low, high = CORES[name][0]
    where = ctypes.c_float()
    arguments = map(ctypes.c_uint64, (first, last, step))
    limits = (ctypes.c_float(low), ctypes.c_float(high))
    worst = library.formulas_sweep(list(CORES).index(name), *arguments, *limits, ctypes.byref(where))
    return worst, where.value


def apply(library, name, x, pack):
    out = torch.empty_like(x)
    kinds = (int(x.dtype == torch.float64), int(pack))
    pointers = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()))
    library.formulas_apply(list(CORES).index(name), *kinds, *pointers, ctypes.c_int64(x.numel()))
    return out


@pytest.mark.parametrize("name", CORES)
def test_float32(library, isa, name):
    """Every 997th of all float32 patterns."""
    worst, where = sweep(library, name, 997)
    assert worst <= bar(name, isa), f"{worst:.4g} ULP at {where!r}"


@pytest.mark.large
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", CORES)
def test_every_float32(library, isa, name):
    quarter = 1 << 30
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda k: sweep(library, name, 1, k * quarter, (k + 1) * quarter), range(4))
        worst, where = max(found)
    print(f"{isa} {name}: {worst:.4f} ULP at {where!r}")
    assert worst <= bar(name, isa), f"{worst:.4g} ULP at {where!r}"


@pytest.mark.parametrize("name", CORES)
def test_float64(library, isa, name):
    """The same bars, against 50 digits."""
    x = accuracy.everywhere(3000, torch.float64)
    if CORES[name][0] == (0.0, 1.0):
        x = torch.cat(
            [torch.rand(2000, dtype=torch.float64), torch.exp2(-60 * torch.rand(1000, dtype=torch.float64))]
        )
    x = x[: len(x) // 8 * 8].contiguous()
    wide = accuracy.wide(x)
    if name == "log":
        wide = np.where(wide > 0, wide, 1 + 0 * wide)
        x = torch.where(x > 0, x, 1.0)
    accuracy.assert_within(bar(name, isa), accuracy.ulp(apply(library, name, x, True), TRUTHS[name](wide)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CORES)
def test_a_number_like_a_pack(library, isa, name, dtype):
    """The same operations in the same order; AVX-512 has instructions of its own for a division and for 2ⁿ."""
    low, high = CORES[name][0]
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

"""The formulas of csrc/counts.h, every instruction set: errors against 50 digits and more, numbers like packs.

The bars stand above each function there, with the argument for them, as those of formulas.h do (test_formulas.py):
a set of four for each result, and for each kind of argument that count_cases.py has.
"""

import ctypes
import functools

import instruction_sets
import numpy as np
import pytest
import stated_errors
import torch
from count_cases import CASES

from helpers import accuracy
from helpers.accuracy import mp
from vae_fast.checking.measure import error, units

pytestmark = instruction_sets.needed

INF = float("inf")


@functools.cache
def made(name, dtype, n):
    """A case's arguments, as the formula has them, and its truths: the same for every instruction set."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        inputs = CASES[name].inputs(n)
    inputs = tuple(x[: n // 16 * 16].to(dtype).contiguous() for x in inputs)
    truths = [CASES[name].truth(*map(mp.mpf, row)) for row in zip(*(x.tolist() for x in inputs), strict=True)]
    return inputs, [*zip(*truths, strict=True)]


def errors_of(result, truth):
    if isinstance(truth[0], tuple):
        values, terms = (np.array([mp.mpf(t[k]) for t in truth], object) for k in range(2))
        return error(result, values, units(terms.astype(float), result.dtype))
    return accuracy.ulp(result, np.array([mp.mpf(t) for t in truth], object))


@functools.cache
def bars():
    """The sets of four of every case, one for each result, in the order in which they stand in counts.h."""
    above = {functions[0]: iter(found) for found, functions in stated_errors.stated("counts.h")}
    found = {name: [next(above[case.function]) for _ in case.results] for name, case in CASES.items()}
    left = {function: [*fours] for function, fours in above.items()}
    assert not any(left.values()), f"nothing tries {left}"
    return found


def test_every_function_has_its_bars():
    functions = {functions[0] for _, functions in stated_errors.stated("counts.h")}
    assert functions == {case.function for case in CASES.values()}
    assert [len(fours) for fours in bars().values()] == [len(case.results) for case in CASES.values()]


@pytest.fixture(scope="module", params=instruction_sets.SETS)
def isa(request):
    return request.param


@pytest.fixture(scope="module")
def library(isa, tmp_path_factory):
    return ctypes.CDLL(str(instruction_sets.compiled("count_formulas", isa, tmp_path_factory.mktemp(isa))))


def apply(library, name, inputs, pack):
    case, first = CASES[name], inputs[0]
    results = [torch.empty_like(first) for _ in case.results]
    arrays = [(ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors)) for tensors in (inputs, results)]
    kinds = (int(first.dtype == torch.float64), int(pack), len(inputs), len(results))
    library.counts_apply(case.which, *kinds, *arrays, ctypes.c_int64(first.numel()))
    return results


def check(library, isa, name, dtype, n):
    inputs, truths = made(name, dtype, n)
    for pack in (False, True):
        results = apply(library, name, inputs, pack)
        for result, truth, four in zip(results, truths, bars()[name], strict=True):
            accuracy.assert_within(stated_errors.of(four, isa, dtype), errors_of(result, truth), *inputs)


both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
each = pytest.mark.parametrize("name", CASES)


@both_dtypes
@each
def test_errors(library, isa, name, dtype):
    check(library, isa, name, dtype, 320)


@pytest.mark.large
@pytest.mark.timeout(3000)
@both_dtypes
@each
def test_many_errors(library, isa, name, dtype):
    check(library, isa, name, dtype, 12_000)


# Formulas of one number: from where to where, and whether of counts alone.
SWEEPS = {
    "growth": (0.0, 3.4028234663852886e38, -1),
    "artanh_cubic": (0.0, 0.2178, -1),
    "stirling": (8.0, 1e30, -1),
    "log_factorial of counts": (0.0, 2.0**24, 1),
}


@pytest.mark.parametrize("step", [2503, pytest.param(1, marks=[pytest.mark.large, pytest.mark.timeout(3000)])])
@pytest.mark.parametrize("name", SWEEPS)
def test_float32(library, isa, name, step):
    """Of all patterns every step-th."""
    case, (low, high, whole) = CASES[name], SWEEPS[name]
    worst, where = (ctypes.c_double * 4)(), (ctypes.c_float * 4)()
    limits = (ctypes.c_float(low), ctypes.c_float(high), ctypes.c_uint64(step))
    library.counts_sweep(case.which, len(case.results), *limits, whole, worst, where)
    for result, four, largest, at in zip(case.results, bars()[name], worst, where, strict=False):
        assert largest <= stated_errors.of(four, isa, torch.float32), f"{result}: {largest:.4g} ULP at {at!r}"


@both_dtypes
@each
def test_a_number_like_a_pack(library, isa, name, dtype):
    """The same operations in the same order, but for AVX-512's own of a logistic function (test_formulas.py)."""
    inputs, _ = made(name, dtype, 320)
    own = isa == "v4" and ("inflated" in name or name == "gate_of")
    eps = torch.finfo(dtype).eps if own else 0.0
    for one, pack in zip(apply(library, name, inputs, False), apply(library, name, inputs, True), strict=True):
        # Of a difference from 1 its own ε.
        torch.testing.assert_close(one, pack, rtol=4 * eps, atol=eps if "far" in name else 0.0)


@pytest.mark.parametrize("pack", [False, True], ids=["number", "pack"])
@both_dtypes
def test_special_values(library, dtype, pack):
    def of(name, *inputs):
        columns = [torch.tensor([*x] * (16 // len(x)), dtype=dtype) for x in inputs]
        return [result[: len(inputs[0])] for result in apply(library, name, columns, pack)]

    def same(results, *expected):
        torch.testing.assert_close(results, [torch.tensor(e, dtype=dtype) for e in expected], rtol=0.0, atol=0.0)

    same(of("growth", [0.0, INF]), [0.0, INF], [0.0, INF], [0.0, 1.0], [1.0, 0.0])
    same(of("log_factorial of counts", [0.0, 1.0]), [0.0, 0.0])
    # Of counts 0 and 1 there is no factor but 1.
    same(of("rising of counts to 8", [0.0, 1.0], [3.0, 3.0]), [0.0, 0.0], [0.0, 0.0])
    # θ = ∞ is Poisson's.
    counts = [2.0, 8.0, 9.0, 1000.0]
    value, slope = of("rising of counts to 8", counts, [INF] * 4)
    same([value, slope], (-of("log_factorial of counts", counts)[0]).tolist(), [0.0] * 4)

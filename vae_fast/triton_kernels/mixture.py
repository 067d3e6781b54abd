"""A mixture's log-density of every datum, of all dims together and of each alone, and its gradients: the kernels.

No table is of data × components: shares are made anew for the gradients, by programs that own data and by others
that own components.
"""

import math

import triton
import triton.language as tl

from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.lean import exp_over
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.pairs import add_exponentials, along, place

HALF_LOG_2_PI = tl.constexpr(0.5 * math.log(2.0 * math.pi))


# ---- pairs -----------------------------------------------------------------------------------------------


@triton.jit
def _of_dims(operands, sizes, b, k, d, OWN: tl.constexpr):
    """z − μ, 1/σ and −log σ; 0 where there is none."""
    z, mu, rate, log_rate, _ = operands
    rows, components, dims = sizes
    of_z, of_k = (b < rows) & (d < dims), (k < components) & (d < dims)
    if OWN:
        at, mask = (b * components + k) * dims + d, of_z & of_k
    else:
        at, mask = k * dims + d, of_k
    difference = tl.load(z + b * dims + d, mask=of_z, other=0.0) - tl.load(mu + at, mask=mask, other=0.0)
    difference = tl.where(of_z & of_k, difference, 0.0)
    return difference, tl.load(rate + at, mask=mask, other=0.0), tl.load(log_rate + at, mask=mask, other=0.0)


@triton.jit
def _log_weight(operands, sizes, b, k, OWN: tl.constexpr):
    """log w; −∞ where there is none."""
    rows, components, _ = sizes
    if OWN:
        return tl.load(operands[4] + b * components + k, mask=(b < rows) & (k < components), other=-float("inf"))
    else:
        return tl.load(operands[4] + k, mask=k < components, other=-float("inf"))


@triton.jit
def _term(u, log_rate):
    """log N in each dim, but for its constant."""
    return tl.fma(u * -0.5, u, log_rate)


@triton.jit
def _joint(operands, sizes, b, k, OWN: tl.constexpr, OWN_WEIGHTS: tl.constexpr, BLOCK_DIMS: tl.constexpr):
    """log w + log N of all dims, but for its constant."""
    weight = _log_weight(operands, sizes, b, k, OWN_WEIGHTS)
    sum = tl.zeros_like(weight + b.to(weight.dtype) * 0.0)
    for first in range(0, sizes[2], BLOCK_DIMS):
        difference, rate, log_rate = _of_dims(operands, sizes, b, k, along(first, BLOCK_DIMS, 2), OWN)
        sum += tl.sum(_term(difference * rate, log_rate), 2, keep_dims=True)
    return sum + weight


@triton.jit
def _share(term, value, upstream):
    """A component's share in a value, times the upstream gradient: of no gradient there is none."""
    shift = tl.where(value == -float("inf"), 0.0, value)
    return tl.where(upstream == 0.0, 0.0, upstream * exp_over(term - shift, 1))


@triton.jit
def _shares(terms, results, sizes, b, k):
    """The shares in the value of all dims; 0 of pairs that are not there."""
    rows, components, dims = sizes
    value = tl.load(results[0] + b, mask=b < rows, other=0.0)
    upstream = tl.load(results[2] + b, mask=b < rows, other=0.0)
    value += (dims.to(tl.float64) * HALF_LOG_2_PI).to(value.dtype)
    return tl.where((b < rows) & (k < components), _share(terms, value, upstream), 0.0)


@triton.jit
def _shares_of_dims(u, log_rate, weight, results, sizes, b, k, d):
    """The shares in the values of each dim; 0 of what is not there."""
    rows, components, dims = sizes
    there = (b < rows) & (d < dims)
    value = tl.load(results[1] + b * dims + d, mask=there, other=0.0)
    upstream = tl.load(results[3] + b * dims + d, mask=there, other=0.0)
    value += tl.full((), HALF_LOG_2_PI, value.dtype)
    return tl.where(there & (k < components), _share(_term(u, log_rate + weight), value, upstream), 0.0)


@triton.jit
def _times(share, a, b):
    """a·b, of which a share of 0 is none of an infinite slope."""
    return tl.where(share == 0.0, 0.0, a * b)


# ---- forward ---------------------------------------------------------------------------------------------


@kernel
def forward(
    operands,
    outs,
    rows: tl.int64,
    components: tl.int64,
    dims: tl.int64,
    chunks: tl.int64,
    each: tl.int64,
    OWN: tl.constexpr,
    OWN_WEIGHTS: tl.constexpr,
    PER_DIM: tl.constexpr,
    BLOCK_OWNERS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
):
    """(top, sum) of a part of the components: outs are [part, row] of all dims, [part, row, dim] of each."""
    T: tl.constexpr = operands[0].dtype.element_ty
    sizes = (rows, components, dims)
    row, dim, chunk, part, first, end = place(rows, chunks, each, BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS)
    b, d = along(row, BLOCK_OWNERS, 0), along(dim, BLOCK_DIMS, 2)
    top = tl.full((BLOCK_OWNERS, 1, 1), -float("inf"), T)
    sum = tl.zeros((BLOCK_OWNERS, 1, 1), tl.float64)
    tops = tl.full((BLOCK_OWNERS, 1, BLOCK_DIMS), -float("inf"), T)
    sums = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    for start in range(first, tl.minimum(end, components), BLOCK_OTHERS):
        k = along(start, BLOCK_OTHERS, 1)
        if chunk == 0:
            terms = _joint(operands, sizes, b, k, OWN, OWN_WEIGHTS, BLOCK_DIMS)
            top, sum = add_exponentials(top, sum, terms)
        if PER_DIM:
            difference, rate, log_rate = _of_dims(operands, sizes, b, k, d, OWN)
            weight = _log_weight(operands, sizes, b, k, OWN_WEIGHTS)
            terms = _term(difference * rate, log_rate + weight)
            tops, sums = add_exponentials(tops, sums, tl.where(k < components, terms, -float("inf")))
    if chunk == 0:
        tl.store(outs[0] + part * rows + b, top.to(tl.float64), mask=b < rows)
        tl.store(outs[1] + part * rows + b, sum, mask=b < rows)
    if PER_DIM:
        to, mask = (part * rows + b) * dims + d, (b < rows) & (d < dims)
        tl.store(outs[2] + to, tops.to(tl.float64), mask=mask)
        tl.store(outs[3] + to, sums, mask=mask)


@kernel
def join(tops, sums, out, n: tl.int64, count: tl.int64, less: tl.float64, BLOCK: tl.constexpr):
    """out[i] = log Σ of n parts, less a number."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    top = tl.full((BLOCK,), -float("inf"), tl.float64)
    for part in range(0, n):
        top = tl.maximum(top, tl.load(tops + part * count + at, mask=mask, other=0.0))
    shift = tl.where(tl.abs(top) < float("inf"), top, 0.0)
    sum = tl.zeros((BLOCK,), tl.float64)
    for part in range(0, n):
        own = tl.load(tops + part * count + at, mask=mask, other=0.0)
        sum += tl.load(sums + part * count + at, mask=mask, other=0.0) * exp_over(own - shift, 1)
    value = tl.where(top == float("inf"), top, shift + log(sum)) - less
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


# ---- backward --------------------------------------------------------------------------------------------


@kernel
def data(
    operands,
    results,
    outs,
    rows: tl.int64,
    components: tl.int64,
    dims: tl.int64,
    chunks: tl.int64,
    each: tl.int64,
    OWN: tl.constexpr,
    OWN_WEIGHTS: tl.constexpr,
    ALL: tl.constexpr,
    PER_DIM: tl.constexpr,
    BLOCK_OWNERS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
):
    """By z, [part, row, dim]; of components that are each datum's own by μ, 1/σ and −log σ too, as they stand."""
    T: tl.constexpr = operands[0].dtype.element_ty
    sizes = (rows, components, dims)
    row, dim, _, part, first, end = place(rows, chunks, each, BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS)
    b, d = along(row, BLOCK_OWNERS, 0), along(dim, BLOCK_DIMS, 2)
    sums = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    for start in range(first, tl.minimum(end, components), BLOCK_OTHERS):
        k = along(start, BLOCK_OTHERS, 1)
        difference, rate, log_rate = _of_dims(operands, sizes, b, k, d, OWN)
        u = difference * rate
        shares = tl.zeros((BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS), T)
        if ALL:
            terms = _joint(operands, sizes, b, k, OWN, OWN_WEIGHTS, BLOCK_DIMS)
            shares += _shares(terms, results, sizes, b, k)
        if PER_DIM:
            weight = _log_weight(operands, sizes, b, k, OWN_WEIGHTS)
            shares += _shares_of_dims(u, log_rate, weight, results, sizes, b, k, d)
        slope = _times(shares, shares, u)
        by_mu = _times(shares, slope, rate)
        sums -= tl.sum(by_mu, 1, keep_dims=True).to(tl.float64)
        if OWN:
            at = (b * components + k) * dims + d
            mask = (b < rows) & (k < components) & (d < dims)
            if outs[1] is not None:
                tl.store(outs[1] + at, by_mu, mask=mask)
            if outs[2] is not None:
                tl.store(outs[2] + at, -_times(shares, slope, difference), mask=mask)
            if outs[3] is not None:
                tl.store(outs[3] + at, shares, mask=mask)
    if outs[0] is not None:
        tl.store(outs[0] + (part * rows + b) * dims + d, sums, mask=(b < rows) & (d < dims))


@kernel
def components(
    operands,
    results,
    outs,
    rows: tl.int64,
    components: tl.int64,
    dims: tl.int64,
    chunks: tl.int64,
    each: tl.int64,
    OWN_WEIGHTS: tl.constexpr,
    ALL: tl.constexpr,
    PER_DIM: tl.constexpr,
    BLOCK_OWNERS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
):
    """By μ, 1/σ and −log σ, [part, component, dim], and by log w, [part, chunk, component]."""
    T: tl.constexpr = operands[0].dtype.element_ty
    sizes = (rows, components, dims)
    component, dim, chunk, part, first, end = place(
        components, chunks, each, BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS
    )
    # Components along the first axis, which own, and data along the second.
    k, d = along(component, BLOCK_OWNERS, 0), along(dim, BLOCK_DIMS, 2)
    by_mu = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    by_rate = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    of_dims = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    of_all = tl.zeros((BLOCK_OWNERS, 1, 1), tl.float64)
    for start in range(first, tl.minimum(end, rows), BLOCK_OTHERS):
        b = along(start, BLOCK_OTHERS, 1)
        difference, rate, log_rate = _of_dims(operands, sizes, b, k, d, False)
        u = difference * rate
        shares = tl.zeros((BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS), T)
        if ALL:
            terms = _joint(operands, sizes, b, k, False, OWN_WEIGHTS, BLOCK_DIMS)
            own = _shares(terms, results, sizes, b, k)
            of_all += tl.sum(own, 1, keep_dims=True).to(tl.float64)
            shares += own
        if PER_DIM:
            weight = _log_weight(operands, sizes, b, k, OWN_WEIGHTS)
            each_dim = _shares_of_dims(u, log_rate, weight, results, sizes, b, k, d)
            of_dims += tl.sum(each_dim, 1, keep_dims=True).to(tl.float64)
            shares += each_dim
        slope = _times(shares, shares, u)
        by_mu += tl.sum(_times(shares, slope, rate), 1, keep_dims=True).to(tl.float64)
        by_rate -= tl.sum(_times(shares, slope, difference), 1, keep_dims=True).to(tl.float64)
    at, mask = (part * components + k) * dims + d, (k < components) & (d < dims)
    if outs[0] is not None:
        tl.store(outs[0] + at, by_mu, mask=mask)
    if outs[1] is not None:
        tl.store(outs[1] + at, by_rate, mask=mask)
    if outs[2] is not None:
        tl.store(outs[2] + at, of_dims + of_all, mask=mask)
    if outs[3] is not None:
        weights = tl.sum(of_dims, 2, keep_dims=True) + tl.where(chunk == 0, of_all, 0.0)
        tl.store(outs[3] + (part * chunks + chunk) * components + k, weights, mask=k < components)


@kernel
def weights(
    operands,
    results,
    out,
    rows: tl.int64,
    components: tl.int64,
    dims: tl.int64,
    chunks: tl.int64,
    each: tl.int64,
    OWN: tl.constexpr,
    ALL: tl.constexpr,
    PER_DIM: tl.constexpr,
    BLOCK_OWNERS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
):
    """By log w that are each datum's own: the shares of a pair, of all dims and of each."""
    T: tl.constexpr = operands[0].dtype.element_ty
    sizes = (rows, components, dims)
    row, _, _, _, first, end = place(rows, chunks, each, BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS)
    b = along(row, BLOCK_OWNERS, 0)
    for start in range(first, tl.minimum(end, components), BLOCK_OTHERS):
        k = along(start, BLOCK_OTHERS, 1)
        shares = tl.zeros((BLOCK_OWNERS, BLOCK_OTHERS, 1), T)
        if ALL:
            shares += _shares(_joint(operands, sizes, b, k, OWN, True, BLOCK_DIMS), results, sizes, b, k)
        if PER_DIM:
            weight = _log_weight(operands, sizes, b, k, True)
            for dim in range(0, dims, BLOCK_DIMS):
                d = along(dim, BLOCK_DIMS, 2)
                difference, rate, log_rate = _of_dims(operands, sizes, b, k, d, OWN)
                each_dim = _shares_of_dims(difference * rate, log_rate, weight, results, sizes, b, k, d)
                shares += tl.sum(each_dim, 2, keep_dims=True)
        tl.store(out + b * components + k, shares, mask=(b < rows) & (k < components))

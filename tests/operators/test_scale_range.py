"""Every parametrisation of σ over the whole range of every dtype: finite wherever the exact value is, and right.

The exact values are mpmath's, from log σ: where σ itself is beyond any dtype its logarithm is an ordinary number.
They are worked out once a dtype for all backends.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

import vae_fast as vf
from helpers import accuracy
from helpers.behaviour import with_grads
from helpers.marks import each_backend

pytestmark = each_backend

_mp = accuracy._mp
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Numbers of every dtype, so that no rounding of eps counts.
EPS = {"logvar": 2.0**-10, "logstd": 2.0**-10, "std": 2.0**-10, "var": 2.0**-14, "softplus": 2.0**-10}
FORMS = [*((param, eps) for param in EPS for eps in (0.0, EPS[param])), ("softplus", 2.0**-40)]
LOG_2PI = _mp.log(2 * _mp.pi)
EXPONENT_LIMIT = 10**6


# ---- exact values ------------------------------------------------------------------------------------------


def e(a):
    """e^a; beyond the range of all dtypes, and of their powers, 0 or infinity."""
    return _mp.mpf(0) if a < -EXPONENT_LIMIT else _mp.inf if a > EXPONENT_LIMIT else _mp.exp(a)


def log_softplus(r):
    """log log(1 + e^r): r itself where e^r is nothing beside 50 digits."""
    return r if r < -200 else _mp.log(r) if r > 200 else _mp.log(_mp.log1p(_mp.exp(r)))


def logs(r, param, eps):
    """(log σ, log of d log σ/dr) of the clamped argument."""
    r = _mp.mpf(r)
    if param == "std":
        log_sigma = _mp.log(r + eps)
        return log_sigma, -log_sigma
    if param == "var":
        log_var = _mp.log(r + eps)
        return log_var / 2, -_mp.log(2) - log_var
    if param == "softplus":
        whole = log_softplus(r)
        by_raw = _mp.mpf(0) if r < -200 else -_mp.log1p(e(-r)) - whole
    else:
        whole, by_raw = (r / 2, -_mp.log(2)) if param == "logvar" else (r, _mp.mpf(0))
    if eps:
        log_eps = _mp.log(eps)
        top = max(whole, log_eps)
        more = _mp.log1p(e(min(whole, log_eps) - top))
        by_raw += (_mp.mpf(0) if top == whole else whole - top) - more
        whole = top + more
    return whole, by_raw


def expm1_minus(a):
    """e^a − 1 − a."""
    if abs(a) < _mp.mpf(10) ** -15:
        return a * a / 2 + a * a * a / 6 + a**4 / 24
    with _mp.workdps(90):
        return e(a) - 1 - a


def gaussian(m, r, x, param, eps):
    """log p and its derivatives by m, r and x, each with Σ|terms|."""
    log_sigma, log_raw = logs(r, param, eps)
    d, by_raw = _mp.mpf(x) - _mp.mpf(m), e(log_raw)
    square, slope = (d * d * e(-2 * log_sigma) / 2, d * e(-2 * log_sigma)) if d else (_mp.mpf(0), _mp.mpf(0))
    value = -(square + log_sigma + LOG_2PI / 2)
    # In one exponential each: a product of a small number and a large one need be neither.
    squared = d * d * e(log_raw - 2 * log_sigma) if d else _mp.mpf(0)
    return (
        (value, square + abs(log_sigma) + LOG_2PI / 2),
        (slope, abs(slope)),
        (squared - by_raw, squared + by_raw),
        (-slope, abs(slope)),
    )


def kl(m, r, param, eps):
    """KL to N(0, 1) and its derivatives."""
    log_sigma, log_raw = logs(r, param, eps)
    m, var, by_raw = _mp.mpf(m), e(2 * log_sigma), e(log_raw)
    value = (m * m + expm1_minus(2 * log_sigma)) / 2
    grown = e(log_raw + 2 * log_sigma)
    draw = _mp.expm1(2 * log_sigma) * by_raw if abs(log_sigma) < 1 else grown - by_raw
    if logarithmic(param, eps):
        return (value, value), (m, abs(m)), (draw, abs(draw))
    terms = m * m / 2 + var / 2 + 0.5 + abs(log_sigma)
    return (value, terms), (m, abs(m)), (draw, grown + by_raw)


def kl_prior(m, r, pm, pr, param, eps):
    """KL to N(pm, σp²) and its derivatives."""
    (log_sigma, log_raw), (prior, prior_raw) = logs(r, param, eps), logs(pr, param, eps)
    d, ratio = _mp.mpf(m) - _mp.mpf(pm), 2 * (log_sigma - prior)
    square, slope = (d * d * e(-2 * prior) / 2, d * e(-2 * prior)) if d else (_mp.mpf(0), _mp.mpf(0))
    value = square + expm1_minus(ratio) / 2
    by_raw, by_prior = e(log_raw), e(prior_raw)
    grown, prior_grown = e(log_raw + ratio), e(prior_raw + ratio)
    squared = d * d * e(prior_raw - 2 * prior) if d else _mp.mpf(0)
    draw, dprior = grown - by_raw, -(squared + prior_grown - by_prior)
    if logarithmic(param, eps):
        if abs(ratio) < 1:
            draw = _mp.expm1(ratio) * by_raw
            dprior = -(squared + draw)
        sizes = value, abs(draw), squared + abs(draw)
    else:
        sizes = (
            square + e(ratio) / 2 + 0.5 + abs(log_sigma) + abs(prior),
            grown + by_raw,
            squared + prior_grown + by_prior,
        )
    return (
        (value, sizes[0]),
        (slope, abs(slope)),
        (draw, sizes[1]),
        (-slope, abs(slope)),
        (dprior, sizes[2]),
    )


def logarithmic(param, eps):
    return param in ("logvar", "logstd") and not eps


def mp_array(rows):
    """Rows of pairs (exact, Σ|terms|) as two arrays a result."""
    columns = list(zip(*rows, strict=True))
    return [tuple(np.array([pair[k] for pair in column], dtype=object) for k in range(2)) for column in columns]


# ---- inputs ------------------------------------------------------------------------------------------------


def numbers(values, dtype):
    """The values as numbers of the dtype, each once; infinite ones left out."""
    rounded = torch.tensor(sorted(set(values)), dtype=torch.float64).to(dtype)
    return rounded[rounded.isfinite()].unique().double().tolist()


def ends(dtype):
    """Positive numbers from one end of the dtype to the other, denser at both."""
    info = torch.finfo(dtype)
    least, most = info.smallest_normal * info.eps, info.max
    edge = [least, 3 * least, 37 * least, info.tiny * 0.37, info.tiny, 1.7 * info.tiny, 4.3 * info.tiny]
    edge += [most, most * 0.77, most / 2, most * 0.37, most / 5.3]
    exponents = np.linspace(math.log(info.tiny), math.log(most) - 0.1, 26)
    return edge + [1.0, 1.001, 0.31, 0.97, 2.7, *np.exp(exponents).tolist()]


def arguments(param, dtype):
    """Raw arguments of σ over the whole range: what σ, 1/σ and their squares overflow for among them."""
    if param in ("std", "var"):
        return numbers(ends(dtype), dtype)
    top = 710 if dtype == torch.float64 else 88
    parts = [0.0, 1e-5, 0.3, 1.0, 4.0, 17.0, 40.0]
    parts += [k * top for k in (0.45, 0.5, 0.7, 0.93, 0.99, 1.003, 1.01, 1.02, 1.1, 1.3, 1.47, 1.7, 1.98)]
    parts += [k * top for k in (2.001, 2.013, 2.05, 2.2, 2.6, 2.9, 3.1, 3.7, 5.1, 9.0)]
    parts += [1e4, 1.7e4, 1e7, torch.finfo(dtype).max / 1.7, torch.finfo(dtype).max]
    return numbers([s * v for v in parts for s in (1, -1)], dtype)


def differences(dtype):
    info = torch.finfo(dtype)
    least, most = info.smallest_normal * info.eps, info.max
    v = [0.0, 5 * least, 9 * info.tiny, 0.7 * info.tiny**0.5, 1e-3, 0.9, 1.3, 77.0, most**0.5, most**0.8, most]
    return numbers([*v, -3.3e-3], dtype)


def chosen(pairs, n):
    """n of the pairs, evenly spread."""
    pairs = list(pairs)
    return [pairs[k * len(pairs) // n] for k in range(n)] if len(pairs) > n else pairs


@functools.cache
def cases(call, dtype, param, eps):
    """(inputs by operand, exact results and Σ|terms| by result)."""
    r, d = arguments(param, dtype), differences(dtype)
    if call == "log_prob":
        rows = [(0.0, b, x) for b, x in itertools.product(r, d)] + [(1.5, b, 1.5) for b in r]
        found = [gaussian(*row, param, eps) for row in rows]
    elif call == "kl":
        rows = [(a, b) for b in r for a in (0.0, d[1], d[len(d) // 2], d[-2], d[-1])]
        found = [kl(*row, param, eps) for row in rows]
    else:
        pairs = itertools.product(r, r)
        near = [(a, float(torch.tensor(a, dtype=dtype) * 1.01)) for a in r]
        pairs = [*chosen(pairs, 700), *zip(r, r, strict=True), *((a, b) for a, b in near if math.isfinite(b))]
        # Differences that are finite where a step on the way to their rounding error is not.
        most = torch.finfo(dtype).max
        large = numbers([most * k for k in (0.03, 0.1163, 0.117, 0.23, 0.31, 0.43, 0.71, 0.93)], dtype)
        signs = (1,) if param in ("std", "var") else (1, -1)
        pairs += [pair for a in large for s in signs for pair in ((s * a, s * most), (s * most, s * a))]
        rows = [(d[k * 7 % len(d)], a, 0.0, b) for k, (a, b) in enumerate(pairs)]
        found = [kl_prior(*row, param, eps) for row in rows]
    inputs = [torch.tensor(column, dtype=torch.float64).to(dtype) for column in zip(*rows, strict=True)]
    return inputs, mp_array(found)


# ---- error -------------------------------------------------------------------------------------------------


def errors(result, exact, terms):
    """|result − exact| in eps·Σ|terms| of the result's dtype, infinity as in ``accuracy.error``."""
    info = torch.finfo(result.dtype)
    first = _mp.mpf(2) ** (math.frexp(info.max)[1])
    unit = [info.eps * min(t, first) + info.smallest_normal * info.eps for t in terms]
    values = [_mp.mpf(v) for v in result.detach().double().cpu().tolist()]
    out = []
    for value, truth, one in zip(values, exact, unit, strict=True):
        if value != value:
            out.append(math.inf)
            continue
        value, truth = (max(-first, min(first, v)) for v in (value, truth))
        out.append(float(abs(value - truth) / one))
    return np.array(out)


def bar(param, eps, by_raw):
    """CONTRIBUTING's table: 3, and what a σ that is itself rounded costs."""
    rounded = param == "softplus" or eps
    return 3 + (6 if by_raw else 4) * bool(rounded)


CALLS = {
    "log_prob": (vf.gaussian_log_prob, ("value", "dmean", "dlogvar", "dx")),
    "kl": (vf.gaussian_kl, ("value", "dmu", "dlogvar")),
    "kl_prior": (vf.gaussian_kl, ("value", "dmu", "dlogvar", "dprior_mu", "dprior_logvar")),
}


def findings(call, dtype, param, eps, alike=1):
    """(result, its bar, errors, inputs) of every result of a call, each element of the inputs ``alike`` times."""
    inputs, results = cases(call, dtype, param, eps)
    function, names = CALLS[call]
    runs = [t.repeat_interleave(alike) for t in inputs]
    got = with_grads(lambda *a: function(*a, event_ndim=0, param=param, param_eps=eps), *runs)
    for name, value, (exact, terms) in zip(names, got, results, strict=True):
        yield name, bar(param, eps, name.endswith("logvar")), errors(value[::alike], exact, terms), inputs


def assert_right(found):
    for name, bound, errors_, inputs in found:
        largest, where = accuracy.worst(errors_, *inputs)
        assert largest <= bound, f"{name}: {largest:.4g} > {bound} at {where}"


@pytest.mark.parametrize(("param", "eps"), FORMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_whole_range(call, dtype, param, eps, backend):
    # A pack of CPU numbers takes the way that one of them needs: here all need the same.
    assert_right(findings(call, dtype, param, eps, alike=16 if backend == "native" else 1))


@functools.cache
def sigmas(dtype, param, eps):
    """(r, σ and dσ/dr) where σ is a number of the dtype computed in."""
    largest = _mp.mpf(torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max)
    r, found = [], []
    for a in arguments(param, dtype):
        log_sigma, log_raw = logs(a, param, eps)
        if e(log_sigma) <= largest:
            r.append(a)
            found.append((e(log_sigma), e(log_sigma + log_raw)))
    sigma, slope = (np.array(column, dtype=object) for column in zip(*found, strict=True))
    return torch.tensor(r, dtype=torch.float64).to(dtype), sigma, slope


@pytest.mark.parametrize(("param", "eps"), FORMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples(dtype, param, eps):
    """z = σε within 2ε·|z| (4 of a σ that is rounded itself), its gradient by r within 3 (5)."""
    r, sigma, slope = sigmas(dtype, param, eps)
    mu, noise = torch.zeros_like(r), accuracy.wide(vf.standard_normal(r.shape, seed=3, dtype=torch.float64))
    more = 2 * (param == "softplus" or eps != 0)
    z, _, dr = with_grads(lambda m, r: vf.rsample(m, r, seed=3, param=param, param_eps=eps), mu, r)
    for bound, result, exact in ((2 + more, z, sigma * noise), (3 + more, dr, slope * noise)):
        accuracy.assert_within(bound, errors(result, exact, abs(exact)), r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_derivative_of_an_infinite_sigma(dtype):
    """½e^(½r) is finite where e^(½r) is not."""
    edge = 2 * math.log(torch.finfo(dtype).max)
    r = torch.tensor([edge + 0.2, edge + 1.3, edge + 1.5], dtype=dtype)
    dr = with_grads(lambda m, r: vf.rsample(m, r, seed=3), torch.zeros_like(r), r)[2]
    noise = vf.standard_normal(r.shape, seed=3, dtype=torch.float64).cpu()
    exact = [_mp.exp(_mp.mpf(v) / 2) / 2 for v in r.tolist()]
    assert (errors(dr / noise.to(dr), exact, exact)[:2] <= 4).all() and dr[2].isinf()


@pytest.mark.parametrize("param", EPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bounds(dtype, param):
    """What lies outside the bounds counts as the bound, without a gradient."""
    low, high = (0.25, 3.0) if param in ("std", "var") else (-60.0, 20.0)
    r = torch.tensor(arguments(param, dtype), dtype=torch.float64).to(dtype)
    m, x, p = torch.full_like(r, 0.5), torch.zeros_like(r), r.flip(0)
    for function, inputs in ((vf.gaussian_kl, (m, r, x, p)), (vf.gaussian_log_prob, (m, r, x))):
        clamped = [t.clamp(low, high) if k % 2 else t for k, t in enumerate(inputs)]
        got = with_grads(lambda *a, f=function: f(*a, event_ndim=0, param=param, bounds=(low, high)), *inputs)
        want = with_grads(lambda *a, f=function: f(*a, event_ndim=0, param=param), *clamped)
        for k, (result, wanted) in enumerate(zip(got, want, strict=True)):
            if k and k % 2 == 0 and k <= len(inputs):
                raw = inputs[k - 1]
                wanted = torch.where((raw < low) | (raw > high), 0.0, wanted)
            assert torch.equal(result, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_where_sigma_is_0(dtype):
    """The limits from above, 0 where the difference is; ∞ − ∞ is NaN, as in PyTorch's form."""
    inf, zero = math.inf, torch.zeros(3, dtype=dtype)
    x = torch.tensor([0.0, 1.0, -1.0], dtype=dtype)
    for param in ("std", "var"):
        kl, _, dr = with_grads(lambda m, r, p=param: vf.gaussian_kl(m, r, event_ndim=0, param=p), x, zero)
        assert kl.tolist() == [inf] * 3 and dr.tolist() == [-inf] * 3
        log_prob, dmean, dr, _ = with_grads(
            lambda m, r, x, p=param: vf.gaussian_log_prob(m, r, x, event_ndim=0, param=p), zero, zero, x
        )
        assert log_prob[0] == inf and log_prob[1:].isnan().all() and dmean.tolist() == [0.0, inf, -inf]
        assert dr.tolist() == [-inf, inf, inf]
    # −∞ is where σ is 0 of a softplus, whose log σ has a slope of 1.
    below = torch.full((3,), -inf, dtype=dtype)
    kl, _, dr = with_grads(lambda m, r: vf.gaussian_kl(m, r, event_ndim=0, param="softplus"), x, below)
    assert kl.tolist() == [inf] * 3 and dr.tolist() == [-1.0] * 3


# ---- Bernoulli ---------------------------------------------------------------------------------------------


def of_logits(y, t):
    """log p and its derivatives by the logit and the target, each with Σ|terms|."""
    y, t = _mp.mpf(y), _mp.mpf(t)
    wrong, small = (1 - t if y > 0 else t), e(-abs(y))
    value, s = abs(y) * wrong + _mp.log1p(small), small / (1 + small)
    return (-value, value), (s - (1 - t) if y > 0 else t - s, wrong + s), (y, abs(y))


def of_probs(p, t):
    """The same of a probability, in F.binary_cross_entropy's form: clamped."""
    p, t = _mp.mpf(p), _mp.mpf(t)
    logs_ = _mp.log(p) if p else -_mp.inf, _mp.log1p(-p) if p < 1 else -_mp.inf
    log_p, log_q = (max(v, _mp.mpf(-100)) for v in logs_)
    slope = (t - p) / max(p * (1 - p), _mp.mpf(1e-12))
    terms = -t * log_p - (1 - t) * log_q
    return (-terms, terms), (slope, abs(slope)), (log_p - log_q, -log_p - log_q)


@functools.cache
def bernoulli_cases(param, dtype):
    info = torch.finfo(dtype)
    t = numbers([0.0, info.smallest_normal * info.eps, info.tiny, 1e-3, 0.31, 0.5, 0.97, 1 - info.eps, 1.0], dtype)
    if param == "logits":
        values, truth = arguments("logstd", dtype), of_logits
    else:
        small = [v for v in ends(dtype) if v < 1]
        values, truth = numbers([0.0, *small, *(1 - v for v in small if v > info.eps / 4), 1.0], dtype), of_probs
    rows = list(itertools.product(values, t))
    inputs = [torch.tensor(column, dtype=torch.float64).to(dtype) for column in zip(*rows, strict=True)]
    return inputs, mp_array([truth(*row) for row in rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("param", ["logits", "probs"])
def test_bernoulli(param, dtype):
    inputs, results = bernoulli_cases(param, dtype)
    got = with_grads(lambda y, x: vf.bernoulli_log_prob(y, x, event_ndim=0, param=param), *inputs)
    bars = (3, 4 if param == "probs" else 3, 3)
    rows = zip(("value", "dlogits", "dx"), bars, got, results, strict=True)
    assert_right((name, bound, errors(value, *exact), inputs) for name, bound, value, exact in rows)

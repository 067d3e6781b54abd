"""Arguments of σ over the whole range of every dtype, in every parametrisation, and the exact results of them.

They are worked out once a dtype for all backends, in 50 digits, whose exponents have no end.
"""

import functools
import itertools
import math

import numpy as np
import torch

import vae_fast as vf
from helpers import accuracy
from helpers.behaviour import with_grads
from vae_fast.checking import forms, formulas, measure

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Numbers of every dtype, so that no rounding of eps counts.
EPS = {"logvar": 2.0**-10, "logstd": 2.0**-10, "std": 2.0**-10, "var": 2.0**-14, "softplus": 2.0**-10}
FORMS = [*((param, eps) for param in EPS for eps in (0.0, EPS[param])), ("softplus", 2.0**-40)]


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


def columns(rows, dtype):
    """Rows of numbers as a tensor an operand."""
    return [torch.tensor(column, dtype=torch.float64).to(dtype) for column in zip(*rows, strict=True)]


@functools.cache
def cases(call, dtype, param, eps):
    """(inputs by operand, exact results and Σ|terms| by result)."""
    form = forms.Form(param, eps)
    r, d = arguments(param, dtype), differences(dtype)
    if call == "log_prob":
        rows = [(0.0, b, x) for b, x in itertools.product(r, d)] + [(1.5, b, 1.5) for b in r]
    elif call == "kl":
        rows = [(a, b) for b in r for a in (0.0, d[1], d[len(d) // 2], d[-2], d[-1])]
    else:
        pairs = itertools.product(r, r)
        near = [(a, float(torch.tensor(a, dtype=dtype) * 1.01)) for a in r]
        pairs = [*chosen(pairs, 400), *zip(r, r, strict=True), *((a, b) for a, b in near if math.isfinite(b))]
        # Differences that are finite where a step on the way to their rounding error is not.
        most = torch.finfo(dtype).max
        large = numbers([most * k for k in (0.03, 0.1163, 0.117, 0.23, 0.31, 0.43, 0.71, 0.93)], dtype)
        signs = (1,) if param in ("std", "var") else (1, -1)
        pairs += [pair for a in large for s in signs for pair in ((s * a, s * most), (s * most, s * a))]
        rows = [(d[k * 7 % len(d)], a, 0.0, b) for k, (a, b) in enumerate(pairs)]
    inputs = columns(rows, dtype)
    formula = formulas.gaussian if call == "log_prob" else formulas.kl
    value, slopes = accuracy.truth(formula, form, *inputs, numbers=accuracy.digits)
    return inputs, (value, *slopes.values())


# ---- results -----------------------------------------------------------------------------------------------


def errors(result, exact, terms):
    """|result − exact| in ε·Σ|terms|."""
    return measure.error(result, exact, measure.units(terms, result.dtype))


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
        bound = measure.density_bar(forms.Form(param, eps), name.endswith("logvar"))
        if name == "value" and (param, eps) == ("logvar", 0.0) and call != "kl_prior":
            bound = accuracy.bar(bound, bound, of=inputs)
        yield name, bound, errors(value[::alike], exact, terms), inputs


def assert_right(found):
    for name, bound, errors_, inputs in found:
        largest, where = accuracy.worst(errors_, *inputs)
        assert largest <= bound, f"{name}: {largest:.4g} > {bound} at {where}"

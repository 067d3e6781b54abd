"""Calls of the Triton launchers, of empty tensors: of each operator a function of what decides its kernel.

A shape and a dtype, which operands there are besides those it must have, which gradients are wanted, and options.
A form is (param, eps, low, high), and perhaps what bounds do to gradients.
"""

import math

import torch

from vae_fast.operators import OPERATORS
from vae_fast.triton_kernels import early, operators

INF = math.inf
PLAIN = (0, 0.0, -INF, INF)
NONE, SUM, MEAN = range(3)


def upstream_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def made(op, operands, options, needs=(), upstream=None):
    """A raw operator and its arguments, operands and options by name; ``needs`` are operands with a gradient."""
    operator = OPERATORS[op]
    signature = operator.forward if upstream is None else operator.backward
    tensors = [operands.get(operand.name) for operand in operator.operands]
    wanted = [name in needs for name in signature.needs]
    args = (*(upstream or ()), *tensors, *operator.Options(**options), *wanted)
    return getattr(operators.KERNELS, signature.name), args


def density(op, operands, options, needs, backward, reduction):
    """In the forward pass gradients are made beside a value of all data."""
    first = next(iter(operands.values()))
    upstream = None
    if backward:
        size = first.shape[:1] if reduction == NONE else ()
        upstream = (torch.empty(size, dtype=upstream_dtype(first.dtype)),)
    elif reduction == NONE:
        needs = ()
    return made(op, operands, {"reduction": reduction, **options}, needs, upstream)


def of_kept(call):
    """A backward pass that has gradients, one like each operand, to scale."""
    function, args = call
    ours = vars(operators.KERNELS)
    operator = next(o for o in OPERATORS.values() if o.backward and ours[o.backward.name] is function)
    tensors = dict(zip((o.name for o in operator.operands), args[1:], strict=False))
    kept = [torch.empty(0) if (t := tensors[n]) is None else torch.empty_like(t) for n in operator.backward.needs]
    return lambda *given: early.with_kept(kept, function, given), args


def form_of(form, prior=False):
    """The options of a form (param, eps, low, high, bounds_grad), the posterior's or the prior's."""
    names = ("param", "param_eps", "low", "high", "bounds_grad")[: 4 if prior else 5]
    return {f"prior_{name}" if prior else name: value for name, value in zip(names, form, strict=False)}


def bernoulli(
    shape,
    dtype,
    reduction,
    backward=False,
    x=None,
    pos_weight=None,
    weight=None,
    dx=False,
    dweight=False,
    probs=False,
):
    y = torch.empty(shape, dtype=dtype)
    operands = {
        "logits": y,
        "x": torch.empty_like(y) if x is None else x,
        "pos_weight": pos_weight,
        "weight": weight,
    }
    needs = ("logits", *(("x",) if dx else ()), *(("weight",) if dweight else ()))
    options = {"scale": -1.0, "param": int(probs)}
    return density("bernoulli_log_prob", operands, options, needs, backward, reduction)


def gaussian(shape, dtype, reduction, backward=False, logvar=None, x=None, form=PLAIN, weight=None, dweight=False):
    m = torch.empty(shape, dtype=dtype)
    logvar, x = (torch.empty_like(m) if t is None else t for t in (logvar, x))
    operands = {"mean": m, "logvar": logvar, "x": x, "weight": weight}
    needs = ("mean", "logvar", *(("weight",) if dweight else ()))
    return density("gaussian_log_prob", operands, {"scale": -1.0, **form_of(form)}, needs, backward, reduction)


def kl(
    shape,
    dtype,
    reduction,
    backward=False,
    prior=False,
    free_bits=None,
    form=PLAIN,
    prior_form=None,
    logvar=None,
    prior_logvar=None,
    weight=None,
    dweight=False,
):
    m = torch.empty(shape, dtype=dtype)
    operands = {"mu": m, "logvar": torch.empty_like(m) if logvar is None else logvar, "weight": weight}
    if prior or prior_logvar is not None:
        operands |= {"prior_logvar": torch.empty_like(m) if prior_logvar is None else prior_logvar}
    if prior:
        operands |= {"prior_mu": torch.empty_like(m)}
    options = {"free_bits": free_bits, **form_of(form), **form_of(prior_form or form, True)}
    needs = [name for name in operands if name != "weight" or dweight]
    return density("gaussian_kl", operands, options, needs, backward, reduction)


def negative_binomial(
    shape,
    dtype,
    reduction,
    backward=False,
    theta=None,
    zero_logits=None,
    x=None,
    weight=None,
    dweight=False,
    logs=False,
    eps=0.0,
):
    mean = torch.empty(shape, dtype=dtype)
    theta, x = (torch.empty_like(mean) if t is None else t for t in (theta, x))
    operands = {"mean": mean, "theta": theta, "zero_logits": zero_logits, "x": x, "weight": weight}
    needs = ("mean", "theta", *(("zero_logits",) if zero_logits is not None else ()))
    needs = (*needs, *(("weight",) if dweight else ()))
    options = {"scale": -1.0, "param": int(logs), "theta_param": int(logs), "eps": eps}
    return density("negative_binomial_log_prob", operands, options, needs, backward, reduction)


def poisson(shape, dtype, reduction, backward=False, x=None, weight=None, dweight=False, logs=False, eps=0.0):
    rate = torch.empty(shape, dtype=dtype)
    operands = {"rate": rate, "x": torch.empty_like(rate) if x is None else x, "weight": weight}
    needs = ("rate", *(("weight",) if dweight else ()))
    options = {"scale": -1.0, "param": int(logs), "eps": eps}
    return density("poisson_log_prob", operands, options, needs, backward, reduction)


def continuous_bernoulli(shape, dtype, reduction, backward=False, x=None, weight=None, dx=False):
    y = torch.empty(shape, dtype=dtype)
    operands = {"logits": y, "x": torch.empty_like(y) if x is None else x, "weight": weight}
    needs = ("logits", *(("x",) if dx else ()), *(("weight",) if weight is not None else ()))
    return density("continuous_bernoulli_log_prob", operands, {"scale": -1.0}, needs, backward, reduction)


def _location_scale(op, shape, dtype, reduction, backward, parameters, x, weight, log_scale):
    operands = {name: torch.empty(shape, dtype=dtype) if t is None else t for name, t in parameters.items()}
    operands |= {"x": torch.empty(shape, dtype=dtype) if x is None else x, "weight": weight}
    needs = (*parameters, *(("weight",) if weight is not None else ()))
    return density(op, operands, {"scale": -1.0, "param": int(log_scale)}, needs, backward, reduction)


def laplace(shape, dtype, reduction, backward=False, b=None, x=None, weight=None, log_scale=False):
    parameters = {"loc": None, "b": b}
    return _location_scale("laplace_log_prob", shape, dtype, reduction, backward, parameters, x, weight, log_scale)


def student_t(shape, dtype, reduction, backward=False, df=None, x=None, weight=None, log_scale=False):
    parameters = {"loc": None, "sigma": None, "df": df}
    return _location_scale(
        "student_t_log_prob", shape, dtype, reduction, backward, parameters, x, weight, log_scale
    )


def sample(
    shape,
    dtype,
    backward=False,
    with_kl=True,
    samples=(),
    offset=0,
    tensor=False,
    form=PLAIN,
    prior_form=None,
    free_bits=None,
    logvar=None,
    prior=None,
    noise=None,
    temperature=1.0,
):
    m = torch.empty(shape, dtype=dtype)
    operands = {"mu": m, "logvar": torch.empty_like(m) if logvar is None else logvar}
    size = (*samples, *shape)
    options = {
        "sample_shape": samples,
        "seed": 7,
        "seed_tensor": torch.zeros(1, dtype=torch.int64) if tensor else None,
        "offset": offset,
        "noise": None if noise is None else torch.empty(size, dtype=getattr(torch, noise, dtype)),
        "temperature": temperature,
        **form_of(form),
    }
    if prior is not None:
        operands |= {"prior_mu": prior, "prior_logvar": prior}
    if with_kl:
        options |= {"free_bits": free_bits, **form_of(prior_form or form, True)}
    upstream = None
    if backward:
        of_z = torch.promote_types(dtype, operands["logvar"].dtype) if operands["logvar"].ndim else dtype
        upstream = (torch.empty(size, dtype=of_z),)
        if with_kl:
            upstream = (*upstream, torch.empty(shape[:1], dtype=upstream_dtype(dtype)))
    return made("rsample_kl" if with_kl else "rsample", operands, options, operands, upstream)


def sample_log_prob(
    shape,
    dtype,
    backward=False,
    samples=(),
    path=False,
    offset=0,
    tensor=False,
    form=PLAIN,
    prior_form=None,
    logvar=None,
    prior=None,
    noise=None,
):
    m = torch.empty(shape, dtype=dtype)
    operands = {"mu": m, "logvar": torch.empty_like(m) if logvar is None else logvar}
    if prior is not None:
        operands |= {"prior_mu": prior, "prior_logvar": prior}
    size = (*samples, *shape)
    options = {
        "sample_shape": samples,
        "seed": 7,
        "seed_tensor": torch.zeros(1, dtype=torch.int64) if tensor else None,
        "offset": offset,
        "noise": None if noise is None else torch.empty(size, dtype=getattr(torch, noise, dtype)),
        "q_grad": int(path),
        **form_of(form),
        **form_of(prior_form or form, True),
    }
    upstream = None
    if backward:
        of_sums = torch.empty((*samples, shape[0]), dtype=upstream_dtype(dtype))
        upstream = (torch.empty(size, dtype=dtype), of_sums, of_sums)
    return made("rsample_log_prob", operands, options, operands, upstream)


def normal(shape, dtype, offset=0):
    options = {"sample_shape": (), "shape": shape, "seed": 7, "seed_tensor": None, "offset": offset}
    device = torch.device("cpu")
    return made("standard_normal", {}, {**options, "first_sample": 0, "dtype": dtype, "device": device})


def mixture(sizes, dtype, backward=False, own="", per_dim=False):
    """Of ``own`` "weights" log w is each datum's own, of "components" all is; backward every gradient is wanted."""
    rows, components, dims = sizes
    each = (rows, components) if own else (components,)
    of = (rows, components) if own == "components" else (components,)
    operands = [torch.empty(s, dtype=dtype) for s in ((rows, dims), *((*of, dims),) * 3, each)]
    if not backward:
        return operators.KERNELS.gaussian_mixture_log_prob_fwd, (*operands, per_dim)
    joint, marginals = torch.empty(rows, dtype=dtype), torch.empty((rows, dims), dtype=dtype)
    upstream = joint, marginals if per_dim else None
    return operators.KERNELS.gaussian_mixture_log_prob_bwd, (*upstream, *operands, joint, marginals, *[True] * 5)


def logistics(sizes, dtype, gradients=False, coefficients=True, first=False):
    """Of ``first`` a network's channels come first, and else last."""
    pixels, channels, components = sizes
    pairs = channels * (channels - 1) // 2 if coefficients else 0
    parts = [components, channels * components, channels * components, pairs * components]
    shape = (2, sum(parts), pixels) if first else (2, pixels, sum(parts))
    whole = torch.empty(shape, dtype=dtype).movedim(1, 2) if first else torch.empty(shape, dtype=dtype)
    logits, mean, log_scale, slopes = whole.split(parts, 2)
    mean, log_scale = (t.unflatten(2, (channels, components)) for t in (mean, log_scale))
    slopes = slopes.unflatten(2, (pairs, components)) if pairs else None
    x, upstream = torch.empty((2, pixels, channels), dtype=dtype), torch.empty((2, pixels), dtype=dtype)
    needs = gradients, gradients, gradients, gradients and pairs > 0
    bins = 1 / 255, -7.0, -0.999, 0.999, 1e-5 if first else 0.0
    given = logits, mean, log_scale, slopes, x, upstream if gradients else None
    return operators.KERNELS.logistic_mixture_log_prob_fwd, (*given, *bins, *needs)


def mmd(sizes, dtype, exponential=False, gradients=True):
    n, m, dims = sizes
    points = [torch.empty((k, dims), dtype=dtype) for k in (n, m)]
    constants = [1.0] if exponential else [1.0] * 7
    return operators.KERNELS.mmd_fwd, (*points, constants, exponential, True, gradients, gradients)

"""A backend against the definition, on the calls of random_cases.py.

Each is within so many ε·Σ|terms| of the truth by tests of its own, so within twice as many of the other, and
ε·(1 + log₂ n) more where n terms are summed; a result of half type is rounded once besides. Terms and bars are the
check's.
"""

import math

import numpy as np
import torch

import vae_fast as vf
from helpers import accuracy
from helpers.calls import CONTINUOUS, GAUSSIAN, LOG_PROBS, PLAIN, PROBS
from helpers.random_cases import cases
from vae_fast.checking import forms, formulas, measure
from vae_fast.checking.sample_densities import sample_log_prob

__all__ = ["cases", "check"]


def result_dtype(call, tensors):
    """What the parameters promote to by PyTorch's rule: a 0-d tensor only where all are, a number never."""
    parameters = [t for t, name in zip(tensors, call.operands, strict=False) if name != "x"]
    taking_part = [t for t in parameters if t.ndim]
    if not taking_part:
        numbers = [t.dtype == torch.float64 and t.device.type == "cpu" for t in parameters]
        taking_part = [t for k, t in enumerate(parameters) if k == 0 or not numbers[k]]
    dtype = taking_part[0].dtype
    for t in taking_part[1:]:
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype


def arithmetic(call, tensors, options):
    """float64 where the result is, or where an operand with dims is: no operand is rounded but a number."""
    weight = options.get("weight")
    wide = [
        t
        for t in (*tensors, weight, options.get("pos_weight"))
        if t is not None and t.ndim and t.dtype == torch.float64
    ]
    return torch.float64 if wide or result_dtype(call, tensors) == torch.float64 else torch.float32


def upstream_of(outs, seed, kind):
    generator = torch.Generator().manual_seed(seed)
    grads = []
    for out in outs:
        g = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
        if kind == "ones":
            g = torch.ones((), dtype=out.dtype).expand(out.shape)
        elif kind == "view" and out.ndim:
            g = torch.stack([torch.full_like(g, torch.nan), g.flip(-1)], -1)[..., 1]
        grads.append(g)
    return grads


def differentiated(call, tensors, options, needs, upstream, backend):
    """Results and the gradients asked for, that of the weight last."""
    leaves = [t.detach().requires_grad_(n and t.is_floating_point()) for t, n in zip(tensors, needs, strict=False)]
    weight = options.get("weight")
    if weight is not None:
        weight = weight.detach().requires_grad_(needs[-1] and weight.is_floating_point())
        options = options | {"weight": weight}
    outs = call(*leaves, backend=backend, **options)
    wanted = [t for t in (*leaves, weight) if t is not None and t.requires_grad]
    grads = torch.autograd.grad(outs, wanted, upstream) if wanted else ()
    return [o.detach() for o in outs], list(grads)


def wanted(case):
    """The operands whose gradients ``differentiated`` gives, and their names."""
    operands = [*zip(case.tensors, case.call.operands, case.needs[:-1], strict=True)]
    if case.options.get("weight") is not None:
        operands.append((case.options["weight"], "weight", case.needs[-1]))
    return [(t, name) for t, name, need in operands if need and t.is_floating_point()]


def form_of(options):
    """The parametrisation, or the two of posterior and prior."""
    passing = options["bounds_grad"] == "pass"
    own = forms.Form(options["param"], options["param_eps"], *ends(options["bounds"]), passing)
    if "prior_param" not in options:
        return own
    prior = forms.Form(options["prior_param"], options["prior_param_eps"], *ends(options["prior_bounds"]), passing)
    return formulas.Forms(own, prior)


def own_form(options):
    form = form_of(options)
    return form.own if isinstance(form, formulas.Forms) else form


def ends(bounds):
    low, high = bounds or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def formula(formula, *arguments, **options):
    """In float64, whatever the operands were."""
    return accuracy.truth(formula, *arguments, numbers=accuracy.doubles, **options)


def element_of(call, tensors, options):
    """One element of a density, or of a sampler's KL."""
    if options.get("pos_weight") is not None:
        positive = options["pos_weight"].double().expand_as(tensors[0])
        return formula(formulas.bernoulli_weighted, *tensors, positive, x_scale=options["x_scale"])
    if call.op == "bernoulli_log_prob":
        bernoulli = formulas.bernoulli_of_probs if call is PROBS else formulas.bernoulli
        return formula(bernoulli, *tensors, x_scale=options["x_scale"])
    if call.counted:
        return formula(formulas.DENSITIES[call.op], *tensors, **logarithms(options), eps=options["eps"])
    if call in PLAIN:
        by_log = {"log_scale": options["param"] == "log_scale"} if call.has("param") else {}
        return formula(formulas.DENSITIES[call.op], *tensors, x_scale=options["x_scale"], **by_log)
    if call is GAUSSIAN:
        return formula(formulas.gaussian, form_of(options), *tensors, x_scale=options["x_scale"])
    return formula(formulas.kl, form_of(options), *tensors)


def logarithms(options):
    """Which of a count's parameters are logarithms."""
    words = (options["param"], options.get("theta_param"))
    return {f"log_{w.removeprefix('log_')}": w.startswith("log_") for w in words if w is not None}


def sizes_of(element, shape):
    """Σ|terms| of an element's value and of its slopes by name, as tensors of full size."""
    value, slopes = element
    sizes = {None: value[1], **{name: terms for name, (_, terms) in slopes.items()}}
    full = {name: torch.from_numpy(np.array(v, np.float64)).reshape(shape) for name, v in sizes.items()}
    return full.pop(None), full


def units_allowed(call, options, name=""):
    """What two backends may differ by: what each may be off by, and a product with an upstream gradient."""
    if call.op in ("rsample", "bernoulli_log_prob") or call is CONTINUOUS:
        return 7.0
    if call in PLAIN:
        return 2 * measure.count_bar(options["param"] == "log_scale") + 1
    if call in LOG_PROBS:
        # And z's own error, in what the densities' slopes are multiplied by.
        return 2 * measure.density_bar(form_of(options), name.endswith("logvar")) + 5
    if call.counted:
        return 2 * measure.count_bar(any(logarithms(options).values())) + 1
    return 2 * measure.density_bar(form_of(options), name.endswith("logvar")) + 1


# Operators of which half types have formulas of their own on a GPU.
LIGHT = ("bernoulli_log_prob", "gaussian_log_prob", "gaussian_kl", "rsample", "rsample_kl")


def is_light(call, tensors, options, backend):
    """Whether a GPU's formulas for half types may serve: of log σ² without bounds, and of logits."""
    if call.op not in LIGHT or (call.op == "gaussian_kl" and "prior_logvar" in call.operands):
        return False
    if call.op == "bernoulli_log_prob":
        plain_ = call is not PROBS and options.get("pos_weight") is None
    else:
        own = own_form(options)
        plain_ = own == forms.Form(passing=own.passing)
    given = [options[k] for k in ("weight",) if options.get(k) is not None]
    return plain_ and accuracy.is_light(*tensors, *given, backend=backend)


def terms_of(call, tensors, options, upstream, shape):
    """Σ|terms| of every result, and of the gradient of every operand by name; sample dims summed for gradients."""
    weight = options.get("weight")
    weight = 1.0 if weight is None else weight.double().abs()
    if call.density:
        value, slopes = sizes_of(element_of(call, tensors, options), shape)
        # A floor is a term like others: it is weighted and scaled.
        value = value + (options.get("free_bits") or 0.0)
        factor = abs(options["scale"])
        if options["reduction"] == "mean":
            factor /= max(1, math.prod(shape[: len(shape) - options["event_ndim"]]))
        g = upstream[0].abs() * factor
        g = g.reshape((*g.shape, *(1,) * options["event_ndim"])) if options["reduction"] == "none" else g
        grads = {name: terms * weight * g for name, terms in slopes.items()}
        return [value * weight * factor], grads | {"weight": value * g}
    samples = options["sample_shape"]
    noise = {k: options[k] for k in ("seed", "offset", "first_sample", "stream", "noise")}
    eps = vf.rsample(torch.zeros(shape, dtype=torch.float64), 0.0, samples, backend="reference", **noise)
    over = tuple(range(len(samples)))
    if call in LOG_PROBS:
        return terms_of_log_probs(tensors, options, upstream, eps, over)
    whole = [t.expand(eps.shape) for t in tensors[:2]]
    sample = formula(formulas.sample, own_form(options), *whole, eps, temperature=options["temperature"])
    value, slopes = sizes_of(sample, eps.shape)
    grads = {name: upstream[0].abs() * terms for name, terms in slopes.items()}
    grads = {name: terms.sum(over) if over else terms for name, terms in grads.items()}
    values = [value]
    if call.op == "rsample_kl":
        kl, slopes = sizes_of(element_of(call, tensors, options), shape)
        values.append(kl + (options["free_bits"] or 0.0))
        g = upstream[1].abs().reshape((*upstream[1].shape, *(1,) * options["event_ndim"]))
        grads = {name: grads.get(name, 0.0) + g * terms for name, terms in slopes.items()}
    return values, grads


def terms_of_log_probs(tensors, options, upstream, eps, over):
    """The same of a sample and its log-densities."""
    forms = form_of(options)
    forms = forms if isinstance(forms, formulas.Forms) else formulas.Forms(forms, forms)
    arrays = [accuracy.doubles(t.expand(eps.shape)) for t in (eps, *tensors)]
    with np.errstate(all="ignore"):
        elements = sample_log_prob(forms, *arrays, path=options["q_grad"] == "path")
    values, grads = [], {}
    for k, (element, g) in enumerate(zip(elements, upstream, strict=True)):
        value, slopes = sizes_of((element.value, element.slopes), eps.shape)
        values.append(value)
        g = g.abs().reshape((*g.shape, *(1,) * options["event_ndim"])) if k else g.abs()
        for name, terms in slopes.items():
            terms = g * terms
            grads[name] = grads.get(name, 0.0) + (terms.sum(over) if over else terms)
    return values, grads


def plain(tensor, compute, shape):
    """A copy of full size: floats in compute dtype, a bool's bytes 0 and 1."""
    if tensor.dtype == torch.bool:
        tensor = tensor.view(torch.uint8) != 0
    return (tensor.to(compute) if tensor.is_floating_point() else tensor).expand(shape).clone()


def definition(case, upstream, compute):
    """Results and gradients by the reference, element by element in compute dtype, and summed in float64."""
    call, options, shape = case.call, dict(case.options), case.shape
    copies = [plain(t, compute, shape) for t in case.tensors]
    for name in ("weight", "pos_weight"):
        if options.get(name) is not None:
            options[name] = plain(options[name], compute, shape)
    each = {k: v for k, v in options.items() if k != "reduction"} | ({"event_ndim": 0} if call.event else {})
    values = [v.double() for v in call(*copies, backend="reference", **each)]
    if options.get("reduction") == "mean":
        n = math.prod(shape[: len(shape) - options["event_ndim"]])
        values = [v / n if n else torch.tensor(torch.nan, dtype=torch.float64) for v in values]
    _, grads = differentiated(call, copies, options, case.needs, [g.to(compute) for g in upstream], "reference")
    return values, [g.double() for g in grads]


def to_rows(value, shape):
    """A value of full size summed to a result's shape: its leading dims."""
    return value.flatten(len(shape)).sum(-1) if value.ndim > len(shape) > 0 else value.sum() if not shape else value


def to_operand(value, shape):
    """A value of full size summed to the shape of an operand that was broadcast to it."""
    return value.sum_to_size(shape)


def assert_near(got, want, terms, compute, summed, allowed, what):
    """``want`` and ``terms`` are of full size; where terms are infinite, the result stands for them."""
    n = want.numel() // max(1, got.numel())
    terms = terms.expand(want.shape) if terms.numel() else torch.zeros_like(want)
    terms = torch.where(terms.isfinite(), terms, want.abs()).nan_to_num(0.0, 0.0, 0.0)
    want, terms = summed(want, got.shape), summed(terms, got.shape)
    # float32 is summed in float64; float64 in itself, and one after the other where a gradient is a sum over data.
    added = math.log2(max(n, 1)) if compute == torch.float32 else n
    eps, own = torch.finfo(compute).eps, torch.finfo(got.dtype)
    rounding = own.eps if own.eps > eps else 0.0
    bound = eps * (allowed + added) * terms + rounding * want.abs() + 4 * max(own.tiny, torch.finfo(compute).tiny)
    wide = got.double()
    close = (wide == want) | (wide.isnan() & want.isnan()) | ((wide - want).abs() <= bound)
    # A finite number that the result's dtype does not hold.
    close |= wide.isinf() & (want.abs() >= own.max) & (wide.sign() == want.sign())
    assert close.all(), f"{what}: {wide[~close][:3]} instead of {want[~close][:3]} within {bound[~close][:3]}"


def moved(tensor, device):
    """The tensor on a device, with its strides and with the memory that lies between its elements."""
    if device == "cpu":
        return tensor
    storage = tensor.untyped_storage()
    memory = torch.empty(storage.nbytes(), dtype=torch.uint8, device=device).untyped_storage().copy_(storage)
    result = torch.empty(0, dtype=tensor.dtype, device=device)
    return result.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def check(case, backend, device="cpu"):
    """A case on a backend against the definition: every result, and every gradient in its operand's strides."""
    call, tensors, options = case.call, case.tensors, case.options
    upstream = upstream_of(call(*tensors, backend="reference", **options), case.seed, case.upstream)
    there = [moved(t, device) for t in tensors]
    settings = {k: moved(v, device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    results, grads = differentiated(
        call, there, settings, case.needs, [moved(g, device) for g in upstream], backend
    )
    compute, promoted = arithmetic(call, there, settings), result_dtype(call, there)
    values, full_grads = definition(case, upstream, compute)
    wide = [t.double().expand(case.shape) for t in tensors]
    value_terms, grad_terms = terms_of(call, wide, options, [g.double() for g in upstream], case.shape)
    sums = torch.float64 if promoted == torch.float64 else torch.float32
    light = accuracy.LIGHT_UNITS if is_light(call, there, options, backend) else 0.0
    for k, (result, want, terms) in enumerate(zip(results, values, value_terms, strict=True)):
        sample = k == 0 and not call.density
        # A prior takes no part in a sample.
        assert result.dtype == (result_dtype(call, there[:2]) if sample else sums)
        wide_enough = arithmetic(call, there[:2], {}) if sample else compute
        allowed = units_allowed(call, options) + light
        assert_near(result.cpu(), want, terms, wide_enough, to_rows, allowed, f"{call} result {k}")
    for (operand, name), grad, want in zip(wanted(case), grads, full_grads, strict=True):
        like = torch.empty_like(operand)
        assert (grad.shape, grad.dtype) == (like.shape, like.dtype)
        # The reference's formulas promise none.
        assert backend == "reference" or grad.stride() == like.stride()
        allowed = units_allowed(call, options, name) + light
        assert_near(grad.cpu(), want, grad_terms[name], compute, to_operand, allowed, f"{call} gradient of {name}")

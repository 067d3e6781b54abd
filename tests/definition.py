"""A backend against the definition, on the calls of random_cases.py.

Both are within 3ε·Σ|terms| of the truth by their own tests, so within 6ε·Σ|terms| of each other, and ε·(1 + log₂ n)
more where n terms are summed; a result of half type is rounded once besides. Terms are those of the formulas below.
"""

import math

import torch
from calls import BERNOULLI, GAUSSIAN, KL, PROBS, RSAMPLE_KL
from random_cases import cases

import vae_fast as vf
from vae_fast.operators import FORMS
from vae_fast.sigma import SigmaForm

__all__ = ["cases", "check"]


def result_dtype(call, tensors):
    """What the parameters promote to by PyTorch's rule: a 0-d tensor only where all are, a number never."""
    parameters = [t for t, name in zip(tensors, call.operands, strict=True) if name != "x"]
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
    wide = [t for t in (*tensors, weight) if t is not None and t.ndim and t.dtype == torch.float64]
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


def scales_of(raw, options):
    """σ, |log σ²|, |dσ/dr| and |d log σ²/dr| of a raw scale."""
    low, high = options["bounds"] or (None, None)
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    scale = SigmaForm(FORMS[options["param"]], options["param_eps"], low, high)
    r = scale.clamp(raw)
    return scale.sigma(r), scale.log_var(r).abs(), scale.dsigma(r).abs(), scale.dlog_var(r).abs()


def density_terms(call, tensors, options):
    """Σ|terms| of the unweighted value and of each operand's gradient for an upstream gradient of 1."""
    if call is BERNOULLI:
        y, t = tensors[0], tensors[1] * options["x_scale"]
        wrong = torch.where(y > 0, 1 - t, t).abs()
        value = y.abs() * wrong + torch.log1p(torch.exp(-y.abs()))
        return value, [wrong + torch.sigmoid(-y.abs()), y.abs() * options["x_scale"]]
    if call is PROBS:
        p, t = tensors[0], tensors[1] * options["x_scale"]
        size_p, size_q = (-log.clamp(min=-100) for log in (torch.log(p), torch.log1p(-p)))
        slope = (t.abs() + p) / (p * (1 - p)).clamp(min=1e-12)
        return t.abs() * size_p + (1 + t.abs()) * size_q, [slope, (size_p + size_q) * options["x_scale"]]
    if call is GAUSSIAN:
        mean, raw, x = tensors
        sigma, log_var, _, dlog_var = scales_of(raw, options)
        difference = (x * options["x_scale"]).abs() + mean.abs()
        square, slope = (difference / sigma) ** 2 / 2, difference / sigma**2
        return square + log_var / 2 + 1, [slope, (square + 0.5) * dlog_var, slope * options["x_scale"]]
    mu, raw, prior_mu, prior_raw = (*tensors, *(None,) * (4 - len(tensors)))
    sigma, log_var, _, dlog_var = scales_of(raw, options)
    prior_sigma = dprior = torch.ones_like(sigma)
    if prior_raw is not None:
        prior_sigma, prior_log_var, _, dprior = scales_of(prior_raw, options)
        log_var = log_var + prior_log_var
    difference = mu.abs() if prior_mu is None else mu.abs() + prior_mu.abs()
    square, slope = (difference / prior_sigma) ** 2 / 2, difference / prior_sigma**2
    # The ratio of variances has the error of log σ² in its exponent.
    growth = ((sigma / prior_sigma) ** 2 * (1 + log_var) + 1) / 2
    grads = [slope, growth * dlog_var, slope, (square + growth) * dprior]
    return square + growth + log_var / 2, grads[: len(tensors)]


def terms_of(call, tensors, options, upstream, shape):
    """Σ|terms| of every result, and of the gradient of every operand by name; sample dims summed for gradients."""
    weight = options.get("weight")
    weight = 1.0 if weight is None else weight.double().abs()
    if call.density:
        value, grads = density_terms(call, tensors, options)
        factor = abs(options["scale"])
        if options["reduction"] == "mean":
            factor /= max(1, math.prod(shape[: len(shape) - options["event_ndim"]]))
        g = upstream[0].abs() * factor
        g = g.reshape((*g.shape, *(1,) * options["event_ndim"])) if options["reduction"] == "none" else g
        grads = [grad * weight * g for grad in grads]
        return [value * weight * factor], dict(zip(call.operands, grads, strict=True), weight=value * g)
    mu, raw = tensors
    sigma, _, dsigma, _ = scales_of(raw, options)
    samples = options["sample_shape"]
    noise = {k: options[k] for k in ("seed", "offset", "first_sample")}
    eps = vf.rsample(torch.zeros(shape, dtype=torch.float64), 0.0, samples, backend="reference", **noise).abs()
    dz = upstream[0].abs()
    over = tuple(range(len(samples)))
    grads = [dz.sum(over) if over else dz, ((dz * eps).sum(over) if over else dz * eps) * dsigma]
    values = [mu.abs() + sigma * eps]
    if call is RSAMPLE_KL:
        kl, kl_grads = density_terms(KL, tensors, options)
        values.append(kl + (options["free_bits"] or 0.0))
        g = upstream[1].abs().reshape((*upstream[1].shape, *(1,) * options["event_ndim"]))
        grads = [a + g * b for a, b in zip(grads, kl_grads, strict=True)]
    return values, dict(zip(call.operands, grads, strict=True))


def plain(tensor, compute, shape):
    """A copy of full size: floats in compute dtype, a bool's bytes 0 and 1."""
    if tensor.dtype == torch.bool:
        tensor = tensor.view(torch.uint8) != 0
    return (tensor.to(compute) if tensor.is_floating_point() else tensor).expand(shape).clone()


def definition(case, upstream, compute):
    """Results and gradients by the reference, element by element in compute dtype, and summed in float64."""
    call, options, shape = case.call, dict(case.options), case.shape
    copies = [plain(t, compute, shape) for t in case.tensors]
    if options.get("weight") is not None:
        options["weight"] = plain(options["weight"], compute, shape)
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


def assert_near(got, want, terms, compute, summed, what):
    """``want`` and ``terms`` are of full size; where terms are infinite, the result stands for them."""
    n = want.numel() // max(1, got.numel())
    terms = terms.expand(want.shape) if terms.numel() else torch.zeros_like(want)
    terms = torch.where(terms.isfinite(), terms, want.abs()).nan_to_num(0.0, 0.0, 0.0)
    want, terms = summed(want, got.shape), summed(terms, got.shape)
    # float32 is summed in float64; float64 in itself, and one after the other where a gradient is a sum over data.
    added = math.log2(max(n, 1)) if compute == torch.float32 else n
    eps, own = torch.finfo(compute).eps, torch.finfo(got.dtype)
    rounding = own.eps if own.eps > eps else 0.0
    bound = eps * (7 + added) * terms + rounding * want.abs() + 4 * max(own.tiny, torch.finfo(compute).tiny)
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
    for k, (result, want, terms) in enumerate(zip(results, values, value_terms, strict=True)):
        assert result.dtype == (promoted if k == 0 and not call.density else sums)
        assert_near(result.cpu(), want, terms, compute, to_rows, f"{call} result {k}")
    for (operand, name), grad, want in zip(wanted(case), grads, full_grads, strict=True):
        like = torch.empty_like(operand)
        assert (grad.shape, grad.dtype) == (like.shape, like.dtype)
        # The reference's formulas promise none.
        assert backend == "reference" or grad.stride() == like.stride()
        assert_near(grad.cpu(), want, grad_terms[name], compute, to_operand, f"{call} gradient of {name}")

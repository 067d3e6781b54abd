"""A backend against the definition: random shapes, strides, dtypes, options and special values.

Both are within 3ε·Σ|terms| of the truth by their own tests, so within 6ε·Σ|terms| of each other, and ε·(1 + log₂ n)
more where n terms are summed; a result of half type is rounded once besides. Terms are those of the formulas below.
"""

import math

import torch
from calls import BERNOULLI, CALLS, GAUSSIAN, KL, PROBS, RSAMPLE, RSAMPLE_KL, Call
from hypothesis import strategies as st

import vae_fast as vf
from vae_fast.scale import KINDS, Scale

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
KL_PRIOR_MU = Call("gaussian_kl", vf.gaussian_kl, ("mu", "logvar", "prior_mu"))
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0)
# Sizes at the edges of packs, tiles and pieces; rarely long.
SIZES = st.sampled_from((1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 33, 0))
LONG = st.sampled_from((127, 257, 511, 513, 1100))


@st.composite
def shapes(draw):
    shape = draw(st.lists(SIZES, min_size=0, max_size=4))
    if shape and draw(st.integers(0, 3)) == 0:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(LONG)
    while math.prod(shape) > 40_000:
        shape[shape.index(max(shape))] //= 4
    return tuple(shape)


def laid_out(draw, value):
    """The same values at other strides and offsets of memory; what lies between them is NaN (or 77)."""
    odd = torch.nan if value.is_floating_point() else 77 % (2 if value.dtype == torch.bool else 256)
    kind = draw(st.sampled_from(("contiguous", "permuted", "strided", "cut", "offset", "repeated")))
    if kind == "permuted" and value.ndim > 1:
        order = draw(st.permutations(range(value.ndim)))
        back = [order.index(d) for d in range(value.ndim)]
        return value.permute(order).contiguous().permute(back)
    if kind == "strided" and value.ndim:
        wide = torch.full((*value.shape, 2), odd, dtype=value.dtype)
        wide[..., 1] = value
        return wide[..., 1]
    if kind == "cut" and value.ndim:
        dim = draw(st.integers(0, value.ndim - 1))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        shape = list(value.shape)
        shape[dim] += before + after
        room = torch.full(shape, odd, dtype=value.dtype)
        return room.narrow(dim, before, value.shape[dim]).copy_(value)
    if kind == "offset":
        memory = torch.full((value.numel() + 3,), odd, dtype=value.dtype)
        return memory[draw(st.integers(1, 3)) :][: value.numel()].view(value.shape).copy_(value)
    if kind == "repeated" and value.ndim:
        dim = draw(st.integers(0, value.ndim - 1))
        if value.shape[dim]:
            return value.narrow(dim, 0, 1).expand(value.shape)
    return value.contiguous()


def operand(draw, shape, dtype, positive=False, probability=False):
    """An operand that broadcasts to the shape, perhaps smaller, of any layout."""
    own = [1 if draw(st.integers(0, 4)) == 0 else n for n in shape]
    own = own[draw(st.integers(0, len(own))) if draw(st.integers(0, 5)) == 0 else 0 :]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if dtype == torch.bool:
        value = torch.rand(own, generator=generator) < 0.5
    elif dtype == torch.uint8:
        value = torch.randint(0, 256, own, generator=generator).to(dtype)
    else:
        value = torch.randn(own, generator=generator, dtype=torch.float64) * draw(st.sampled_from((0.1, 1.0, 3.0)))
        value = value.abs() + 0.25 if positive else value.mul(5).sigmoid() if probability else value
        value = value.to(dtype)
        if value.numel() and draw(st.integers(0, 5)) == 0:
            value.view(-1)[draw(st.integers(0, value.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    return laid_out(draw, value)


@st.composite
def cases(draw):
    call = draw(st.sampled_from((*CALLS, KL_PRIOR_MU)))
    shape, dtype = draw(shapes()), draw(st.sampled_from(FLOATS))
    options = {**call.options, "param": "logvar", "param_eps": 0.0, "bounds": None}
    if call in (BERNOULLI, PROBS):
        options = dict(call.options)
    else:
        options["param"] = draw(st.sampled_from(PARAMS))
        options["param_eps"] = draw(st.sampled_from((0.0, 0.125)))
        options["bounds"] = draw(st.sampled_from((None, None, (-1.0, 1.5), (None, 0.75))))
    positive = options.get("param") in ("std", "var")
    tensors = []
    for k, name in enumerate(call.operands):
        scale = "logvar" in name
        own = draw(st.sampled_from((*FLOATS, torch.uint8, torch.bool))) if name == "x" else dtype
        value = operand(draw, shape, own, positive=positive and scale, probability=call is PROBS and k == 0)
        if k == 0 and value.shape != shape:
            # The first operand decides the dtype, and has dims: a 0-d tensor would not.
            value = laid_out(draw, value.expand(shape).clone())
        tensors.append(value)
    event_ndim = draw(st.integers(0, len(shape)))
    if call.event:
        options["event_ndim"] = event_ndim
    if call in (RSAMPLE, RSAMPLE_KL):
        options["sample_shape"] = draw(st.sampled_from(((), (), (1,), (3,), (2, 2), (0,))))
        options["offset"] = draw(st.sampled_from((0, 1, 2, 3, 2**32 * 4 - 9, -17)))
        options["first_sample"] = draw(st.sampled_from((0, 5, 2**32 - 2, -1)))
    if call.op in ("rsample_kl", "gaussian_kl"):
        options["free_bits"] = draw(st.sampled_from((None, None, 0.3)))
    if call.density:
        options["reduction"] = draw(st.sampled_from(("none", "sum", "mean")))
        options["scale"] = draw(st.sampled_from((1.0, -1.0, 0.3)))
        if draw(st.booleans()):
            options["weight"] = operand(draw, shape, draw(st.sampled_from((*FLOATS, torch.bool, torch.uint8))))
    if "x" in call.operands:
        options["x_scale"] = draw(st.sampled_from((1.0, 1 / 255, 0.5)))
    needs = draw(st.lists(st.booleans(), min_size=len(tensors), max_size=len(tensors)))
    return (
        call,
        tensors,
        options,
        needs,
        draw(st.integers(0, 2**31)),
        draw(st.sampled_from(("ones", "any", "view"))),
    )


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
    leaves = [t.detach().requires_grad_(n and t.is_floating_point()) for t, n in zip(tensors, needs, strict=True)]
    outs = call(*leaves, backend=backend, **options)
    wanted = [t for t in leaves if t.requires_grad]
    grads = torch.autograd.grad(outs, wanted, upstream) if wanted else ()
    return [o.detach() for o in outs], list(grads)


def scales_of(raw, options):
    """σ, |log σ²|, |dσ/dr| and |d log σ²/dr| of a raw scale."""
    low, high = options["bounds"] or (None, None)
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    scale = Scale(KINDS[options["param"]], options["param_eps"], low, high)
    r = scale.clamp(raw)
    return scale.sigma(r), scale.log_var(r).abs(), scale.dsigma(r).abs(), scale.dlog_var(r).abs()


def density_terms(call, tensors, options):
    """Σ|terms| of the value and of each gradient for an upstream gradient of 1, for every element."""
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
    """Σ|terms| of every result and of every gradient, of full size, sample dims summed for gradients."""
    weight = options.get("weight")
    weight = 1.0 if weight is None else weight.double().abs()
    if call.density:
        value, grads = density_terms(call, tensors, options)
        factor = abs(options["scale"])
        if options["reduction"] == "mean":
            factor /= max(1, math.prod(shape[: len(shape) - options["event_ndim"]]))
        g = upstream[0].abs() * factor
        g = g.reshape((*g.shape, *(1,) * options["event_ndim"])) if options["reduction"] == "none" else g
        return [value * weight * factor], [grad * weight * g for grad in grads]
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
    return values, grads


def definition(call, tensors, options, needs, upstream, shape, compute):
    """Results and gradients by the reference, element by element in compute dtype, and summed in float64."""
    copies = [(t.to(compute) if t.is_floating_point() else t).expand(shape).clone() for t in tensors]
    each = {k: v for k, v in options.items() if k != "reduction"} | ({"event_ndim": 0} if call.event else {})
    values = [v.double() for v in call(*copies, backend="reference", **each)]
    if options.get("reduction") == "mean":
        n = math.prod(shape[: len(shape) - options["event_ndim"]])
        values = [v / n if n else torch.tensor(torch.nan, dtype=torch.float64) for v in values]
    _, grads = differentiated(call, copies, options, needs, [g.to(compute) for g in upstream], "reference")
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


def on_device(call, tensors, options, needs, upstream, backend, device):
    """``differentiated`` on a device; results and gradients on the CPU, the gradients' strides as they were."""
    there = [moved(t, device) for t in tensors]
    settings = {k: moved(v, device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    results, grads = differentiated(call, there, settings, needs, [moved(g, device) for g in upstream], backend)
    strides = [g.stride() for g in grads]
    return [r.cpu() for r in results], [g.cpu() for g in grads], strides


def check(case, backend, device="cpu"):
    """A case on a backend against the definition: every result, and every gradient in its operand's strides."""
    call, tensors, options, needs, seed, kind = case
    upstream = upstream_of(call(*tensors, backend="reference", **options), seed, kind)
    results, grads, strides = on_device(call, tensors, options, needs, upstream, backend, device)
    compute = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    others = [o for o in options.values() if isinstance(o, torch.Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in (*tensors, *others)))
    values, full_grads = definition(call, tensors, options, needs, upstream, shape, compute)
    wide = [t.double().expand(shape) for t in tensors]
    value_terms, grad_terms = terms_of(call, wide, options, [g.double() for g in upstream], shape)
    for k, (result, want, terms) in enumerate(zip(results, values, value_terms, strict=True)):
        assert result.dtype == (tensors[0].dtype if k == 0 and not call.density else compute)
        assert_near(result, want, terms, compute, to_rows, f"{call} result {k}")
    wanted = [k for k, t in enumerate(tensors) if needs[k] and t.is_floating_point()]
    for k, grad, stride, want in zip(wanted, grads, strides, full_grads, strict=True):
        like = torch.empty_like(tensors[k])
        assert (grad.shape, stride, grad.dtype) == (like.shape, like.stride(), like.dtype)
        assert_near(grad, want, grad_terms[k], compute, to_operand, f"{call} gradient of {call.operands[k]}")

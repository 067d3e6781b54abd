"""Whether a provider is right, before it is timed: its sums and gradients against the reference in float64."""

import math

import torch

from .providers import provider

# Of the sum, and of the largest gradient. Common formulas round every step to the operands' dtype: 8 bits of
# bfloat16 are 0.4 %. Sums in float32 of some 10⁷ terms are good to 10⁻⁵.
_TOLERANCE = {2: 2e-2, 4: 1e-5, 8: 1e-10}


def _wide(tensors):
    return [t.detach().double().requires_grad_() if t.requires_grad else t.detach() for t in tensors]


def _graded(op, functions, tensors):
    """The density's sum and its gradients."""
    out = getattr(functions, op)(*tensors)
    density = out[1] if isinstance(out, tuple) else out
    return density, torch.autograd.grad(density, [t for t in tensors if t.requires_grad])


def of(op, tensors):
    """The truth of a density on these operands: its sum and gradients; nothing where it hangs on what was drawn."""
    return (
        None
        if op in ("standard_normal", "rsample", "rsample_log_prob")
        else _graded(op, provider("reference"), _wide(tensors))
    )


def wrong(op, functions, tensors, truth):
    """Why the results of ``functions`` are wrong, given the truth; an empty text where they are right."""
    tolerance = _TOLERANCE[tensors[0].element_size()]
    if op == "standard_normal":
        return _wrong_moments(functions.standard_normal(*tensors).double(), tolerance)
    if op == "rsample":
        return _wrong_sample(*tensors, functions.rsample(*tensors), tolerance)
    if op == "rsample_log_prob":
        why = _wrong_sample(*tensors, functions.rsample_log_prob(*tensors)[0], tolerance)
        return why or _wrong_log_prob(*tensors, *functions.rsample_log_prob(*tensors), tolerance)
    value, slopes = truth
    density, grads = _graded(op, functions, tensors)
    found, wanted = density.double().item(), value.item()
    if not math.isclose(found, wanted, rel_tol=tolerance):
        return f"{found:.6g} instead of {wanted:.6g}"
    for name, grad, slope in zip("first second third".split(), grads, slopes, strict=False):
        error = (grad.double() - slope).abs().max().item() / slope.abs().max().item()
        if not error <= tolerance:
            return f"gradient of the {name} operand off by {error:.2g} of its largest"
    return _wrong_sample(*tensors, functions.rsample_kl(*tensors)[0], tolerance) if op == "rsample_kl" else ""


def _wrong_moments(eps, tolerance):
    """Standard normals have mean 0 and variance 1, to six deviations of what is measured; of one, too."""
    n = eps.numel()
    mean, variance = eps.mean().item(), eps.square().mean().item()
    if abs(mean) <= 6 / math.sqrt(n) + 4 * tolerance and abs(variance - 1) <= 6 * math.sqrt(2 / n) + 4 * tolerance:
        return ""
    return f"mean {mean:.3g} and variance {variance:.3g} of what should be standard normals"


def _wrong_sample(mu, logvar, z, tolerance):
    """(z − μ)/σ is standard normal, and z has the derivatives 1 and ½σε."""
    with torch.no_grad():
        sigma = torch.exp(logvar.double() / 2)
        eps = (z.double() - mu.double()) / sigma
    why = _wrong_moments(eps, tolerance)
    if why:
        return why
    dmu, dlogvar = torch.autograd.grad(z, (mu, logvar), torch.ones_like(z))
    slope = sigma * eps / 2
    off = max((dmu.double() - 1).abs().max(), (dlogvar.double() - slope).abs().max() / slope.abs().max()).item()
    return "" if off <= 4 * tolerance else f"gradients of z off by {off:.2g}"


def _wrong_log_prob(mu, logvar, z, value, tolerance):
    """log p(z) − log q(z) is that of the z which was drawn, and has its gradients."""
    m, v = _wide((mu, logvar))
    eps = ((z.double() - m) / torch.exp(v / 2)).detach()
    want = 0.5 * (eps.square() + v - (m + torch.exp(v / 2) * eps).square()).sum()
    wanted = (want, *torch.autograd.grad(want, (m, v)))
    found = (value, *torch.autograd.grad(value, (mu, logvar)))
    for name, a, b in zip(("value", "gradient by mu", "gradient by logvar"), found, wanted, strict=True):
        error = (a.double() - b).abs().max().item() / b.abs().max().item()
        if not error <= 4 * tolerance:
            return f"{name} of the log-densities off by {error:.2g} of its largest"
    return ""


def refuse(run, group, provider, why):
    """Writes down that a case is wrong; gives the message with which it is left out."""
    run["wrong"].append({"group": group, "provider": provider, "why": why})
    return f"{provider} is wrong here and not timed: {why}"

"""The log-density of a mixture of diagonal Gaussians: its checks, its docstring and its autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, blocks, dispatch
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param, Reduction
from vae_fast.reference.densities import compute_dtype, promoted_dtype
from vae_fast.reference.gaussian_mixture_log_prob import whole
from vae_fast.sigma import SigmaForm

OP = "gaussian_mixture_log_prob"


def gaussian_mixture_log_prob(
    mu: Tensor,
    logvar: Tensor | float,
    z: Tensor,
    *,
    log_weight: Tensor | None = None,
    per_dim: bool = False,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    backend: str | None = None,
) -> Any:
    r"""Log-density of a mixture of diagonal Gaussians, in nats, without a table of data × components × dims.

    .. math::
        \log p(z) = \log \sum_{k=1}^{K} w_k \prod_{d=1}^{D} \mathcal N(z_d; \mu_{kd}, \sigma_{kd}^2)

    and, with ``per_dim=True``, of the same components also the product of its marginals,

    .. math::
        \sum_{d=1}^{D} \log \sum_{k=1}^{K} w_k\, \mathcal N(z_d; \mu_{kd}, \sigma_{kd}^2).

    Memory is that of the operands: terms are made, and for the gradients made anew, a few components at a time.
    They are formed by differences, (z − μ)/σ, which a square expanded into a matrix product loses where σ is
    small.

    Args:
        mu: the components' means, [K, D] for all data, or [*data, K, D]: each datum its own. Of any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor that broadcasts to mu's shape, or a number. Its
            gradient has its own shape.
        z: the points, [*data, D], of any floating dtype.
        log_weight: log w_k, [K] or [*data, K]; −log K each where None. They are taken as they are: of weights that
            sum to 1 the result is a density.
        per_dim: whether the second sum is wanted too.
        weight: what a datum's results are multiplied by, outside the logarithm; broadcasts to [*data]. Of a weight
            of 0 the result and its gradients are 0 whatever the operands are. No gradient of its own. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        param: what logvar is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus", σ = log(1 +
            e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which logvar is clamped as it is given; either may be None. None: no clamp.
        bounds_grad: logvar's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of the value at
            the bound.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says. Under functorch's
            transforms, forward-mode AD, export and for tensor subclasses the reference's operations serve, on the
            whole table.

    Returns:
        log p(z), [*data] ("none") or a 0-d tensor; with ``per_dim`` a pair of these. float64 where an operand is,
        else float32.

    Raises:
        ValueError: shapes that do not fit each other, no component, tensors on different devices, an unknown word,
            bounds of low > high.
        TypeError: an operand that is no dense tensor of a floating dtype; an option that is no number.
        RuntimeError: a named backend that does not serve the operator.

    Example:
        >>> mu, z = torch.zeros(500, 40), torch.randn(64, 40)
        >>> vae_fast.gaussian_mixture_log_prob(mu, 0.0, z).shape
        torch.Size([64])

    Source: Tomczak and Welling, "VAE with a VampPrior" (2018), eq. 9; Chen, Li, Grosse and Duvenaud, "Isolating
    Sources of Disentanglement in Variational Autoencoders" (2018), section 4 for the marginals.
    """
    form = arguments.sigma_form(param, param_eps, bounds, bounds_grad)
    scale = arguments.number("scale", scale)
    arguments.reduction_code(reduction)
    mu, z = arguments.floating("mu", mu), arguments.floating("z", z)
    raw = arguments.floating_or_number("logvar", logvar)
    log_w = None if log_weight is None else arguments.floating("log_weight", log_weight)
    given = {"mu": mu, "logvar": raw, "z": z, "log_weight": log_w}
    arguments.same_device("mu", mu, **given)
    _fit(mu, raw, z, log_w)
    data = tuple(z.shape[:-1])
    by_datum = blocks.weight_of_data(weight, data, "z", z)
    operands = _operands(mu, raw, z, log_w, form)
    joint, marginals = _mixture(operands, per_dim, backend, dispatch.needs_composite(**given))
    results = [joint.reshape(data)]
    if per_dim:
        results.append(marginals.sum(-1).reshape(data))
    results = [blocks.reduced(blocks.weighted(result, by_datum), reduction, scale) for result in results]
    return tuple(results) if per_dim else results[0]


def _fit(mu: Tensor, raw: Tensor, z: Tensor, log_w: Tensor | None) -> None:
    shapes = f"mu {list(mu.shape)}, logvar {list(raw.shape)}, z {list(z.shape)}"
    data = tuple(z.shape[:-1])
    if mu.ndim < 2 or z.ndim == 0 or mu.shape[-1] != z.shape[-1] or tuple(mu.shape[:-2]) not in ((), data):
        raise ValueError(f"mu must be [K, D] or [*data, K, D], and z [*data, D], got {shapes}")
    if mu.shape[-2] == 0:
        raise ValueError(f"a mixture needs a component, got {shapes}")
    if arguments.broadcast_shape("mu", mu.shape, logvar=raw) != tuple(mu.shape):
        raise ValueError(f"logvar must broadcast to mu's shape, got {shapes}")
    if log_w is not None and tuple(log_w.shape) not in ((mu.shape[-2],), (*data, mu.shape[-2])):
        raise ValueError(f"log_weight must be [K] or [*data, K] of {shapes}, got {list(log_w.shape)}")


def _operands(mu: Tensor, raw: Tensor, z: Tensor, log_w: Tensor | None, form: SigmaForm) -> tuple[Tensor, ...]:
    """z, μ, 1/σ, −log σ and log w as the raw operators take them: of one floating dtype, the data in one dim."""
    dtype = compute_dtype(promoted_dtype(mu, z, *(t for t in (raw, log_w) if t is not None and t.ndim)))
    clamped = form.clamp(raw.to(mu.device, dtype))
    log_sigma = form.log_sigma(clamped)
    rate = torch.exp(-log_sigma) if form.logarithmic else form.sigma(clamped).reciprocal()
    n, d = mu.shape[-2:]
    own = mu.ndim > 2
    shape = (math.prod(mu.shape[:-2]), n, d) if own else (n, d)
    components = (t.to(dtype).expand(mu.shape).reshape(shape) for t in (mu, rate, -log_sigma))
    z = z.to(dtype).reshape(-1, d)
    weights = mu.new_full((n,), -math.log(n), dtype=dtype) if log_w is None else log_w.to(dtype)
    # Each datum's own, where its components are.
    weights = weights.expand(len(z), n) if own else weights
    return z, *components, weights.reshape(-1, n) if weights.ndim > 1 else weights


def _mixture(
    operands: tuple[Tensor, ...], per_dim: bool, backend: str | None, composite: bool
) -> tuple[Tensor, Any]:
    """(joint, marginals), the second one of use with ``per_dim`` alone."""
    name = choose(OP, operands[0].device, backend, operands[0].numel() * operands[1].shape[-2])
    if blocks.whole(name, composite):
        return whole(operands, per_dim)
    if not dispatch.differentiable(*operands):
        joint, marginals = kernel(name, f"{OP}_fwd")(*operands, per_dim)
        return joint, marginals
    found = _Mixture.apply(*operands, per_dim, name)
    return found if per_dim else (found, None)


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        *operands, per_dim, name = args
        results = kernel(name, f"{OP}_fwd")(*operands, per_dim)
        ctx.save_for_backward(*operands, *results)
        ctx.name, ctx.per_dim = name, per_dim
        ctx.set_materialize_grads(False)
        joint, _ = results
        return results if per_dim else joint

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        *operands, joint, marginals = ctx.saved_tensors
        by_joint, by_dim = upstream if ctx.per_dim else (*upstream, None)
        needs = ctx.needs_input_grad[:5]
        if by_joint is None and by_dim is None:
            return (None,) * 7
        if torch.is_grad_enabled() or dispatch.batched(by_joint) or dispatch.batched(by_dim):
            # A gradient that is differentiated, or batched: of PyTorch's operations.
            both = by_joint, by_dim
            found = blocks.gradients(lambda: whole(tuple(operands), ctx.per_dim), operands, needs, both)
            return *found, None, None
        made = kernel(ctx.name, f"{OP}_bwd")(by_joint, by_dim, *operands, joint, marginals, *needs)
        return *(g if need else None for g, need in zip(made, needs, strict=True)), None, None

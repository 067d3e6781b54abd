"""Terms of the aggregate posterior q(z) = E q(z|x), estimated from a minibatch: the total correlation."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param
from vae_fast.ops.gaussian_mixture_log_prob import gaussian_mixture_log_prob
from vae_fast.reference.densities import compute_dtype

Estimator = Literal["mws", "mss"]


def total_correlation(
    mu: Tensor,
    logvar: Tensor,
    z: Tensor,
    *,
    n_data: int,
    estimator: Estimator = "mws",
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    backend: str | None = None,
) -> Tensor:
    r"""A minibatch estimate of each datum's share of the total correlation of q(z), the penalty of a β-TCVAE.

    .. math::
        \mathrm{KL}\Bigl(q(z) \,\Big\|\, \prod_d q(z_d)\Bigr)
        \approx \frac{1}{B} \sum_{i=1}^{B} \Bigl[\log q(z_i) - \sum_d \log q(z_{id})\Bigr]

    where q is the mixture of the minibatch's posteriors, with weights that stand for the whole data set's N data:

    - "mws", minibatch weighted sampling: 1/(N·B) each, in the joint and in every marginal.
    - "mss", minibatch stratified sampling: the matrix that the published code has, of 1/(B − 1), with 1/N in its
      first column and (N − B + 1)/(N·(B − 1)) in its second, and there too in the first column of row B − 2.

    Its memory is that of the operands: the table of B × B × D terms is never stored (gaussian_mixture_log_prob).

    Args:
        mu: the posteriors' means, [B, D], of any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor that broadcasts to mu's shape, or a number. Its
            gradient has its own shape.
        z: their samples, [B, D], of any floating dtype.
        n_data: N, how many data the training set has; at least B.
        estimator: "mws" or "mss".
        param: what logvar is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus", σ = log(1 +
            e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which logvar is clamped as it is given; either may be None. None: no clamp.
        bounds_grad: logvar's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of the value at
            the bound.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        log q(z_i) − Σ_d log q(z_id), [B], in nats: its mean estimates the total correlation. float64 where an
        operand is, else float32. Gradients of mu, logvar and z.

    Raises:
        ValueError: other shapes, n_data below B, an unknown estimator or other word, "mss" of fewer than two data,
            tensors on different devices, bounds of low > high.
        TypeError: an operand that is no dense tensor of a floating dtype, n_data that is no int, an option that is
            no number.
        RuntimeError: a named backend that does not serve ``gaussian_mixture_log_prob``.

    Example:
        >>> mu, logvar = torch.randn(64, 10), torch.zeros(64, 10)
        >>> z = vae_fast.rsample(mu, logvar)
        >>> vae_fast.total_correlation(mu, logvar, z, n_data=60_000).shape
        torch.Size([64])

    Source: Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders"
    (2018), sections 3 and 4.2, appendix C; the matrix from the authors' code, beta-tcvae.
    """
    mu, z = arguments.floating("mu", mu), arguments.floating("z", z)
    if mu.ndim != 2 or mu.shape != z.shape:
        raise ValueError(f"mu and z must both be [B, D], got {list(mu.shape)} and {list(z.shape)}")
    if type(n_data) is not int:
        raise TypeError(f"n_data must be an int, got {type(n_data).__name__}")
    log_weight = log_weights(estimator, n_data, mu)
    if len(mu) == 0:
        return (z - mu).sum(-1, dtype=log_weight.dtype)
    joint, marginals = gaussian_mixture_log_prob(
        mu,
        logvar,
        z,
        log_weight=log_weight,
        per_dim=True,
        param=param,
        param_eps=param_eps,
        bounds=bounds,
        bounds_grad=bounds_grad,
        backend=backend,
    )
    difference: Tensor = joint - marginals
    return difference


def log_weights(estimator: Estimator, n_data: int, mu: Tensor) -> Tensor:
    """Logarithms of the weights that the components mu [B, D] have in an estimate: [B], or the published [B, B]."""
    n, dtype = len(mu), compute_dtype(mu.dtype)
    if n_data < n:
        raise ValueError(f"n_data must be at least the batch's {n} data, got {n_data}")
    if estimator == "mws":
        return mu.new_full((n,), -math.log(max(n_data * n, 1)), dtype=dtype)
    if estimator != "mss":
        raise ValueError(f"estimator must be 'mws' or 'mss', got {estimator!r}")
    if n < 2:
        raise ValueError(f"the estimator 'mss' needs two data, got a batch of {n}")
    others = n - 1
    rest = (n_data - others) / (n_data * others)
    weights = torch.full((n, n), 1 / others, dtype=dtype, device=mu.device)
    weights[:, 0] = 1 / n_data
    weights[:, 1] = rest
    weights[others - 1, 0] = rest
    return weights.log()

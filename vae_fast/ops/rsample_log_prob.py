"""The reparameterised sample and two log-densities at it, the posterior's and the prior's, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast.backends import choose
from vae_fast.checks import countable
from vae_fast.operators import OPERATORS, Q_GRADS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param, QGrad
from vae_fast.ops.autograd import draw
from vae_fast.ops.noise_source import source
from vae_fast.ops.public import operator

_Options = OPERATORS["rsample_log_prob"].Options


@operator
def rsample_log_prob(
    mu: Tensor,
    logvar: Tensor | float,
    sample_shape: int | Sequence[int] = (),
    *,
    prior_mu: Tensor | float | None = None,
    prior_logvar: Tensor | float | None = None,
    event_ndim: int = 1,
    q_grad: QGrad = "total",
    seed: int | Tensor | None = None,
    offset: int = 0,
    first_sample: int = 0,
    stream: int = 0,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    prior_param: Param | None = None,
    prior_param_eps: float | None = None,
    prior_bounds: Bounds | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Sample of q = N(μ, σ²) with log q(z) and log p(z) at it: what a bound of several samples is made of.

    .. math::
        z = \mu + \sigma\varepsilon, \quad \varepsilon \sim N(0, I), \qquad
        \log q = -\sum \tfrac{1}{2}\varepsilon^2 + \log\sigma + \tfrac{1}{2}\log 2\pi, \qquad
        \log p = -\sum \tfrac{1}{2}\Big(\frac{z - \mu_p}{\sigma_p}\Big)^2
        + \log\sigma_p + \tfrac{1}{2}\log 2\pi

    The sums are over the event dims; the prior is N(0, I), or a diagonal Gaussian. z is the ``rsample`` of the
    same arguments, bit for bit where the prior is of no wider dtype (of half types on a GPU, whose ``rsample``
    has a σ of fewer digits, to a rounding); the densities are those at z before it is rounded to its dtype, and
    log q is made of ε itself, so that no small σ loses its digits.

    Args:
        mu: mean μ, a tensor of any shape and any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor of any floating dtype, or a number. It is broadcast
            against ``mu``, and its gradient has its own shape.
        sample_shape: leading dims of independent samples, an int or a sequence of ints; they share ``mu`` and
            ``logvar``. () gives one sample without a dim of its own.
        prior_mu: the prior's mean μp: a tensor, a number, or None for 0. It broadcasts to the shape that mu and
            logvar have together.
        prior_logvar: log σp², or what ``prior_param`` says it is: a tensor, a number, or None for σp = 1. It
            broadcasts to the same shape.
        event_ndim: how many trailing dims of broadcast(mu, logvar) make one latent vector, which the densities
            are summed over; 0 for one number an element.
        q_grad: whose gradient log q has. "total": that by z and by q's parameters together, which for μ is 0 and
            for log σ −1; "path": that by z alone, −ε/σ, as if q's parameters were detached in log q. The part that
            is left out, the score function, is 0 on average: sticking the landing and the doubly reparameterised
            estimators leave it out.
        seed: an int, taken modulo 2⁶⁴, or one int64 element on the tensors' device: z is then a pure function of
            the arguments. Two latents of one model that share a seed draw the same ε: give each its own ``stream``.
            Without a seed it is drawn from ``generator``, or from PyTorch's default generator for the device.
        offset: added to every element's index in ``mu``: a shard of a batch with the offset of its first
            element draws what the whole batch would have drawn there.
        first_sample: number of the first sample, from 0 to 2³² − 1: samples drawn in chunks are those drawn at
            once.
        stream: which of a seed's streams of noise, from 0 to 2³² − 1. No two have a normal in common.
        generator: where the seed is drawn from, a generator for the tensors' device; not together with ``seed``.
        noise: ε itself, of z's shape and any floating dtype, in place of all these. It is a constant, without a
            gradient, and kept for the backward pass.
        param: what the second argument is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which the second argument is clamped as it is given; either may be None. None: no
            clamp.
        bounds_grad: the second argument's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of
            the value at the bound, as nn.GaussianNLLLoss has it.
        prior_param: what ``prior_logvar`` is, by the same words. None: what ``logvar`` is, with its ``param_eps``
            and ``bounds`` where these are not given for the prior either.
        prior_param_eps: added to σp ("var": to σp²). None: 0 with a ``prior_param``, else ``param_eps``.
        prior_bounds: (low, high), to which ``prior_logvar`` is clamped; (None, None) is no clamp. None: no clamp
            with a ``prior_param``, else ``bounds``.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        (z, log_q, log_p): z of shape sample_shape + broadcast(mu, logvar).shape, in the promoted dtype of mu and
        logvar; the densities in nats, of the shape of the sample and data dims, float64 for float64 arguments and
        float32 for all others.

    Raises:
        TypeError: mu, logvar or the prior of a complex, integer, quantised, sparse or nested kind; a seed, offset
            or stream that is no integer; a DTensor, whose shards do not know their place in the noise.
        ValueError: shapes that do not broadcast, a prior of more elements than mu and logvar have, an
            ``event_ndim`` larger than the number of dims, tensors on different devices, an unknown word, bounds of
            low > high, a stream or numbers of samples beyond 2³²; a seed together with a generator; ``noise`` of
            another shape than z's, or together with a seed, generator, offset, first_sample or stream.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> mu, logvar = torch.zeros(64, 20), torch.zeros(64, 20)
        >>> z, log_q, log_p = vae_fast.rsample_log_prob(mu, logvar, 5, seed=0)
        >>> z.shape, log_q.shape, torch.equal(log_q, log_p)
        (torch.Size([5, 64, 20]), torch.Size([5, 64]), True)

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3; the gradient without the score
    function: Roeder, Wu and Duvenaud, "Sticking the Landing" (2017), eq. 8.
    """
    operands, shape, composite, _ = arguments.operands("rsample_log_prob", mu, logvar, prior_mu, prior_logvar)
    if prior_mu is not None or prior_logvar is not None:
        arguments.prior_fits(operands, shape)
    own = arguments.parametrisation(param, param_eps, bounds)
    code, eps, low, high = own
    prior = arguments.prior_parametrisation(own, prior_param, prior_param_eps, prior_bounds)
    prior_code, prior_eps, prior_low, prior_high = prior
    arguments.event_dims(event_ndim, shape, "mu and logvar")
    q_grad_code = arguments.code_of("q_grad", Q_GRADS, q_grad)
    name = choose("rsample_log_prob", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    drawn = source(seed, generator, noise, (offset, first_sample, stream), mu, samples, shape)
    options = _Options(
        sample_shape=samples,
        seed=drawn.seed,
        offset=drawn.offset,
        first_sample=drawn.first_sample,
        event_ndim=event_ndim,
        q_grad=q_grad_code,
        param=code,
        param_eps=eps,
        low=low,
        high=high,
        bounds_grad=arguments.bounds_grad_code(bounds_grad),
        prior_param=prior_code,
        prior_param_eps=prior_eps,
        prior_low=prior_low,
        prior_high=prior_high,
    )
    z, log_q, log_p = draw("rsample_log_prob", name, operands, options, composite, drawn)
    return z, log_q, log_p

"""The reparameterised sample z = μ + τσε, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast.backends import choose
from vae_fast.checks import countable
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param
from vae_fast.ops.autograd import draw
from vae_fast.ops.noise_source import source
from vae_fast.ops.public import operator

_Options = OPERATORS["rsample"].Options


@operator
def rsample(
    mu: Tensor,
    logvar: Tensor | float,
    sample_shape: int | Sequence[int] = (),
    *,
    temperature: float = 1.0,
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
    backend: str | None = None,
) -> Tensor:
    """Reparameterised sample of a diagonal Gaussian: z = μ + τ·σ·ε, ε ~ N(0, I), σ = exp(½·logvar).

    ε is never stored: the backward pass draws it again. ∂z/∂μ = 1, ∂z/∂logvar = ½τσε.

    Args:
        mu: mean μ, a tensor of any shape and any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor of any floating dtype, or a number. It is broadcast
            against ``mu``, and its gradient has its own shape.
        sample_shape: leading dims of independent samples, an int or a sequence of ints; they share ``mu`` and
            ``logvar``. () gives one sample without a dim of its own.
        temperature: τ ≥ 0, which multiplies σ: 0 gives the mean, less than 1 samples nearer to it.
        seed: an int, taken modulo 2⁶⁴, or one int64 element on the tensors' device: the result is then a pure
            function of the arguments, so that two calls with one seed draw the same ε. Two latents of one model
            that share a seed would correlate at 1: give each its own ``stream``. Without a seed it is drawn from
            ``generator``, or from PyTorch's default generator for the device, so ``torch.manual_seed`` governs.
        offset: added to every element's index in ``mu``: a shard of a batch with the offset of its first
            element draws what the whole batch would have drawn there.
        first_sample: number of the first sample, from 0 to 2³² − 1: samples drawn in chunks are those drawn at
            once.
        stream: which of a seed's streams of noise, from 0 to 2³² − 1. No two have a normal in common.
        generator: where the seed is drawn from, a generator for the tensors' device; not together with ``seed``.
        noise: ε itself, of the result's shape and any floating dtype, in place of all these: antithetic pairs,
            or noise that is fixed. It is a constant, without a gradient, and kept for the backward pass.
        param: what the second argument is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which the second argument is clamped as it is given; either may be None. None: no
            clamp.
        bounds_grad: the second argument's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of
            the value at the bound, as nn.GaussianNLLLoss has it.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        z of shape sample_shape + broadcast(mu, logvar).shape, in the promoted dtype of mu and logvar.

    Raises:
        TypeError: mu or logvar of a complex, integer, quantised, sparse or nested kind; a seed, offset or stream
            that is no integer; a DTensor, whose shards do not know their place in the noise.
        ValueError: shapes that do not broadcast, tensors on different devices, an unknown word, bounds of low >
            high, a negative temperature, a stream or numbers of samples beyond 2³²; a seed together with a
            generator; ``noise`` of another shape than the result's, or together with a seed, generator, offset,
            first_sample or stream.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> mu, logvar = torch.zeros(64, 20), torch.zeros(64, 20)
        >>> z = vae_fast.rsample(mu, logvar, 8, seed=0)
        >>> z.shape
        torch.Size([8, 64, 20])
        >>> torch.equal(z[2:], vae_fast.rsample(mu, logvar, 6, seed=0, first_sample=2))
        True

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4.
    """
    operands, shape, composite, _ = arguments.operands("rsample", mu, logvar)
    code, eps, low, high = arguments.parametrisation(param, param_eps, bounds)
    name = choose("rsample", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    drawn = source(seed, generator, noise, (offset, first_sample, stream), mu, samples, shape)
    options = _Options(
        sample_shape=samples,
        seed=drawn.seed,
        offset=drawn.offset,
        first_sample=drawn.first_sample,
        temperature=arguments.temperature(temperature),
        param=code,
        param_eps=eps,
        low=low,
        high=high,
        bounds_grad=arguments.bounds_grad_code(bounds_grad),
    )
    z: Tensor = draw("rsample", name, operands, options, composite, drawn)
    return z

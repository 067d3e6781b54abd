"""The reparameterised sample z = μ + σε, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose
from vae_fast.checks import countable
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, Param
from vae_fast.ops.autograd import draw
from vae_fast.tracing import public

_Options = OPERATORS["rsample"].Options


@public
def rsample(
    mu: Tensor,
    logvar: Tensor | float,
    sample_shape: int | Sequence[int] = (),
    *,
    seed: int | Tensor | None = None,
    offset: int = 0,
    first_sample: int = 0,
    generator: torch.Generator | None = None,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    backend: str | None = None,
) -> Tensor:
    """Reparameterised sample of a diagonal Gaussian: z = μ + σ·ε, ε ~ N(0, I), σ = exp(½·logvar).

    ε is never stored: the backward pass draws it again. ∂z/∂μ = 1, ∂z/∂logvar = ½σε.

    Args:
        mu: mean, of any shape.
        logvar: log σ², broadcast against ``mu``: a tensor or a number. ``param`` says what else it is.
        sample_shape: leading dims of independent samples; they share ``mu`` and ``logvar``.
        seed: an int, taken modulo 2⁶⁴, or one int64 element on the tensors' device: the result is then a pure
            function of the arguments, and two calls with one seed draw the same ε: two latents of one model then
            correlate at 1. Give the second another seed, or ``first_sample`` (the number of the first's samples).
            Without it the seed is drawn from ``generator``, or from PyTorch's
            default generator for the device, so ``torch.manual_seed`` governs.
        offset: added to every element's index in ``mu``: a shard of a batch with the offset of its first
            element draws what the whole batch would have drawn there.
        first_sample: number of the first sample: samples drawn in chunks are those drawn at once.
        generator: where the seed is drawn from.
        param: what the second argument is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high) clamps the second argument as given; no gradient outside.
        backend: "reference", "native", "triton" or "auto"; by default what ``use_backend`` says.

    Returns:
        z of shape sample_shape + broadcast(mu, logvar).shape, in the promoted dtype of mu and logvar.

    Raises:
        TypeError: mu or logvar of a complex, integer, quantised, sparse or nested kind; a seed that is no integer;
            a DTensor, whose shards do not know their place in the noise.
        ValueError: shapes that do not broadcast, tensors on different devices, an unknown ``param``.
        RuntimeError: a named backend that cannot serve the call.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4.
    """
    operands, shape, composite, _ = arguments.operands("rsample", mu, logvar)
    code, eps, low, high = arguments.parametrisation(param, param_eps, bounds)
    name = choose("rsample", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    offset, first_sample = seeds.integer("offset", offset), seeds.integer("first_sample", first_sample)
    key, key_tensor = seeds.resolve(seed, generator, mu.device)
    options = _Options(
        sample_shape=samples,
        seed=key,
        offset=offset,
        first_sample=first_sample,
        param=code,
        param_eps=eps,
        low=low,
        high=high,
    )
    z: Tensor = draw("rsample", name, operands, options, composite, key_tensor)
    return z

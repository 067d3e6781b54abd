"""The reparameterised sample z = μ + σε, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose, kernel
from vae_fast.checks import countable
from vae_fast.ops import arguments, dispatch
from vae_fast.ops.arguments import Bounds, Param
from vae_fast.tracing import public


class _Rsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: str, mu: Any, logvar: Any, seed_tensor: Any, drawn: Any, options: Any) -> Any:
        ctx.save_for_backward(mu, logvar, seed_tensor)
        ctx.backend, ctx.drawn, ctx.options = backend, drawn, options
        return kernel(backend, "rsample_fwd")(mu, logvar, *drawn, seed_tensor, *options)

    @staticmethod
    def backward(ctx: Any, dz: Any) -> Any:
        mu, logvar, seed_tensor = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:3]
        bwd = dispatch.backward_kernel(ctx.backend, "rsample_bwd", dz)
        grads = bwd(dz, mu, logvar, *ctx.drawn, seed_tensor, *ctx.options, *needs)
        return (None, *dispatch.asked(needs, grads), None, None, None)


def moments(mu: Tensor, logvar: Tensor | float) -> tuple[Tensor, Tensor, tuple[int, ...], bool]:
    """The checked (mu, logvar), their broadcast shape, and whether the reference must be seen."""
    if dispatch.uniform(mu, logvar):
        return mu, cast(Tensor, logvar), tuple(mu.shape), False
    mu, spread = arguments.floating("mu", mu), arguments.floating_or_number("logvar", logvar)
    in_the_open = dispatch.in_the_open(mu=mu, logvar=spread)
    if in_the_open:
        dispatch.refuse_dtensors(mu=mu, logvar=spread)
    arguments.same_device("mu", mu, logvar=spread)
    shape = arguments.broadcast_shape("mu", mu.shape, logvar=spread)
    return mu, spread, shape, in_the_open


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
        TypeError: mu or logvar of a complex, integer, quantised or sparse kind; a seed that is no integer;
            a DTensor, whose shards do not know their place in the noise.
        ValueError: shapes that do not broadcast, tensors on different devices, an unknown ``param``.
        RuntimeError: a named backend that cannot serve the call.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4.
    """
    mu, logvar, shape, in_the_open = moments(mu, logvar)
    form = arguments.scale_form(param, param_eps, bounds)
    name = choose("rsample", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    offset, first_sample = seeds.integer("offset", offset), seeds.integer("first_sample", first_sample)
    key, key_tensor = seeds.resolve(seed, generator, mu.device)
    drawn, options = (samples, key), (offset, first_sample, *form)
    if in_the_open or not dispatch.differentiable(mu, logvar):
        fwd = kernel("reference" if in_the_open else name, "rsample_fwd")
        return fwd(mu, logvar, *drawn, key_tensor, *options)
    return _Rsample.apply(name, *dispatch.distinct((mu, logvar, key_tensor)), drawn, options)

"""z = μ + σε with log q(z) and log p(z), in one pass, and their gradients together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.operators import Q_GRADS, Wanted
from vae_fast.triton_kernels import launch, layout, log_prob_sampling
from vae_fast.triton_kernels.drawing import NO_SAMPLES, OPERANDS, Draw, Samples, plan_of, samples_of
from vae_fast.triton_kernels.layout import BUSY, Layout, ceil_div
from vae_fast.triton_kernels.operands import (
    NOTHING,
    GradientOut,
    Gradients,
    Types,
    argument,
    check_upstream,
    spec_of,
)
from vae_fast.triton_kernels.sampling_launch import GROUP_SAMPLES, Groups, read_operands
from vae_fast.triton_kernels.walk import Spec

_PATH = Q_GRADS["path"]


def rsample_log_prob_fwd(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    options: Any,
    wanted: Wanted,
) -> tuple[Tensor, Tensor, Tensor]:
    draw = Draw((mu, logvar, prior_mu, prior_logvar), options, options.event_ndim)
    shape, types = draw.shape_and_types()
    if not options.sample_shape and mu.shape == shape:
        z = torch.empty_like(mu, dtype=types.promoted)
    else:
        z = torch.empty((*options.sample_shape, *shape), dtype=types.promoted, device=mu.device)
    data = shape[: len(shape) - options.event_ndim]
    log_q = torch.empty((*options.sample_shape, *data), dtype=types.sums, device=mu.device)
    log_p = torch.empty_like(log_q)
    if z.numel() == 0:
        return z, log_q.zero_(), log_p.zero_()
    _draw(draw, types, z, (log_q, log_p))
    return z, log_q, log_p


def rsample_log_prob_bwd(
    dz: Tensor | None, dlog_q: Tensor | None, dlog_p: Tensor | None, *operands_and_options: Any
) -> tuple[Tensor, ...]:
    mu, logvar, prior_mu, prior_logvar, options, wanted = operands_and_options
    operands = (mu, logvar, prior_mu, prior_logvar)
    gradients = Gradients(operands, (0, 1, 2, 3), wanted, mu.device)
    draw = Draw(operands, options, options.event_ndim)
    draw.heavy = prior_mu is not None or prior_logvar is not None
    shape, types = draw.shape_and_types()
    samples, data = options.sample_shape, shape[: len(shape) - options.event_ndim]
    if dz is not None:
        check_upstream("dz", dz, (*samples, *shape), mu.device)
    for name, gradient in (("dlog_q", dlog_q), ("dlog_p", dlog_p)):
        if gradient is not None:
            check_upstream(name, gradient, (*samples, *data), mu.device)
    if shape.numel() == 0:
        for grad in gradients.each:
            if grad is not None:
                grad.zero_()
    elif any([grad is not None for grad in gradients.each]):
        _differentiate(_Upstream(dz, dlog_q, dlog_p), draw, types, gradients.each)
    return gradients.finished()


class _Upstream(NamedTuple):
    """The gradients that reach z and its log-densities."""

    dz: Tensor | None
    dlog_q: Tensor | None
    dlog_p: Tensor | None


def _arguments(draw: Draw, groups: int, plan: Layout) -> tuple[Any, ...]:
    o = draw.options
    noise = (o.seed, o.seed_tensor, o.offset, o.first_sample, draw.samples, groups)
    return *noise, *plan.space_arguments, o.param_eps, o.low, o.high


def _constants(draw: Draw, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
    constants = draw.constants(groups, plan, aligned, types)
    del constants["FLOOR"], constants["TEMPERED"]
    return constants


def _draw(draw: Draw, types: Types, z: Tensor, sums: Sequence[Tensor]) -> None:
    """Fills z and its densities."""
    device, sample_dims = z.device, len(draw.options.sample_shape)
    of_one = Spec(z.shape[sample_dims:], z.stride()[sample_dims:])
    step, given = math.prod(of_one.shape), draw.options.noise
    noise = NO_SAMPLES if given is None else samples_of(given, sample_dims, device)
    plan, aligned, (noise,) = plan_of(draw, types, (noise,), (), ((), of_one, layout.ROW), step)
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=types.promoted, device=device)
    groups = max(1, min(draw.samples, ceil_div(BUSY, plan.programs)))
    partials: list[Tensor | None] = [None, None]
    if plan.segments > 1:
        shape = (plan.segments, draw.samples * plan.rows)
        partials = [torch.empty(shape, dtype=torch.float64, device=device) for _ in sums]
    args = (
        *read_operands(draw, noise, plan),
        target,
        *plan.strides(plan.out),
        step // plan.vec,
        *sums,
        *partials,
        *_arguments(draw, groups, plan),
    )
    constants = {**_constants(draw, groups, plan, aligned, types), "ALONE": plan.segments == 1}
    launch.run(log_prob_sampling.forward, plan.programs * groups, device, args, constants)
    for part, value in zip(partials, sums, strict=True):
        if part is not None:
            launch.join(part, plan.segments, value)
    if target is not z:
        z.copy_(target.reshape(z.shape))


def _of_sums(tensor: Tensor | None, draw: Draw, device: torch.device) -> Samples:
    """The gradient of sums over the event, with dims of 1 in its place."""
    if tensor is None:
        return NO_SAMPLES
    whole = tensor.reshape((*tensor.shape, *(1,) * (draw.event_ndim or 0)))
    return samples_of(whole, len(draw.options.sample_shape), device)


def _differentiate(upstream: _Upstream, draw: Draw, types: Types, grads: Sequence[Tensor | None]) -> None:
    device, sample_dims, options = draw.mu.device, len(draw.options.sample_shape), draw.options
    path = options.q_grad == _PATH
    through_z = upstream.dz is not None and grads[1] is not None
    draws = through_z or upstream.dlog_p is not None or (path and upstream.dlog_q is not None)
    noise = NO_SAMPLES
    if draws and options.noise is not None:
        noise = samples_of(options.noise, sample_dims, device)
    dz = NO_SAMPLES if upstream.dz is None else samples_of(upstream.dz, sample_dims, device)
    of_q, of_p = (_of_sums(gradient, draw, device) for gradient in (upstream.dlog_q, upstream.dlog_p))
    read: Sequence[Samples] = (noise, dz, of_q, of_p)
    of_grads: list[Spec | None] = [None if g is None else spec_of(g, device) for g in grads]
    plan, aligned, read = plan_of(draw, types, read, (), (tuple(of_grads), None, layout.NONE), 0)
    noise, *of_results = read
    groups = 1
    if draw.samples >= 2 * GROUP_SAMPLES and all([p.kind in (layout.NONE, layout.EACH) for p in plan.gradients]):
        groups = max(1, min(draw.samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    args = read_operands(draw, noise, plan)
    *_, of_dz, of_dlog_q, of_dlog_p = plan.operands
    views = (of_dz, of_dlog_q, of_dlog_p)
    for (t, step), view, unit in zip(of_results, views, (plan.vec, 1, 1), strict=True):
        args += (*argument(t, view, plan), step // unit)
    filled: list[GradientOut | Groups] = []
    for grad, made in zip(grads, plan.gradients[:OPERANDS], strict=True):
        step = 0
        if grad is None:
            args += NOTHING
        else:
            if groups == 1:
                filled.append(GradientOut(grad, made, plan, types.arithmetic, device))
            else:
                filled.append(Groups(grad, groups, plan, types))
                step = plan.columns // plan.vec * plan.rows
            args += filled[-1].argument()
        args.append(step)
    args += _arguments(draw, groups, plan)
    constants = _constants(draw, groups, plan, aligned, types)
    constants |= {"KINDS": plan.kinds, "PATH": path, "DRAWS": draws, "ONE": draw.samples == 1}
    launch.run(log_prob_sampling.backward, plan.programs * groups, device, args, constants)
    for part in filled:
        part.finish()

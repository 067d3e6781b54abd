"""z = μ + σε with log q(z) and log p(z), in one pass, and their gradients together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.drawing import Draw
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.log_prob_sampling_class import (
    Backward,
    Forward,
    Upstream,
    backward_class,
    forward_class,
    over_event,
)
from vae_fast.triton_kernels.operands import GradientOut, Gradients, key_of, readable
from vae_fast.triton_kernels.sampling_class import Pass, empty_z
from vae_fast.triton_kernels.sampling_launch import Groups, read_operands, read_samples

_forwards: Recent[Forward] = Recent()
_backwards: Recent[Backward] = Recent()


def rsample_log_prob_fwd(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    options: Any,
    wanted: Wanted,
) -> tuple[Tensor, Tensor, Tensor]:
    draw = Draw((mu, logvar, prior_mu, prior_logvar), options, options.event_ndim)
    given, device = readable(options.noise), mu.device
    key = (*key_of(*draw.operands, given), *draw.key)
    found = _forwards.find(key) or _forwards.keep(key, forward_class(draw, given))
    z = empty_z(draw, found.types, found.z, device)
    log_q = torch.empty(found.sums, dtype=found.types.sums, device=device)
    log_p = torch.empty_like(log_q)
    if found.one is None:
        return z, log_q.zero_(), log_p.zero_()
    _draw(draw, found.one, given, z, (log_q, log_p))
    return z, log_q, log_p


def _draw(draw: Draw, one: Pass, given: Tensor | None, z: Tensor, sums: Sequence[Tensor]) -> None:
    """Fills z and its densities."""
    plan, device = one.plan, z.device
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=z.dtype, device=device)
    partials: list[Tensor | None] = [None, None]
    if plan.segments > 1:
        shape = (plan.segments, draw.samples * plan.rows)
        partials = [torch.empty(shape, dtype=torch.float64, device=device) for _ in sums]
    pointers, strides = read_operands(draw, one)
    noise = read_samples(given, draw, one.dense[0])
    one.launch(
        (*pointers, noise, target, *sums, *partials, draw.options.seed_tensor),
        (*strides, *one.others, *_numbers(draw, one)),
    )
    for part, value in zip(partials, sums, strict=True):
        if part is not None:
            launch.join(part, plan.segments, value)
    if target is not z:
        z.copy_(target.reshape(z.shape))


def _numbers(draw: Draw, one: Pass) -> tuple[Any, ...]:
    """What a kernel takes behind its strides."""
    o = draw.options
    noise = (o.seed, o.offset, o.first_sample, draw.samples, one.groups)
    return *noise, *one.plan.space_arguments, o.param_eps, o.low, o.high


def rsample_log_prob_bwd(
    dz: Tensor | None, dlog_q: Tensor | None, dlog_p: Tensor | None, *operands_and_options: Any
) -> tuple[Tensor, ...]:
    mu, logvar, prior_mu, prior_logvar, options, wanted = operands_and_options
    operands = (mu, logvar, prior_mu, prior_logvar)
    gradients = Gradients(operands, (0, 1, 2, 3), wanted, mu.device)
    draw = Draw(operands, options, options.event_ndim)
    draw.heavy = prior_mu is not None or prior_logvar is not None
    _backward(Upstream(readable(dz), readable(dlog_q), readable(dlog_p)), draw, gradients.each)
    return gradients.finished()


def _backward(upstream: Upstream, draw: Draw, grads: Sequence[Tensor | None]) -> None:
    """Fills the gradients of all three results together by every operand."""
    noise = readable(draw.options.noise)
    given = noise if upstream.draws(draw, grads[1] is not None) else None
    key = (*key_of(*draw.operands, noise, *upstream, *grads), *draw.key)
    found = _backwards.find(key) or _backwards.keep(key, backward_class(upstream, draw, given, grads))
    if found.empty:
        for grad in grads:
            if grad is not None:
                grad.zero_()
    elif found.one is not None:
        _differentiate(upstream, draw, given, grads, found.writes_in_place, found.one)


def _differentiate(
    upstream: Upstream,
    draw: Draw,
    given: Tensor | None,
    grads: Sequence[Tensor | None],
    in_place: bool,
    one: Pass,
) -> None:
    plan, device = one.plan, draw.mu.device
    pointers, strides = read_operands(draw, one)
    of_sums = (over_event(upstream.dlog_q, draw), over_event(upstream.dlog_p, draw))
    read = (given, upstream.dz, *of_sums)
    samples = [read_samples(t, draw, dense) for t, dense in zip(read, one.dense, strict=True)]
    written, filled = list(grads), []
    if not in_place:
        for k, grad in enumerate(grads):
            if grad is not None:
                part: GradientOut | Groups
                if one.groups == 1:
                    part = GradientOut(grad, plan.gradients[k], plan, one.types.arithmetic, device)
                else:
                    part = Groups(grad, one.groups, plan, one.types)
                filled.append(part)
                written[k] = part.pointer
    one.launch(
        (*pointers, *samples, *written, draw.options.seed_tensor),
        (*strides, *one.others, *_numbers(draw, one)),
    )
    for part in filled:
        part.finish()

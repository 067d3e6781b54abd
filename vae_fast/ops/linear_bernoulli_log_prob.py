"""A linear layer and the Bernoulli log-likelihood of its logits, by blocks of rows: the logits are never stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from vae_fast import tracing
from vae_fast.backends import choose, kernel
from vae_fast.operators import BERNOULLI_PARAMS, OPERATORS
from vae_fast.ops import arguments, blocks, dispatch
from vae_fast.ops.arguments import Reduction
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.reference.densities import NONE

_Options = OPERATORS["bernoulli_log_prob"].Options

# Logits of a block: what is made of them is read again while it is in a core's cache.
_BLOCK_BYTES = 1 << 22


def linear_bernoulli_log_prob(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    *,
    x_scale: float = 1.0,
    reduction: Reduction = "none",
    scale: float = 1.0,
    recompute: bool = False,
    block_rows: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Bernoulli log-likelihood of targets under the logits of a linear layer, in nats, summed over its outputs.

    .. math:: \log p(x \mid h) = \sum_d x_d\, l_d - \log(1 + e^{l_d}), \qquad l = W h + b

    What ``bernoulli_log_prob(linear(h, weight, bias), x, event_ndim=1)`` gives, with its gradients of h, weight
    and bias, in blocks of rows whose logits stay in cache. Without a graph nothing but a row's sum is kept. With
    one the derivatives by the logits are, one table, made while the logits are at hand: the backward pass is two
    matrix products; or, with ``recompute=True``, nothing but the operands, and it makes the logits anew, a third
    one. The matrix products are PyTorch's. Under ``torch.compile``, transforms and tracers, for tensor subclasses,
    or where x needs a gradient, it is those two calls.

    Args:
        h: the layer's input, [..., H], of any floating dtype.
        weight: W, [D, H], of h's dtype.
        bias: b, [D], of h's dtype, or None.
        x: targets [*data, D]: floats in [0, 1], bool, or uint8; h may have sample dims before these.
        x_scale: what x is multiplied by when it is read; 1/255 for bytes.
        reduction: "none" gives one number a row of h, "sum" and "mean" run over all rows.
        scale: a number that multiplies the result; −1 makes it a loss.
        recompute: whether the backward pass makes the logits again, so that no table of their size is held; of half
            types it does in any case.
        block_rows: rows of h at a time; None: as many as make 4 MiB of logits.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        h's leading dims ("none") or a 0-d tensor; float64 for float64 logits, else float32.

    Raises:
        ValueError: h, weight, bias and x do not fit each other, x on another device than h, block_rows < 1, an
            unknown reduction.
        TypeError: logits of a complex, integer, quantised, sparse or nested kind; x of int8 to int64; an option
            that is no number.
        RuntimeError: h, weight and bias on different devices, or of different dtypes outside of autocast, as of
            ``torch.nn.functional.linear``; a named backend that cannot serve the call.

    Example:
        >>> h, weight, x = torch.zeros(3, 4), torch.zeros(2, 4), torch.tensor([[0.0, 1.0]]).expand(3, 2)
        >>> vae_fast.linear_bernoulli_log_prob(h, weight, None, x)
        tensor([-1.3863, -1.3863, -1.3863])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.1.
    """
    _check(h, weight, bias, x, block_rows)
    x_scale, scale = arguments.number("x_scale", x_scale), arguments.number("scale", scale)
    arguments.reduction_code(reduction)
    tensors = {"h": h, "weight": weight, "bias": bias, "x": x}
    whole = x.requires_grad or tracing.traced() or dispatch.needs_composite(**tensors) or h.numel() == 0
    if whole:
        log_prob = bernoulli_log_prob(linear(h, weight, bias), x, x_scale=x_scale, event_ndim=1, backend=backend)
    else:
        kind = h.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            h, weight, bias = h.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        rows = block_rows or max(1, _BLOCK_BYTES // (weight.shape[0] * weight.element_size() or 1))
        with torch.autocast(kind, enabled=False):
            log_prob = _Blocks.apply(h, weight, bias, x, (rows, x_scale, backend, recompute))
    return blocks.reduced(log_prob, reduction, scale)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Any, x: Tensor, options: Any) -> Tensor:
        rows, x_scale, backend, recompute = options
        own, targets = _by_data(h, x)
        dtype = torch.float64 if h.dtype == torch.float64 else torch.float32
        log_prob = torch.empty(own.shape[:2], dtype=dtype, device=h.device)
        # What is rounded to a half type is not what a row's upstream gradient is to be multiplied by.
        keeps = any(ctx.needs_input_grad) and not recompute and h.dtype == dtype
        slopes = []
        for at in _blocks(rows, *log_prob.shape):
            logits = linear(own[at], weight, bias)
            log_prob[at], slope = _value_and_slope(logits, targets[at[1]], x_scale, backend, keeps)
            slopes += [slope] if keeps else []
        ctx.save_for_backward(h, weight, bias, x, *slopes)
        ctx.options = options
        return log_prob.view(h.shape[:-1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        h, weight, bias, x, *slopes = ctx.saved_tensors
        rows, x_scale, backend, _ = ctx.options
        needs = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or tracing.traced() or dispatch.batched(upstream):
            # A gradient that is differentiated, or traced: of PyTorch's operations.
            def whole() -> tuple[Tensor]:
                return (bernoulli_log_prob(linear(h, weight, bias), x, **_said(x_scale, backend)),)

            return *blocks.gradients(whole, (h, weight, bias), needs, (upstream,)), None, None
        own, targets = _by_data(h, x)
        given = upstream.reshape(own.shape[:2])
        # Sums over all rows: of half types in float32.
        wide = torch.float32 if weight.itemsize < 4 else weight.dtype
        dh = torch.empty(own.shape, dtype=h.dtype, device=h.device) if needs[0] else None
        dweight = torch.zeros(weight.shape, dtype=wide, device=h.device) if needs[1] else None
        dbias = torch.zeros(bias.shape, dtype=wide, device=h.device) if needs[2] else None
        kept = iter(slopes)
        for at in _blocks(rows, *given.shape):
            by_row = given[at].flatten()[:, None]
            if slopes:
                slope = next(kept).flatten(0, 1)
            else:
                logits = linear(own[at], weight, bias).requires_grad_()
                with torch.enable_grad():
                    log_prob = bernoulli_log_prob(logits, targets[at[1]], **_said(x_scale, backend))
                slope = torch.autograd.grad(log_prob, logits, given[at])[0].flatten(0, 1)
            if dh is not None:
                made = slope @ weight
                dh[at] = (made.mul_(by_row) if slopes else made).view(dh[at].shape)
            rows_of_h = own[at].flatten(0, 1)
            if dweight is not None and wide == weight.dtype:
                dweight.addmm_(slope.T, rows_of_h * by_row if slopes else rows_of_h)
            elif dweight is not None:
                dweight += slope.T @ rows_of_h
            if dbias is not None:
                dbias += slope.T @ by_row[:, 0] if slopes else slope.sum(0, dtype=wide)
        sums = (None if t is None else t.to(weight.dtype) for t in (dweight, dbias))
        return None if dh is None else dh.view(h.shape), *sums, None, None


def _value_and_slope(
    logits: Tensor, x: Tensor, x_scale: float, backend: str | None, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The rows' log-likelihoods and, if wanted, their derivatives by the logits, of one pass."""
    if not wanted:
        return bernoulli_log_prob(logits, x, **_said(x_scale, backend)), None
    (logits, x, pos_weight, weight), *_ = arguments.operands("bernoulli_log_prob", logits, x, None, None)
    name = choose("bernoulli_log_prob", logits.device, backend, logits.numel())
    options = _Options(event_ndim=1, reduction=NONE, scale=1.0, x_scale=x_scale, param=BERNOULLI_PARAMS["logits"])
    fwd = kernel(name, "bernoulli_log_prob_fwd")
    log_prob, slope, _ = fwd(logits, x, pos_weight, weight, *options, True, False)
    return log_prob, slope


def _said(x_scale: float, backend: str | None) -> dict[str, Any]:
    return {"x_scale": x_scale, "event_ndim": 1, "backend": backend}


def _by_data(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """h as samples × data × features, and the targets of the data, which all samples share."""
    x = x.reshape(-1, x.shape[-1])
    return h.reshape(-1, len(x), h.shape[-1]), x


def _blocks(rows: int, samples: int, data: int) -> Iterator[tuple[slice, slice]]:
    """About so many rows at a time: parts of one sample's data, or several samples of all data."""
    each, size = max(1, rows // data), min(rows, data)
    for s in range(0, samples, each):
        for d in range(0, data, size):
            yield slice(s, s + each), slice(d, d + size)


def _check(h: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor, block_rows: int | None) -> None:
    arguments.same_device("h", h, weight=weight, bias=bias, x=x)
    shapes = f"h {list(h.shape)}, weight {list(weight.shape)}, x {list(x.shape)}"
    if weight.ndim != 2 or h.ndim == 0 or h.shape[-1] != weight.shape[1]:
        raise ValueError(f"h must be [..., H] and weight [D, H], got {shapes}")
    if bias is not None and tuple(bias.shape) != tuple(weight.shape[:1]):
        raise ValueError(f"bias must be [D] of {shapes}, got {list(bias.shape)}")
    data = tuple(x.shape[:-1])
    if x.ndim == 0 or x.shape[-1] != weight.shape[0] or tuple(h.shape[:-1])[h.ndim - 1 - len(data) :] != data:
        raise ValueError(f"x must be [*data, D] and h [..., *data, H], got {shapes}")
    if block_rows is not None and (type(block_rows) is not int or block_rows < 1):
        raise ValueError(f"block_rows must be a positive int, got {block_rows!r}")

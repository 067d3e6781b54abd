"""The log-density of a mixture of discretised logistics: its checks, its docstring and its autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, blocks, dispatch, early
from vae_fast.ops.arguments import Reduction
from vae_fast.reference.densities import compute_dtype, promoted_dtype
from vae_fast.reference.logistic_mixture_log_prob import Bins, whole

OP = "logistic_mixture_log_prob"
# Of scales that are less, 1/s has no square in float32.
_LEAST = -80.0


def logistic_mixture_log_prob(
    logits: Tensor,
    mean: Tensor,
    log_scale: Tensor,
    x: Tensor,
    *,
    coefficients: Tensor | None = None,
    levels: int = 256,
    min_log_scale: float = -7.0,
    edges: tuple[float, float] | None = None,
    density_below: float = 0.0,
    weight: Tensor | float | None = None,
    event_ndim: int = 1,
    reduction: Reduction = "none",
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    r"""Log-probability of pixels of L levels under a mixture of discretised logistics, in nats: PixelCNN++'s.

    .. math::
        \log p(x) = \log \sum_{k=1}^{K} \mathrm{softmax}(\text{logits})_k \prod_{c=1}^{C} P(x_c; m_{ck}, s_{ck}),
        \qquad m_{ck} = \text{mean}_{ck} + \sum_{j<c} \tanh(\text{coefficients}_{(c,j)k})\, x_j

    where P is the logistic distribution's probability of the bin of x_c, half a width h = 1/(L − 1) to either side,
    and of all that is beyond it in the lowest and the highest bin: with e^(−log_scale) times x − m ± h, "plus" and
    "minus",

    .. math::
        \log P = \log(1 - e^{-2h/s}) + \log \sigma(\text{plus}) + \log \sigma(-\text{minus}),

    at the lowest level log σ(plus) alone, at the highest log σ(−minus). Nothing cancels in it, however small a
    probability is. Published code takes the logarithm of a difference of two sigmoids, and below 1e-5 a density
    instead: where s is e⁻⁷ and x − m 0.0145, log P is then 19 % off, and its slope by log_scale 28 %.

    Operands may have any strides: slices and permutations of a network's output are read where they lie, and no
    table of channels × components is made beside them. The last dim of a convolution's output, [B, H, W, 10·K], as
    VDVAE's and PixelCNN++'s have it (NVAE's [B, 10·K, H, W] is that after ``.movedim(1, -1)``), is cut by

    >>> K, h = 10, torch.zeros(2, 4, 4, 100)
    >>> logits, rest = h[..., :K], h[..., K:].unflatten(-1, (3, 3 * K))
    >>> mean, log_scale, coefficients = rest.split(K, -1)

    Args:
        logits: [*data, K], the components' weights before their softmax, of any floating dtype.
        mean: [*data, C, K], of any floating dtype; data's dims are, say, [B, H, W].
        log_scale: [*data, C, K], log s.
        x: [*data, C], data scaled to [−1, 1], of any floating dtype; or uint8, the levels from 0 to L − 1. Where it
            requires a gradient PyTorch's own operations serve, on whole tables.
        coefficients: [*data, C(C − 1)/2, K], by which a channel's mean goes with the channels before it, before
            their tanh: of (2, 1), (3, 1), (3, 2) and so on. None: channels are independent given k.
        levels: L, 2 at least: 256 for 8 bits, 32 for 5.
        min_log_scale: what log_scale is clamped to from below, −80 at least; below it has no gradient.
        edges: (low, high): x below and above these is of the lowest and the highest level. None: half a bin's
            width inside of −1 and 1. PixelCNN++ and VDVAE have (−0.999, 0.999), which is the same for x of 256
            levels; NVAE (−0.999, 0.99).
        density_below: where a bin's probability is below this, the density at its centre times its width stands for
            it, with its gradients: 1e-5 in published code, which needs it. 0: never.
        weight: what a datum's results are multiplied by, outside the logarithm; broadcasts to [*data]. Of a weight
            of 0 the result and its gradients are 0 whatever the operands are. No gradient of its own. None: 1.
        event_ndim: how many of x's last dims make up one datum, over which the result is summed: 1, a pixel each; 3
            for images [B, H, W, C].
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says. Under functorch's
            transforms, forward-mode AD, export and for tensor subclasses the reference's operations serve, on
            whole tables.

    Returns:
        log p(x), of x's shape without the last ``event_ndim`` dims ("none"), or a 0-d tensor; float64 where a
        parameter is, else float32. Gradients of logits, mean, log_scale and coefficients.

    Raises:
        ValueError: shapes that do not fit each other, no channel or component, tensors on different devices, fewer
            than two levels, bytes of more than 256, a min_log_scale below −80, edges out of order, an event_ndim
            that x has not.
        TypeError: an operand that is no dense tensor of a floating dtype (x: or uint8); no number as an option.
        RuntimeError: a named backend that does not serve the operator.

    Example:
        >>> x = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
        >>> vae_fast.logistic_mixture_log_prob(
        ...     logits, mean, log_scale, x, coefficients=coefficients, event_ndim=3
        ... ).shape
        torch.Size([2])

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017), section 2.1; Child, "Very Deep VAEs" (2021),
    and Vahdat and Kautz, "NVAE" (2020), whose likelihood it is.
    """
    arguments.reduction_code(reduction)
    scale = arguments.number("scale", scale)
    bins = _bins(levels, min_log_scale, edges, density_below)
    given: dict[str, Any] = {
        "logits": arguments.floating("logits", logits),
        "mean": arguments.floating("mean", mean),
        "log_scale": arguments.floating("log_scale", log_scale),
        "coefficients": None if coefficients is None else arguments.floating("coefficients", coefficients),
        "x": x if isinstance(x, Tensor) and x.dtype == torch.uint8 else arguments.floating("x", x),
    }
    arguments.same_device("logits", logits, **given)
    _fit(**given)
    data = tuple(x.shape[:-1])
    event = arguments.event_dims(event_ndim, x.shape, "x")
    if event == 0:
        raise ValueError("event_ndim must be 1 at least: the channels of a pixel are of one datum")
    by_datum = blocks.weight_of_data(weight, data, "x", x)
    by_datum = None if by_datum is None else by_datum.to(x.device)
    dtype = compute_dtype(promoted_dtype(*(t for n, t in given.items() if t is not None and n != "x")))
    operands = [t if t is None else t.to(dtype) for n, t in given.items() if n != "x"]
    composite = dispatch.needs_composite(**given, weight=by_datum)
    events = math.prod(data[: len(data) + 1 - event])
    call = _Call(bins, by_datum, reduction, scale / (events or 1) if reduction == "mean" else scale)
    result = _mixture((*operands, _scaled(x, levels, dtype)), call, backend, composite)
    if reduction == "none" and event > 1:
        dims = tuple(range(len(data) + 1 - event, len(data)))
        return result.sum(dims, dtype=torch.float64).to(result.dtype)
    return result


class _Call(NamedTuple):
    """What a call is beside its operands. ``scale`` is by which every pixel's value goes into the result."""

    bins: Bins
    weight: Tensor | None
    reduction: str
    scale: float

    def of(self, values: Tensor) -> Tensor:
        """The weighted values, one a pixel, or their sum: made of those of the log-density."""
        # The scale of a mean has the number of data in it.
        reduction: Reduction = "none" if self.reduction == "none" else "sum"
        return blocks.reduced(blocks.weighted(values, self.weight), reduction, self.scale)

    def upstream(self, values: Tensor, given: Tensor) -> Tensor:
        """The gradient of the log-density of every pixel, of the result's."""
        each = (given * self.scale).expand(values.shape)
        return each if self.weight is None else each * self.weight.to(values.dtype)


def _bins(levels: Any, min_log_scale: Any, edges: Any, density_below: Any) -> Bins:
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise TypeError(f"levels must be an int, got {type(levels).__name__}")
    if levels < 2:
        raise ValueError(f"levels must be 2 at least, got {levels}")
    half_width = 1.0 / (levels - 1)
    least = arguments.number("min_log_scale", min_log_scale)
    if not least >= _LEAST:
        raise ValueError(f"min_log_scale must be {_LEAST:g} at least, got {min_log_scale!r}")
    if edges is None:
        low, high = half_width - 1.0, 1.0 - half_width
    elif isinstance(edges, (tuple, list)) and len(edges) == 2:
        low, high = (arguments.number("edges", edge) for edge in edges)
    else:
        raise ValueError(f"edges must be None or a pair (low, high), got {edges!r}")
    if not low <= high:
        raise ValueError(f"edges must have low <= high, got {edges!r}")
    below = arguments.number("density_below", density_below)
    if not 0.0 <= below < 1.0:
        raise ValueError(f"density_below must be from 0 to below 1, got {density_below!r}")
    return Bins(half_width, least, low, high, below)


def _fit(logits: Tensor, mean: Tensor, log_scale: Tensor, coefficients: Tensor | None, x: Tensor) -> None:
    shapes = f"logits {list(logits.shape)}, mean {list(mean.shape)}, x {list(x.shape)}"
    if mean.ndim < 2 or 0 in mean.shape[-2:]:
        raise ValueError(f"mean must be [*data, C, K] of a channel and a component at least, got {shapes}")
    *data, channels, components = mean.shape
    if tuple(logits.shape) != (*data, components) or tuple(x.shape) != (*data, channels):
        raise ValueError(f"logits must be [*data, K], mean [*data, C, K] and x [*data, C], got {shapes}")
    if log_scale.shape != mean.shape:
        raise ValueError(f"log_scale must be of mean's shape {list(mean.shape)}, got {list(log_scale.shape)}")
    pairs = channels * (channels - 1) // 2
    if coefficients is not None and tuple(coefficients.shape) != (*data, pairs, components):
        wanted = [*data, pairs, components]
        raise ValueError(f"coefficients must be {wanted}, [*data, C(C - 1)/2, K], got {list(coefficients.shape)}")


def _scaled(x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    if x.dtype != torch.uint8:
        return x.to(dtype)
    if levels > 256:
        raise ValueError(f"x of uint8 has 256 levels at most, got levels={levels}")
    # The number nearest to the level's place.
    return (2 * x.to(dtype) - (levels - 1)) / (levels - 1)


def _mixture(operands: tuple[Any, ...], call: _Call, backend: str | None, composite: bool) -> Tensor:
    """[*data], or their sum."""
    _, mean, *_, x = operands
    data = mean.shape[:-2]
    name = choose(OP, mean.device, backend, mean.numel())
    # Data have a gradient of PyTorch's operations alone.
    by_data = dispatch.differentiable(x)
    if by_data or blocks.whole(name, composite):
        return call.of(whole(operands, call.bins))
    pixels = _pixels(operands, len(data))
    if call.weight is not None:
        call = call._replace(weight=call.weight.expand(data).reshape(pixels[1].shape[:2]))
    if dispatch.differentiable(*pixels):
        result: Tensor = _LogisticMixture.apply(*dispatch.distinct(pixels), call, name)
    else:
        result = call.of(kernel(name, f"{OP}_fwd")(*pixels, None, *call.bins, *[False] * 4)[0])
    return result.reshape(data) if call.reduction == "none" else result


def _pixels(operands: Sequence[Any], n: int) -> list[Any]:
    """The operands with their first n dims, the data's, as two: views, of one and the same cut, where there are."""
    present = [t for t in operands if t is not None]
    for cut in range(n + 1):
        if all(_merges(t, 0, cut) and _merges(t, cut, n) for t in present):
            break
    else:
        cut = 0
    size = present[0].shape
    two = (math.prod(size[:cut]), math.prod(size[cut:n]))
    return [t if t is None else t.reshape(*two, *t.shape[n:]) for t in operands]


def _merges(t: Tensor, first: int, last: int) -> bool:
    """Whether dims [first, last) lie in memory as one does."""
    dims = [(t.shape[d], t.stride(d)) for d in range(first, last) if t.shape[d] != 1]
    return all(step == size * inner for (_, step), (size, inner) in zip(dims, dims[1:], strict=False))


class _LogisticMixture(torch.autograd.Function):
    """The gradients of a sum are made in the forward pass, where they may be kept; others in the backward pass."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        *operands, call, name = args
        in_forward = call.reduction != "none" and name in early.BACKENDS and early.allowed()
        needs = ctx.needs_input_grad[:4] if in_forward else (False,) * 4
        upstream = call.upstream(operands[1][..., 0, 0], operands[1].new_ones(())) if in_forward else None
        values, *gradients = kernel(name, f"{OP}_fwd")(*operands, upstream, *call.bins, *needs)
        ctx.save_for_backward(*operands)
        ctx.call, ctx.name = call, name
        early.keep(ctx, gradients if in_forward else None)
        return call.of(values)

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> Any:
        *parameters, x = ctx.saved_tensors
        call, needs = ctx.call, ctx.needs_input_grad[:4]
        none = (None,) * 3
        if torch.is_grad_enabled() or dispatch.batched(upstream):
            # A gradient that is differentiated, or batched: of PyTorch's operations.
            return *blocks.gradients(
                lambda: (call.of(whole((*parameters, x), call.bins)),), parameters, needs, (upstream,)
            ), *none
        kept = early.take(ctx, upstream)
        gradients = None if kept is None else early.scaled(kept, ctx.name, upstream)
        if gradients is None:
            each = call.upstream(x[..., 0], upstream)
            _, *gradients = kernel(ctx.name, f"{OP}_fwd")(*parameters, x, each, *call.bins, *needs)
        return *(g if need else None for g, need in zip(gradients, needs, strict=False)), *none

"""The maximum mean discrepancy of two sets of points: its checks, its docstring and its autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vae_fast.backends import choose
from vae_fast.backends import kernel as kernel_of
from vae_fast.ops import arguments, blocks, dispatch
from vae_fast.reference.densities import compute_dtype, promoted_dtype
from vae_fast.reference.mmd import whole

Kernel = Literal["imq", "rbf"]
_KERNELS = {"imq": 0, "rbf": 1}
OP = "mmd"


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    kernel: Kernel = "imq",
    bandwidth: float = 1.0,
    scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    unbiased: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""Squared maximum mean discrepancy of two sets of points, without a table of their distances.

    .. math::
        \mathrm{MMD}^2 = \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i,j} k(x_i, y_j)

    with, of C = 2·D·bandwidth² and the squared distance d², the kernel

    .. math::
        k_\text{imq} = \sum_s \frac{s\,C}{s\,C + d^2}, \qquad k_\text{rbf} = e^{-d^2/C}.

    What a WAE or an InfoVAE is trained with, between samples of q(z) and of the prior. Memory is that of the
    points: distances are formed by differences, a few pairs at a time, and their sums in double precision.

    Args:
        x: points [n, D], of any floating dtype.
        y: points [m, D], of any floating dtype.
        kernel: "imq", the inverse multiquadric, summed over the scales; or "rbf".
        bandwidth: σ of C, above 0.
        scales: s of the inverse multiquadric, each above 0; "rbf" has none.
        unbiased: whether pairs of a point and itself are left out of the first two means, which then are of
            n(n − 1) and m(m − 1) pairs; otherwise of n² and m².
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says. Under functorch's
            transforms, forward-mode AD, export and for tensor subclasses the reference's operations serve, on whole
            tables.

    Returns:
        A 0-d tensor, which may be negative where it is unbiased; float64 where x or y is, else float32. Gradients
        of x and y.

    Raises:
        ValueError: other shapes, fewer than two points of a set (one, if biased), tensors on different devices, an
            unknown kernel, no scale, a bandwidth or scale that is not above 0.
        TypeError: x or y is no dense tensor of a floating dtype; a bandwidth or scale that is no number.
        RuntimeError: a named backend that does not serve the operator.

    Example:
        >>> x, y = torch.zeros(2, 1), torch.ones(2, 1)
        >>> vae_fast.mmd(x, y, kernel="rbf")
        tensor(0.7869)

    Source: Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A Kernel Two-Sample Test" (2012), lemma 6; Tolstikhin,
    Bousquet, Gelly and Schölkopf, "Wasserstein Auto-Encoders" (2018), section 4 for the kernel and its scales.
    """
    x, y = arguments.floating("x", x), arguments.floating("y", y)
    arguments.same_device("x", x, y=y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be [n, D] and [m, D], got {list(x.shape)} and {list(y.shape)}")
    exponential = bool(arguments.code_of("kernel", _KERNELS, kernel))
    least = 2 if unbiased else 1
    if min(len(x), len(y)) < least:
        raise ValueError(f"x and y need {least} points each, got {len(x)} and {len(y)}")
    c = 2.0 * x.shape[1] * _positive("bandwidth", bandwidth) ** 2
    factors = [1.0] if exponential else [_positive("scales", s) for s in scales]
    if not factors:
        raise ValueError("scales must not be empty")
    dtype = compute_dtype(promoted_dtype(x, y))
    constants = [factor * c for factor in factors]
    composite = dispatch.needs_composite(x=x, y=y)
    return _mmd(x.to(dtype), y.to(dtype), (constants, exponential, bool(unbiased)), backend, composite)


def _positive(name: str, value: Any) -> float:
    number = arguments.number(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return number


def _mmd(x: Tensor, y: Tensor, options: tuple[Any, ...], backend: str | None, composite: bool) -> Tensor:
    name = choose(OP, x.device, backend, x.numel() * len(y))
    if blocks.whole(name, composite):
        return whole(x, y, *options)
    if dispatch.differentiable(x, y):
        # One tensor in both places would be an input twice.
        value: Tensor = _Mmd.apply(x, y.view_as(y) if y is x else y, options, name)
    else:
        value = kernel_of(name, f"{OP}_fwd")(x, y, *options, False, False)[0]
    return value


class _Mmd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, options: Any, name: str) -> Tensor:
        need_x, need_y, *_ = ctx.needs_input_grad
        value, dx, dy = kernel_of(name, f"{OP}_fwd")(x, y, *options, need_x, need_y)
        ctx.options = options
        ctx.save_for_backward(x, y, dx, dy)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        x, y, dx, dy = ctx.saved_tensors
        need_x, need_y, *_ = ctx.needs_input_grad
        needs = need_x, need_y
        if torch.is_grad_enabled() or dispatch.batched(upstream):
            # A gradient that is differentiated, or batched: of PyTorch's operations.
            found = blocks.gradients(lambda: (whole(x, y, *ctx.options),), (x, y), needs, (upstream,))
            return *found, None, None
        return *(g * upstream if need else None for g, need in zip((dx, dy), needs, strict=True)), None, None

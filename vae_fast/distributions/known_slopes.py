"""Functions whose derivatives are written out beside their values, for autograd and for functorch's transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.ops import dispatch


def known_slopes(value: Callable[..., Tensor], slopes: Callable[..., Sequence[Tensor]]) -> Callable[..., Tensor]:
    """``value``, elementwise, of operands of one shape and dtype, with ``slopes`` for its derivatives by each.

    Autograd of a formula that keeps its digits need not keep those of the gradient. Further derivatives are those
    of ``slopes``, which is made of differentiable operations.
    """

    class Known(torch.autograd.Function):
        @staticmethod
        def forward(*operands: Any) -> Any:
            return value(*operands)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            pairs = zip(ctx.needs_input_grad, slopes(*ctx.saved_tensors), strict=True)
            return tuple(upstream * slope if needed else None for needed, slope in pairs)

    class Transformed(Known):
        """The same with forward derivatives and vmap, which torch.compile does not trace."""

        generate_vmap_rule = True

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            pairs = zip(tangents, slopes(*ctx.saved_tensors), strict=True)
            first, *others = [t * s for t, s in pairs if t is not None]
            return sum(others, first)

    def call(*operands: Tensor) -> Tensor:
        if dispatch.needs_composite(**{str(k): t for k, t in enumerate(operands)}):
            result: Tensor = Transformed.apply(*operands)
        elif dispatch.differentiable(*operands):
            result = Known.apply(*dispatch.distinct(operands))
        else:
            result = value(*operands)
        return result

    return call

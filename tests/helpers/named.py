"""A call on one backend against the reference's of the same values in float64, its operands given by name."""

import torch
from torch.testing import assert_close

# A share of the largest number of a result: sums of hundreds of float32, results of half types.
CLOSE = {torch.float32: 3e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def differentiated(function, operands, upstream, **options):
    """Results, and by name the gradients of the operands that require one; ``upstream`` makes a result's."""
    outs = function(**operands, **options)
    outs = outs if isinstance(outs, tuple) else (outs,)
    wanted = [name for name, t in operands.items() if isinstance(t, torch.Tensor) and t.requires_grad]
    grads = torch.autograd.grad(outs, [operands[name] for name in wanted], [upstream(out) for out in outs])
    return [out.detach() for out in outs], dict(zip(wanted, grads, strict=True))


def compare(function, operands, backend="triton", close=None, **options):
    """Every result and gradient; those of the backend are returned."""
    given = []

    def make(out):
        given.append(torch.randn(out.shape, dtype=torch.float64).to(out.dtype))
        return given[-1]

    def widened(t):
        if not isinstance(t, torch.Tensor) or not t.is_floating_point():
            return t
        return t.detach().double().requires_grad_(t.requires_grad)

    outs, grads = differentiated(function, operands, make, **options, backend=backend)
    again = iter(given)
    wide = {name: widened(t) for name, t in operands.items()}
    options = {name: widened(value) for name, value in options.items()}
    truth, slopes = differentiated(
        function, wide, lambda out: next(again).to(out.dtype), **options, backend="reference"
    )
    for name in grads:
        like = torch.empty_like(operands[name])
        assert (grads[name].shape, grads[name].dtype) == (like.shape, like.dtype), name
        assert grads[name].stride() == like.stride(), name
    pairs = [*zip(outs, truth, strict=True), *((grads[name], slopes[name]) for name in grads)]
    for got, want in pairs:
        assert got.shape == want.shape
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        assert_close(got.double(), want, rtol=0, atol=(close or CLOSE[got.dtype]) * scale)
    return outs, grads

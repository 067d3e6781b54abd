"""Run in a copy of the package with the operator of this folder: its values and gradients on the backends named.

A backend that is not named lacks the operator, and says so.
"""

import itertools
import sys

import torch

import vae_fast as vf
from benchmarks import cases, providers
from benchmarks import truth as benchmark

OP = "double_exponential_log_prob"


def tensors(dtype, *shapes):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def call(backend, mean, log_b, x, weight, **options):
    operands = [t.clone().requires_grad_() for t in (mean, log_b, x)]
    own = None if weight is None else weight.clone().requires_grad_()
    out = vf.double_exponential_log_prob(*operands, weight=own, backend=backend, **options)
    wanted = operands if own is None else [*operands, own]
    return out, *torch.autograd.grad(out, wanted, upstream(out))


def truth(mean, log_b, x, weight, reduction="none", scale=1.0):
    """By torch.distributions and autograd, in float64."""
    operands = [t.double().requires_grad_() for t in (mean, log_b, x)]
    own = None if weight is None else weight.double().requires_grad_()
    terms = torch.distributions.Laplace(operands[0], operands[1].exp(), validate_args=False).log_prob(operands[2])
    terms = terms if own is None else terms * own
    out = scale * {"none": terms.sum(-1), "sum": terms.sum(), "mean": terms.sum(-1).mean()}[reduction]
    wanted = operands if own is None else [*operands, own]
    return out, *torch.autograd.grad(out, wanted, upstream(out))


# Of mean, log_b, x and the weight.
SHAPES = (
    ((5, 33), (5, 33), (5, 33), (5, 33)),
    ((5, 33), (33,), (5, 33), (5, 1)),
    ((5, 33), (), (5, 33), ()),
)
OPTIONS = ({}, {"reduction": "sum", "scale": -0.5}, {"reduction": "mean"})
# Whether formulas and options arrive, and gradients at their operands: hundreds of roundings, and no more.
NEAR = {torch.float32: 1e-4, torch.float64: 1e-12}


def near(got, want, dtype):
    bar = NEAR[dtype] * max(1.0, want.abs().max().item())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=bar)


def upstream(out):
    return torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).reshape(out.shape)


def check(backend):
    for dtype, shapes in itertools.product(NEAR, SHAPES):
        *operands, weight = tensors(dtype, *shapes)
        for w, options in itertools.product((None, torch.where(weight > 1, 0.0, weight)), OPTIONS):
            pairs = zip(call(backend, *operands, w, **options), truth(*operands, w, **options), strict=True)
            for got, want in pairs:
                near(got, want, dtype)
    mean, log_b, x = (t.requires_grad_() for t in tensors(torch.float64, (3, 4), (4,), (3, 4)))
    function = lambda *operands: vf.double_exponential_log_prob(*operands, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(function, (mean, log_b, x))
    assert torch.autograd.gradgradcheck(function, (mean, log_b, x))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(mean, log_b, x), function(mean, log_b, x))


def check_checks(backend):
    """vf.check tries the operator in every shape, with every option; the benchmarks know what to compare it with.

    Not at the ends of a dtype, of which this density takes no care.
    """
    if backend != "triton":  # whose interpreter takes minutes for it
        (row,) = vf.check(OP, backend, dtype="float32", inputs="ordinary")
        assert row.ok and row.cases > 30, row.failure
    tensors = cases.Case(OP, (8, 16), "float32", "both").operands()
    for provider in ("eager", backend):
        why = benchmark.wrong(OP, providers.provider(provider), tensors, benchmark.of(OP, tensors))
        assert not why, (provider, why)


def lacks(backend):
    operands = tensors(torch.float32, (3, 4), (4,), (3, 4))
    assert OP not in vf.backends()[backend].ops
    for refused in (
        lambda: vf.double_exponential_log_prob(*operands, backend=backend),
        lambda: named(backend, operands),
    ):
        try:
            refused()
        except RuntimeError as error:
            assert f"the backend '{backend}' does not serve {OP}, which " in str(error), error
            assert "reference" in str(error), error
        else:
            raise AssertionError(f"{backend} serves what it has not")
    assert torch.equal(
        vf.double_exponential_log_prob(*operands), vf.double_exponential_log_prob(*operands, backend="reference")
    )


def named(backend, operands):
    with vf.use_backend(backend):
        vf.double_exponential_log_prob(*operands)


if __name__ == "__main__":
    serving = sys.argv[1:]
    for name, found in vf.backends().items():
        if name in serving:
            assert OP in found.ops
            check(name)
            check_checks(name)
            print(f"{name}: right")
        elif found.available:
            lacks(name)
            print(f"{name}: refused")

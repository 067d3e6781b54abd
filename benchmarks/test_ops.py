"""Forward and backward of each operator, summed, against the eager formulas: `make benchmark`. One group a case.

A provider is compared with float64 before it is timed, and a wrong one is not timed: one of PyTorch's is skipped
and says so (sums overflow in float16), one of ours fails.
"""

import eager
import pytest
import torch

import vae_fast as vf

BACKENDS = [name for name, backend in vf.backends().items() if backend.available]
# Operands and results that have to move: in the forward pass, then in the backward pass, if each is moved once. The
# densities' gradients come with their forward pass.
PASSES = {
    "rsample_kl": 3 + 4,
    "gaussian_kl": 2 + 2,
    "bernoulli_log_prob": 2 + 1,
    "gaussian_log_prob": 3 + 2,
}
SHAPES = {
    "rsample_kl": ((100, 20), (512, 64), (4096, 128)),
    "gaussian_kl": ((100, 20), (4096, 128)),
    "bernoulli_log_prob": ((100, 784), (512, 784), (4096, 3072)),
    "gaussian_log_prob": ((100, 560), (512, 784), (4096, 3072)),
}
OTHER = [
    ("rsample_kl", (512, 64), "bfloat16"),
    ("rsample_kl", (512, 64), "float64"),
    ("rsample_kl", (2, 65536), "float32"),
    ("rsample_kl", (32768, 4), "float32"),
    *(
        (op, shape, dtype)
        for op in ("bernoulli_log_prob", "gaussian_log_prob")
        for shape, dtype in (
            ((8, 16), "float32"),
            ((512, 784), "float32-uint8"),
            ((512, 784), "bfloat16"),
            ((512, 784), "float16"),
            ((512, 784), "float64"),
            ((2, 200_704), "float32"),
            ((100_352, 4), "float32"),
        )
    ),
]
CASES = [(op, shape, "float32") for op, shapes in SHAPES.items() for shape in shapes] + OTHER
# The reference is there to be right; at the largest sizes it takes seconds.
LARGEST_REFERENCE = 1_000_000


def ours(op, backend):
    """The vae_fast form of an eager formula: summed, and with the seed drawn as training code draws it."""
    if op == "rsample_kl":

        def sample(mu, logvar):
            z, kl = vf.rsample_kl(mu, logvar, backend=backend)
            return z, kl.sum()

        return sample

    def density(*tensors):
        options = {"x_scale": 1 / 255} if tensors[-1].dtype == torch.uint8 else {}
        return getattr(vf, op)(*tensors, reduction="sum", backend=backend, **options)

    return density


def scalar(op, out):
    """What is differentiated: the density, or z and the KL together."""
    return out[0].sum() + out[1] if op == "rsample_kl" else out


def density(op, out):
    return out[1] if op == "rsample_kl" else out


def operands(op, shape, dtype):
    dtype, _, target = dtype.partition("-")
    dtype = getattr(torch, dtype)
    tensors = [torch.randn(shape).to(dtype).requires_grad_() for _ in range(2)]
    if op == "bernoulli_log_prob":
        tensors.pop()
    if "log_prob" in op:
        tensors.append(torch.randint(0, 256, shape, dtype=torch.uint8) if target else torch.rand(shape).to(dtype))
    return tensors


def bytes_moved(op, tensors):
    first = tensors[0]
    total = PASSES[op] * first.numel() * first.element_size()
    return total - first.numel() * (first.element_size() - tensors[-1].element_size())


def function_of(provider, op):
    if provider in BACKENDS:
        return ours(op, provider)
    return torch.compile(getattr(eager, op), dynamic=False) if provider == "compile" else getattr(eager, op)


@pytest.mark.parametrize("provider", ["eager", "compile", *BACKENDS])
@pytest.mark.parametrize(("op", "shape", "dtype"), CASES)
def test_forward_backward(benchmark, op, shape, dtype, provider):
    size = torch.Size(shape).numel()
    if provider == "reference" and size > LARGEST_REFERENCE:
        pytest.skip(f"reference: more than {LARGEST_REFERENCE} elements")
    torch._dynamo.reset()
    torch.manual_seed(0)
    function, tensors = function_of(provider, op), operands(op, shape, dtype)
    wide = [t.detach().double() / (255 if t.dtype == torch.uint8 else 1) for t in tensors]
    truth = density(op, getattr(eager, op)(*wide))
    # Common formulas on half types sum in float32 what they rounded to 8 bits: 1 % of it.
    rtol = {2: 1e-2, 4: 1e-5, 8: 1e-10}[tensors[0].element_size()]
    found = density(op, function(*tensors)).double()
    if provider not in BACKENDS and not torch.isclose(found, truth, rtol=rtol, atol=0.0):
        pytest.skip(f"{provider} is wrong here, {found.item():.6g} instead of {truth.item():.6g}: not timed")
    torch.testing.assert_close(found, truth, rtol=rtol, atol=0.0)

    def step():
        scalar(op, function(*tensors)).backward()
        for t in tensors:
            t.grad = None

    benchmark.group = f"{op} {'x'.join(map(str, shape))} {dtype}"
    benchmark.extra_info |= {"provider": provider, "bytes": bytes_moved(op, tensors)}
    benchmark(step)

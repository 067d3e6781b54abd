"""The raw operators: a sound call of each with every kind of option, how results compare, what must be refused."""

import pytest
import torch

from vae_fast import schemas

INF = float("inf")
LOGVAR = (0, 0.0, -INF, INF)
OPS = torch.ops.vae_fast
# seed, seed_tensor, offset, first_sample
NOISE = (5, None, 3, 2)
NONE, SUM, MEAN = range(3)
LOGITS, PROBS = range(2)


def tensors(dtype, *shapes):
    return [torch.rand(shape, dtype=torch.float64).add(0.1).to(dtype) for shape in shapes]


def calls(dtype, layout=lambda t: t):
    """(name, arguments) of every raw operator; operands broadcast, some dense in another order."""
    a, b, c, d = map(layout, tensors(dtype, *((2, 3, 4, 5),) * 4))
    (small,) = tensors(dtype, (5,))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mask = torch.rand(2, 3, 4, 1) < 0.5
    pixels = layout(torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8))
    g = torch.randn(2, 3, dtype=wide)
    one = torch.ones((), dtype=wide)
    seed = torch.tensor([7])
    dz = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).to(dtype)
    number = torch.tensor(0.5, dtype=torch.float64)
    yield "standard_normal_fwd", ((2,), (3, 4), *NOISE, dtype, a.device)
    for v in (b, small):
        yield "rsample_fwd", (a, v, (2,), *NOISE, *LOGVAR)
        yield "rsample_bwd", (dz, a, v, (2,), *NOISE, *LOGVAR, True, v is b)
        yield "rsample_kl_fwd", (a, v, (2,), 0, seed, 0, 0, 2, 0.1, 4, 0.2, -1.0, 1.0)
        yield "rsample_kl_bwd", (dz, g, a, v, (2,), *NOISE, 2, None, *LOGVAR, True, True)
    yield "rsample_kl_bwd", (None, g, a, b, (2,), *NOISE, 2, 0.3, *LOGVAR, False, True)
    yield "rsample_kl_bwd", (dz, None, a, number, (2,), *NOISE, 2, 0.3, *LOGVAR, True, False)
    for priors, needs in (
        ((None, None), (True, True, False, False)),
        ((c, d), (True,) * 4),
        ((number, small), (False, True, False, True)),
    ):
        kl = (a, b, *priors, mask)
        yield "gaussian_kl_fwd", (*kl, 2, NONE, 1.0, None, *LOGVAR, *needs)
        yield "gaussian_kl_fwd", (*kl, 1, MEAN, -2.0, 0.2, 2, 0.1, 0.0, 3.0, False, False, False, False)
        yield "gaussian_kl_bwd", (g, *kl, 2, NONE, 1.0, None, *LOGVAR, *needs, False)
        weighted = (*kl[:-1], small)
        yield "gaussian_kl_bwd", (g, *weighted, 2, NONE, 1.0, None, *LOGVAR, *needs, True)
    packed = layout(torch.cat([b, c], 1))
    halves = packed.chunk(2, 1)
    yield "rsample_bwd", (dz, *halves, (2,), *NOISE, *LOGVAR, True, True, packed, 1)
    yield "rsample_kl_bwd", (dz, g, *halves, (2,), *NOISE, 2, None, *LOGVAR, True, True, packed, 1)
    kl = (*halves, a, d, mask)
    yield "gaussian_kl_bwd", (g, *kl, 2, NONE, 1.0, None, *LOGVAR, True, True, False, True, False, packed, 1)
    for x, need in ((c, True), (pixels, False)):
        gaussian = (*halves, x, mask, 2, NONE, 1.0, 1 / 255, *LOGVAR)
        yield "gaussian_log_prob_bwd", (g, *gaussian, True, True, need, False, packed, 1)
    for x, need in ((c, True), (pixels, False)):
        bernoulli = (a, x, mask)
        for param in (LOGITS, PROBS):
            yield "bernoulli_log_prob_fwd", (*bernoulli, 2, NONE, 1.0, 1 / 255, param, True, need)
            yield "bernoulli_log_prob_bwd", (g, *bernoulli, 2, NONE, 1.0, 1 / 255, param, True, need, False)
        yield "bernoulli_log_prob_bwd", (one, a, x, b, 1, MEAN, -1.0, 1.0, PROBS, False, need, True)
        gaussian = (a, small, x, None)
        yield "gaussian_log_prob_fwd", (*gaussian, 2, NONE, 1.0, 1 / 255, *LOGVAR, True, True, need)
        yield "gaussian_log_prob_bwd", (g, *gaussian, 2, NONE, 1.0, 1 / 255, *LOGVAR, True, True, need, False)
        gaussian = (a, small, x, b)
        yield (
            "gaussian_log_prob_bwd",
            (one, *gaussian, 1, SUM, -1.0, 1.0, 4, 0.1, -1.0, 1.0, True, True, need, True),
        )


LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "sliced": lambda t: torch.stack([t, t], -1)[..., 0],
}


def reference(name):
    """The body that serves where no kernel does."""
    return schemas._body(name)


def refuse(call, operator):
    """The operator says what is wrong with the call (hostile_calls.py)."""
    try:
        call(operator)
    except (TypeError, ValueError, RuntimeError) as error:
        assert str(error), call
        # Of a check, not of what an operation of PyTorch's ran into.
        assert "API call failed" not in str(error), (call, error)
        return
    pytest.fail(f"no error: {call}")


def assert_same(results, wanted, call):
    for got, want in zip(results, wanted, strict=True):
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride()), call
        # Ordinary numbers, and no test of accuracy: a wrong stride or an element left out shows.
        tolerance = 2e-2 if got.dtype in (torch.bfloat16, torch.float16) else 1e-4
        size = want.double().abs().nan_to_num(0.0, 0.0, 0.0).max() if want.numel() else 0.0
        torch.testing.assert_close(
            got, want, rtol=tolerance, atol=tolerance * float(size), equal_nan=True, msg=str(call)
        )

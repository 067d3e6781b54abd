"""The raw operators: a sound call of each with every kind of option, how results compare, what must be refused."""

import pytest
import torch

from vae_fast import schemas
from vae_fast.backends import choose, kernel
from vae_fast.operators import SIGNATURES

OPS = torch.ops.vae_fast
NOISE = {"seed": 5, "offset": 3, "first_sample": 2}
NONE, SUM, MEAN = range(3)
LOGVAR, LOGSTD, STD, VAR, SOFTPLUS = range(5)
LOGITS, PROBS = range(2)
VALUE, LOG, SOFTMAX = range(3)
ZERO, PASS = range(2)


def tensors(dtype, *shapes):
    return [torch.rand(shape, dtype=torch.float64).add(0.1).to(dtype) for shape in shapes]


def arguments(name, *given, needs=(), packed=(), **options):
    """A raw operator's arguments, in order: upstream gradients and operands, then options by name, then needs.

    Operands that are left out at the end are None, and options what the table says.
    """
    signature = SIGNATURES[name]
    missing = len(signature.upstream) + len(signature.operator.operands) - len(given)
    required = {"seed_tensor": None} if not signature.operator.operands else {}
    return (*given, *(None,) * missing, *signature.operator.Options(**required | options), *needs, *packed)


def served(name, *given, **options):
    """The raw operator of the backend that serves, or, for the reference, what it would register."""
    device = given[0].device if given else options["device"]
    with torch.no_grad():
        return kernel(choose(name.rsplit("_", 1)[0], device, None), name)(*arguments(name, *given, **options))


def calls(dtype, layout=lambda t: t):
    """(name, arguments) of every raw operator; operands broadcast, some dense in another order."""

    def call(name, *given, **options):
        return name, arguments(name, *given, **options)

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
    drawn = {"sample_shape": (2,), **NOISE}
    given = {"sample_shape": (2,), "noise": torch.randn(2, 2, 3, 4, 5), "temperature": 0.7}
    passing = {"low": 0.0, "high": 0.5, "bounds_grad": PASS}
    of_prior = {"prior_param": STD, "prior_param_eps": 0.1, "prior_low": 0.2, "prior_high": 0.9}
    yield call("standard_normal_fwd", sample_shape=(2,), shape=(3, 4), **NOISE, dtype=dtype, device=a.device)
    for v in (b, small):
        yield call("rsample_fwd", a, v, **drawn)
        yield call("rsample_bwd", dz, a, v, **drawn, needs=(True, v is b))
        form = {"param": SOFTPLUS, "param_eps": 0.2, "low": -1.0, "high": 1.0}
        tensor = {"sample_shape": (2,), "seed_tensor": seed}
        yield call("rsample_kl_fwd", a, v, **tensor, event_ndim=2, free_bits=0.1, **form)
        yield call("rsample_kl_bwd", dz, g, a, v, **drawn, event_ndim=2, needs=(True, True, False, False))
    free = {**drawn, "event_ndim": 2, "free_bits": 0.3}
    yield call("rsample_kl_bwd", None, g, a, b, **free, needs=(False, True, False, False))
    yield call("rsample_kl_bwd", dz, None, a, number, **free, needs=(True, False, False, False))
    yield call("rsample_fwd", a, b, **given, **passing)
    yield call("rsample_bwd", dz, a, b, **given, **passing, needs=(True, True))
    for priors, needs in (((c, d), (True,) * 4), ((None, small), (True, True, False, True))):
        yield call("rsample_kl_fwd", a, b, *priors, **given, event_ndim=2, **passing, **of_prior)
        yield call("rsample_kl_bwd", dz, g, a, b, *priors, **drawn, event_ndim=2, **of_prior, needs=needs)
    sums, path = torch.randn(2, 2, 3, dtype=wide), {"q_grad": 1}
    del given["temperature"]
    for priors, needs, more in (
        ((None, None), (True, True, False, False), {}),
        ((c, d), (True,) * 4, path | of_prior),
        ((None, small), (False, True, False, True), passing),
        ((number, None), (True, False, False, False), path),
    ):
        yield call("rsample_log_prob_fwd", a, b, *priors, **given, event_ndim=2, **more)
        yield call("rsample_log_prob_fwd", a, small, *priors, **drawn, event_ndim=2, **more)
        options = {"event_ndim": 2, **more}
        yield call("rsample_log_prob_bwd", dz, sums, sums, a, b, *priors, **drawn, **options, needs=needs)
        yield call("rsample_log_prob_bwd", None, sums, None, a, small, *priors, **given, **options, needs=needs)
        yield call("rsample_log_prob_bwd", dz, None, sums, a, b, *priors, **drawn, **options, needs=needs)
    for priors, needs in (
        ((None, None), (True, True, False, False)),
        ((c, d), (True,) * 4),
        ((number, small), (False, True, False, True)),
    ):
        kl = (a, b, *priors, mask)
        yield call("gaussian_kl_fwd", *kl, event_ndim=2, needs=needs)
        mean = {"reduction": MEAN, "scale": -2.0, "free_bits": 0.2}
        form = {"param": STD, "param_eps": 0.1, "low": 0.0, "high": 3.0}
        yield call("gaussian_kl_fwd", *kl, **mean, **form, prior_param=VAR, needs=(False,) * 4)
        yield call("gaussian_kl_bwd", g, *kl, event_ndim=2, needs=(*needs, False))
        weighted = (*kl[:-1], small)
        options = {"event_ndim": 2, **passing, **of_prior}
        yield call("gaussian_kl_bwd", g, *weighted, **options, needs=(*needs, True))
    whole = layout(torch.cat([b, c], 1))
    halves, packed = whole.chunk(2, 1), (whole, 1)
    yield call("rsample_bwd", dz, *halves, **drawn, needs=(True, True), packed=packed)
    yield call("rsample_bwd", dz, *halves, **given, needs=(True, True), packed=packed)
    needs = (True, True, False, False)
    yield call("rsample_kl_bwd", dz, g, *halves, **drawn, event_ndim=2, needs=needs, packed=packed)
    needs = (True, True, False, True)
    yield call("rsample_kl_bwd", dz, g, *halves, a, d, **drawn, event_ndim=2, needs=needs, packed=packed)
    kl = (*halves, a, d, mask)
    yield call("gaussian_kl_bwd", g, *kl, event_ndim=2, needs=(*needs, False), packed=packed)
    scaled = {"event_ndim": 2, "x_scale": 1 / 255}
    for x, need in ((c, True), (pixels, False)):
        needs = (True, True, need, False)
        yield call("gaussian_log_prob_bwd", g, *halves, x, mask, **scaled, needs=needs, packed=packed)
    for x, need in ((c, True), (pixels, False)):
        for param, positive in ((LOGITS, None), (LOGITS, small), (LOGITS, pixels), (PROBS, None)):
            bernoulli = (a, x, positive, mask)
            yield call("bernoulli_log_prob_fwd", *bernoulli, **scaled, param=param, needs=(True, need))
            yield call("bernoulli_log_prob_bwd", g, *bernoulli, **scaled, param=param, needs=(True, need, False))
        mean = {"reduction": MEAN, "scale": -1.0, "param": PROBS}
        yield call("bernoulli_log_prob_bwd", one, a, x, None, b, **mean, needs=(False, need, True))
        gaussian = (a, small, x, None)
        yield call("gaussian_log_prob_fwd", *gaussian, **scaled, needs=(True, True, need))
        yield call("gaussian_log_prob_bwd", g, *gaussian, **scaled, needs=(True, True, need, False))
        form = {"param": SOFTPLUS, "param_eps": 0.1, "low": -1.0, "high": 1.0}
        total = {"reduction": SUM, "scale": -1.0, **form}
        yield call("gaussian_log_prob_bwd", one, a, small, x, b, **total, needs=(True, True, need, True))
        of_scale = (a, small, x, mask)
        for param in (VALUE, LOG):
            yield call("laplace_log_prob_fwd", *of_scale, **scaled, param=param, needs=(True, True, need))
            yield call("laplace_log_prob_bwd", g, *of_scale, **scaled, param=param, needs=(True, True, need, False))
            of_df = (a, small, b, x, mask)
            needs = (True, True, True, need)
            yield call("student_t_log_prob_fwd", *of_df, **scaled, param=param, needs=needs)
            yield call("student_t_log_prob_bwd", g, *of_df, **scaled, param=param, needs=(*needs, False))
        yield call("continuous_bernoulli_log_prob_fwd", a, x, mask, **scaled, needs=(True, need))
        mean = {"reduction": MEAN, "scale": -1.0}
        yield call("continuous_bernoulli_log_prob_bwd", one, a, x, b, **mean, needs=(False, need, True))
    yield from count_calls(dtype, layout)


def count_calls(dtype, layout):
    """The same of the count densities; the last call of each has all operands."""
    mean, pi, weight = map(layout, tensors(dtype, *((2, 3, 4, 5),) * 3))
    small, library = tensors(dtype, (5,), (2, 3, 1, 1))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = torch.randint(-6, 13, (2, 3, 4, 5)).clamp(min=0)
    mask = torch.rand(2, 3, 4, 1) < 0.5
    g, one = torch.randn(2, 3, dtype=wide), torch.ones((), dtype=wide)
    rows, total = {"event_ndim": 2}, {"reduction": MEAN, "scale": -1.0, "eps": 0.01}
    log = {"param": LOG, "theta_param": LOG}
    counts = [layout(drawn.to(d)) for d in (dtype, torch.uint8, torch.int16, torch.int32, torch.int64)]
    for x in (layout(drawn > 0), *counts):
        yield "poisson_log_prob_fwd", arguments("poisson_log_prob_fwd", small, x, mask, **rows, needs=(True,))
        given, options = (one, mean, x, weight), {**total, "param": LOG}
        yield "poisson_log_prob_bwd", arguments("poisson_log_prob_bwd", *given, **options, needs=(True, True))
    shares = rows | {"param": SOFTMAX}
    for x, others, options, needs in (
        (counts[0], (None, None, mask), rows, (True, True, False, False, False)),
        (counts[1], (pi, None, weight), log | total, (True, False, True, False, True)),
        (counts[2], (None, None, None), shares, (True, True, False, False, False)),
        (counts[3], (pi, library, mask), shares | {"eps": 0.01}, (False, True, True, True, False)),
        (counts[4], (pi, library, weight), shares, (True,) * 5),
    ):
        *parameters, w = others
        operands, upstream = (mean, small, *parameters, x, w), one if options.get("reduction") == MEAN else g
        name = "negative_binomial_log_prob_fwd"
        yield name, arguments(name, *operands, **options, needs=needs[:-1])
        name = "negative_binomial_log_prob_bwd"
        yield name, arguments(name, upstream, *operands, **options, needs=needs)


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
        # Of equal shares gradients cancel: what the arithmetic's rounding leaves of them is not compared.
        least = max(tolerance * float(size), torch.finfo(torch.promote_types(got.dtype, torch.float32)).eps)
        torch.testing.assert_close(got, want, rtol=tolerance, atol=least, equal_nan=True, msg=str(call))

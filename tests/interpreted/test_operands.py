"""What the Triton launchers make of their operands: a dtype of its own for each, weights with gradients, bytes that
are bools, and arguments that do not go together.
"""

import math

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.calls import BERNOULLI, DENSITIES, GAUSSIAN, KL, KL_PRIOR, PROBS, RSAMPLE, RSAMPLE_KL, same_bits
from helpers.marks import each_sampler
from vae_fast.triton_kernels import early, launch, layout

pytestmark = pytest.mark.usefixtures("small_tiles")

HALF, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
INF, NAN = math.inf, math.nan
SHAPE, SHORT = (2, 70), (2, 20)


def drawn(call, shapes, dtypes):
    """Operands between 0.2 and 0.8, which all of them can be, that require gradients."""
    return [
        (torch.rand(shape, dtype=F64) * 0.6 + 0.2).to(dtype).requires_grad_()
        for _, shape, dtype in zip(call.operands, shapes, dtypes, strict=True)
    ]


def results(call, tensors, backend, upstream, **options):
    """Results and gradients, that of the weight last; ``upstream`` makes a result's upstream gradient."""
    weight = options.get("weight")
    outs = call(*tensors, backend=backend, **options)
    wanted = [t for t in (*tensors, weight) if isinstance(t, torch.Tensor) and t.requires_grad]
    grads = torch.autograd.grad(outs, wanted, [upstream(out) for out in outs])
    return [out.detach() for out in outs], list(grads)


def agree(call, tensors, upstream=None, tolerance=2e-6, **options):
    """Triton's results and gradients against the reference's of the same values in float64; both are returned."""
    wide = [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]
    true = dict(options)
    if isinstance(options.get("weight"), torch.Tensor):
        weight = options["weight"]
        true["weight"] = weight.detach().double().requires_grad_(weight.requires_grad)
    given = []

    def narrow(out):
        given.append((upstream or torch.randn_like)(out))
        return given[-1]

    got = results(call, tensors, "triton", narrow, **options)
    again = iter(given)
    want = results(call, wide, "reference", lambda out: next(again).to(out.dtype), **true)
    for a, b in zip(sum(got, []), sum(want, []), strict=True):
        scale = max(1.0, b.nan_to_num(0.0, 0.0, 0.0).abs().max().item()) if b.numel() else 1.0
        own = max(tolerance, 2 * torch.finfo(a.dtype).eps)
        assert_close(a.double(), b, rtol=0, atol=own * scale, equal_nan=True)
    return got


class TestDtypes:
    @pytest.mark.parametrize(
        ("call", "dtypes", "shapes", "result"),
        (
            (GAUSSIAN, (HALF, F32, F32), (SHAPE, (), SHAPE), F32),
            (GAUSSIAN, (BF16, F32, F64), (SHAPE, (70,), (2, 1)), F32),
            (GAUSSIAN, (HALF, BF16, F32), (SHAPE, SHAPE, SHAPE), F32),
            (GAUSSIAN, (F32, F64, HALF), (SHAPE, (70,), SHAPE), F64),
            (BERNOULLI, (HALF, F32), (SHAPE, SHAPE), F32),
            (BERNOULLI, (F32, F64), ((2, 1), SHAPE), F32),
            (PROBS, (BF16, F32), ((70,), SHAPE), F32),
            (KL, (F32, BF16), ((), SHAPE), F32),
            (KL_PRIOR, (HALF, F32, BF16, F32), (SHAPE, (2, 1), SHAPE, ()), F32),
            (KL_PRIOR, (HALF, HALF, F64, F32), (SHAPE, SHAPE, (70,), ()), F64),
        ),
        ids=str,
    )
    @pytest.mark.parametrize("reduction", ("none", "mean"))
    def test_densities(self, call, dtypes, shapes, result, reduction):
        tensors = drawn(call, shapes, dtypes)
        (out,), grads = agree(call, tensors, reduction=reduction)
        assert out.dtype == result
        assert [g.dtype for g in grads] == list(dtypes)

    @pytest.mark.parametrize(
        ("dtypes", "shapes", "result"),
        (
            ((HALF, F32), (SHORT, ()), HALF),
            ((HALF, F32), (SHORT, (20,)), F32),
            ((F32, BF16), ((2, 1), SHORT), F32),
            ((F32, HALF), ((), SHORT), HALF),
            ((BF16, HALF), (SHORT, SHORT), F32),
            ((F32, F64), (SHORT, (2, 1)), F64),
        ),
        ids=str,
    )
    @each_sampler
    def test_samplers(self, call, dtypes, shapes, result):
        tensors = drawn(call, shapes, dtypes)
        (z, *kl), grads = agree(call, tensors, sample_shape=() if call is RSAMPLE_KL else (3,))
        assert z.dtype == result and [k.dtype for k in kl] == [F64 if result == F64 else F32] * len(kl)
        assert [g.dtype for g in grads] == list(dtypes)

    def test_a_scalar_s_gradient_beside_half_operands(self):
        """As in latent diffusion under a gradient scaler: float16 would overflow, and rounds to three digits."""
        mean, x = torch.rand(4, 70).half(), torch.rand(4, 70)
        logvar = torch.tensor(-6.0, requires_grad=True)
        options = {"reduction": "mean", "scale": -1.0, "backend": "triton"}
        (got,) = torch.autograd.grad(vf.gaussian_log_prob(mean, logvar, x, **options) * 65536, logvar)
        wide = logvar.detach().double().requires_grad_()
        options["backend"] = "reference"
        (want,) = torch.autograd.grad(
            vf.gaussian_log_prob(mean.double(), wide, x.double(), **options) * 65536, wide
        )
        assert got.isfinite() and got.abs() > 65536
        assert_close(got.double(), want, rtol=1e-6, atol=0)

    def test_no_operand_is_copied(self, monkeypatch):
        """Whatever dtypes meet, the kernel gets the tensors themselves."""
        seen, run = [], launch.run
        monkeypatch.setattr(
            launch, "run", lambda k, p, d, args, *more: seen.append(args) or run(k, p, d, args, *more)
        )
        tensors = drawn(GAUSSIAN, (SHAPE, (70,), SHAPE), (HALF, F32, F64))
        weight = torch.rand(SHAPE).bfloat16()
        GAUSSIAN(*tensors, weight=weight, backend="triton")
        RSAMPLE(*tensors[:2], backend="triton")
        flat = [[a for arg in args for a in (arg if isinstance(arg, tuple) else (arg,))] for args in seen]
        pointers = [{a.data_ptr() for a in args if isinstance(a, torch.Tensor)} for args in flat]
        assert all(t.data_ptr() in pointers[0] for t in (*tensors, weight))
        assert all(t.data_ptr() in pointers[-1] for t in tensors[:2])

    def test_float64_is_computed_in_small_tiles(self, launched):
        """Of as many registers as float64 operands alone."""
        x = torch.rand(SHAPE, dtype=F64)
        GAUSSIAN(torch.rand(SHAPE), torch.rand(SHAPE), x, reduction="sum", backend="triton")
        GAUSSIAN(x, x, x, reduction="sum", backend="triton")
        tiles = [c["BLOCK_ROWS"] * c["BLOCK_COLUMNS"] for _, _, c in launched]
        assert tiles == [32, 32] and {c["T"] for _, _, c in launched} == {launch.tl.float64}
        assert [c["VEC"] for _, _, c in launched] == [4, 2]


# Counts, which have no gradient, are test_counts.py's.
each_of_numbers = pytest.mark.parametrize("call", [c for c in DENSITIES if not c.counted], ids=str)


class TestWeights:
    @pytest.mark.parametrize("size", (SHAPE, (70,), (2, 1), ()), ids=str)
    @pytest.mark.parametrize("call", (BERNOULLI, PROBS, GAUSSIAN, KL, KL_PRIOR), ids=str)
    def test_gradient(self, call, size):
        weight = torch.randn(size, dtype=F64).float().requires_grad_()
        tensors = drawn(call, [SHAPE] * len(call.operands), [F32] * len(call.operands))
        for reduction in ("none", "sum"):
            agree(call, tensors, weight=weight, reduction=reduction, scale=0.5)

    def test_gradient_alone(self):
        weight = torch.rand(70, dtype=BF16).requires_grad_()
        tensors = [t.detach() for t in drawn(KL, [SHAPE] * 2, [F32] * 2)]
        _, grads = agree(KL, tensors, weight=weight, free_bits=0.1)
        assert [g.dtype for g in grads] == [BF16]

    @pytest.mark.parametrize("call", (KL, KL_PRIOR), ids=str)
    def test_gradient_is_the_floor_s_where_the_kl_is_below_it(self, call):
        weight = torch.rand(SHAPE, requires_grad=True)
        tensors = drawn(call, [SHAPE] * len(call.operands), [F32] * len(call.operands))
        floor = 0.1
        _, grads = agree(call, tensors, weight=weight, free_bits=floor)
        ones = torch.autograd.grad(
            call(*tensors, weight=weight, free_bits=floor, backend="triton")[0].sum(), weight
        )
        at_floor = ones[0] == torch.tensor(floor)
        assert at_floor.any() and not at_floor.all()

    @each_of_numbers
    @pytest.mark.parametrize("value", (0.5, NAN, INF))
    def test_at_0(self, call, value):
        """∂/∂w is the term of the operands as they are, NaN where they are; all else is 0."""
        weight = torch.ones(SHAPE)
        hidden = [(k % 2, 3 + 20 * k) for k in range(len(call.operands))]
        tensors = [t.detach() for t in drawn(call, [SHAPE] * len(hidden), [F32] * len(hidden))]
        for (row, column), t in zip(hidden, tensors, strict=True):
            weight[row, column], t[row, column] = -0.0 if row else 0.0, value
        tensors = [t.requires_grad_() for t in tensors]
        outs, grads = agree(call, tensors, weight=weight.requires_grad_(), upstream=torch.ones_like)
        assert outs[0].isfinite().all()
        *grads, dweight = grads
        at = tuple(torch.tensor(hidden).T)
        assert all((g[at] == 0).all() and g.isfinite().all() for g in grads)
        assert (dweight[at] != 0).all() and (value == value or dweight[at].isnan().all())
        plain = [t.detach().requires_grad_() for t in tensors]
        assert same_bits(results(call, plain, "triton", torch.ones_like, weight=weight.detach())[1], grads)

    @each_of_numbers
    @pytest.mark.parametrize("upstream", (NAN, INF, -INF))
    @pytest.mark.parametrize("need", (False, True))
    def test_0_under_an_upstream_gradient_that_is_not_finite(self, call, upstream, need):
        weight = torch.ones(SHAPE)
        weight[:, 3] = 0.0
        weight[1] = 0.0
        weight.requires_grad_(need)
        tensors = drawn(call, [SHAPE] * len(call.operands), [F32] * len(call.operands))
        outs, grads = results(call, tensors, "triton", lambda out: torch.full_like(out, upstream), weight=weight)
        for g in grads[: len(tensors)]:
            assert (g[weight == 0] == 0).all()
            assert not g[weight != 0].isfinite().any()
        if need:
            assert not grads[-1].isfinite().any()

    def test_0_hides_an_infinite_slope(self):
        """σ = 0 by the bounds: the term is infinite whatever the operands."""
        tensors = drawn(GAUSSIAN, [SHAPE] * 3, [F32] * 3)
        (out,), grads = results(
            GAUSSIAN, tensors, "triton", torch.ones_like, weight=torch.zeros(SHAPE), param="std", bounds=(-1.0, 0.0)
        )
        assert all((g == 0).all() for g in (out, *grads))


class TestBools:
    @pytest.mark.parametrize(
        "laid_out",
        (
            lambda b: b,
            lambda b: torch.stack([b, b], -1)[..., 1],
            lambda b: b.T.contiguous().T,
            lambda b: b[:, :1],
            lambda b: b[0, 0],
        ),
        ids=("dense", "strided", "transposed", "datum", "scalar"),
    )
    @pytest.mark.parametrize("call", (BERNOULLI, GAUSSIAN), ids=str)
    def test_any_byte_but_0_is_true(self, call, laid_out):
        values = torch.tensor([255, 0, 1, 2, 77, 128, 0, 64, 254], dtype=torch.uint8)
        data = laid_out(values[torch.arange(140).remainder(9)].view(SHAPE))
        tensors = [t.detach() for t in call.draw(SHAPE)]
        for reduction in ("none", "sum"):
            got, want = (
                call(*tensors[:-1], x, weight=x, reduction=reduction, backend=b)[0]
                for x, b in ((data.view(torch.bool), "triton"), ((data != 0).float(), "reference"))
            )
            assert_close(got, want)

    def test_bytes_are_numbers(self):
        x = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
        mean = torch.randn(SHAPE)
        got = vf.gaussian_log_prob(mean, 0.0, x, weight=x, x_scale=0.01, backend="triton")
        assert_close(
            got, vf.gaussian_log_prob(mean, 0.0, x.float(), weight=x.float(), x_scale=0.01, backend="reference")
        )


class TestArgumentsThatDoNotGoTogether:
    @each_of_numbers
    def test_data_given_anew_before_the_backward_pass(self, call):
        for shape in ((4000, 3), (5, 4, 3), (4, 5)):
            for k in range(len(call.operands)):
                leaves = call.draw((1, 3)) if shape == (4000, 3) else call.draw((4, 3))
                (out,) = call(*leaves, backend="triton")
                leaves[k].data = torch.ones(shape)
                with pytest.raises(ValueError, match="shape"):
                    (out * torch.rand(len(out))).sum().backward()

    @each_sampler
    def test_a_sampler_s_data_given_anew(self, call):
        for shape in ((4000, 3), (2, 4, 3), (4, 5)):
            for k in range(2):
                leaves = call.draw((1, 3)) if shape == (4000, 3) else call.draw((4, 3))
                outs = call(*leaves, backend="triton")
                leaves[k].data = torch.ones(shape)
                with pytest.raises(ValueError, match="shape"):
                    sum(out.sum() for out in outs).backward()

    def test_another_dtype_before_the_backward_pass(self):
        mu, logvar = KL.draw((4, 3))
        kl = vf.gaussian_kl(mu, logvar, backend="triton")
        logvar.data = torch.zeros(4, 3, dtype=torch.complex64)
        with pytest.raises(TypeError, match="complex64"):
            kl.sum().backward()

    def test_more_elements_than_64_bits_count(self):
        a, b = torch.zeros(1, 1).expand(2**32, 1), torch.zeros(1, 1).expand(1, 2**32)
        for call in (lambda: vf.gaussian_kl(a, b, reduction="sum", backend="triton"),
                     lambda: vf.bernoulli_log_prob(a, b, reduction="sum", backend="triton"),
                     lambda: vf.rsample(a, b, seed=1, backend="triton")):  # fmt: skip
            with pytest.raises(ValueError, match="64 bits"):
                call()

    @pytest.mark.parametrize("shape", ((0, 3), (3, 0)), ids=str)
    @pytest.mark.parametrize("samples", ((5, 5), (0, 5), (5, 0)), ids=str)
    def test_samples_of_nothing(self, shape, samples):
        mu = torch.zeros(shape, requires_grad=True)
        z = vf.rsample(mu, 0.0, samples, seed=1, backend="triton")
        (z.sum(0) * torch.ones(samples[1], *shape)).sum().backward()
        assert mu.grad.shape == shape and mu.grad.numel() == 0

    @pytest.mark.parametrize("call", (RSAMPLE, RSAMPLE_KL), ids=str)
    def test_no_samples(self, call):
        for samples in ((0,), (5, 0), (0, 5)):
            outs, grads = results(call, call.draw((2, 3)), "triton", torch.ones_like, sample_shape=samples)
            _, want = results(call, call.draw((2, 3)), "triton", torch.ones_like, sample_shape=())
            assert outs[0].shape == (*samples, 2, 3)
            assert (grads[0] == 0).all() == (call is RSAMPLE) and len(want) == len(grads)


class TestEarlyGradients:
    @pytest.mark.parametrize("upstream", (F32, F64), ids=str)
    def test_each_in_its_dtype(self, upstream):
        grads = [torch.randn(3, 70, dtype=dtype) for dtype in (HALF, F64, BF16, F32)]
        factor = torch.tensor(1.0009765625 / 3, dtype=upstream)
        want = [g.double() * factor.double() for g in grads]
        early.rescale(grads, factor)
        assert [g.dtype for g in grads] == [HALF, F64, BF16, F32]
        for got, exact in zip(grads, want, strict=True):
            assert_close(got.double(), exact, rtol=0.5001 * torch.finfo(got.dtype).eps, atol=0)

    def test_more_elements_than_programs_have_at_once(self, monkeypatch):
        monkeypatch.setattr(early, "MOST_PROGRAMS", 2)
        grad = torch.randn(333)
        want = grad * 3.0
        early.rescale([grad], torch.tensor(3.0))
        assert same_bits([grad], [want])


def test_layouts_have_room_for_the_arithmetic():
    """A tile is counted in the type computed in, an access in the parameters' least."""
    assert layout.tile_of(4096, 8) == 512 and layout.tile_of(4096, 4) == layout.tile_of(4096, 2) == 1024


@pytest.mark.parametrize("event_ndim", (0, 1, 2))
@pytest.mark.parametrize("call", (BERNOULLI, PROBS, GAUSSIAN, KL), ids=str)
def test_operands_that_repeat_a_number(call, event_ndim):
    """Expanded operands, of which one lies otherwise than the others: a copy has each number once."""
    shapes = [(1, 1, 2, 1), (2, 2, 2, 1), (1, 2, 2, 1)]
    expanded = [(1, 1, 2, 2), (2, 2, 2, 1), (2, 2, 2, 1)]
    n = len(call.operands)
    pairs = zip(drawn(call, shapes[:n], [F32] * n), expanded, strict=False)
    agree(call, [t.detach().expand(shape).requires_grad_() for t, shape in pairs], event_ndim=event_ndim)

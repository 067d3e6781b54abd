"""The samplers' kernels of calls that have more: the caller's own noise, a temperature, a prior of the KL."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.calls import same_bits
from helpers.named import compare
from vae_fast.triton_kernels import operators, walk

pytestmark = pytest.mark.usefixtures("small_tiles")

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Rows of 8 to a tile of 64, in two tiles, at no multiple of four elements, one row that is cut.
SHORT, LONG, ODD, SPLIT = (11, 8), (2, 72), (3, 7), (1, 140)
SAMPLERS = (vf.rsample, vf.rsample_kl)


def draw(shape, dtype=torch.float32, grad=True):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(grad)


def moments(shape, dtype=torch.float32):
    return {"mu": draw(shape, dtype), "logvar": draw(shape, dtype)}


LAYOUTS = {
    "dense": lambda t: t,
    "transposed": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided": lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0],
    "cut": lambda t: torch.nn.functional.pad(t, (1, 2), value=torch.nan)[..., 1:-2],
    "of one element": lambda t: t[(0,) * t.ndim].expand(t.shape),
    "of one sample": lambda t: t[:1].expand(t.shape),
    "negative": lambda t: torch._neg_view(-t),
}


@pytest.mark.parametrize("function", SAMPLERS)
class TestNoise:
    @pytest.mark.parametrize("shape", (SHORT, LONG, ODD, SPLIT), ids=str)
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_of_every_shape_and_dtype(self, function, shape, dtype, launched):
        compare(function, moments(shape, dtype), noise=draw(shape, dtype, False))
        assert [name for name, _, _ in launched if name in ("forward", "backward")] == []
        assert all(c["ALIGNED"] for name, _, c in launched if name.endswith("of_more"))

    @pytest.mark.parametrize("laid_out", LAYOUTS.values(), ids=LAYOUTS)
    @pytest.mark.parametrize("samples", ((), (3,), (2, 3)), ids=str)
    def test_of_any_strides(self, function, laid_out, samples):
        compare(function, moments(SHORT), sample_shape=samples, noise=laid_out(torch.randn(*samples, *SHORT)))

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("own", (torch.float32, torch.bfloat16, torch.float64), ids=str)
    def test_of_another_dtype(self, function, own, dtype):
        """It decides no result's dtype, and is read as it is."""
        noise = draw((2, *SHORT), dtype, False)
        (z, *_), _ = compare(function, moments(SHORT, own), sample_shape=(2,), noise=noise)
        assert z.dtype == own

    @pytest.mark.parametrize("draws", (16, 17))
    def test_of_groups_of_samples(self, function, draws, launched):
        compare(function, moments(SHORT), sample_shape=(draws,), noise=torch.randn(draws, *SHORT))
        assert [c["GROUPED"] for name, _, c in launched if name == "backward_of_more"] == [True]

    @pytest.mark.parametrize("step", (16, 18, 20))
    def test_of_samples_of_any_stride(self, function, step, launched):
        """From one sample to the next, elements that 16 bytes divide or not."""
        noise = torch.randn(100).as_strided((3, 2, 8), (step, 8, 1))
        compare(function, moments((2, 8)), sample_shape=(3,), noise=noise)
        assert {c["VEC"] for name, _, c in launched if name.endswith("of_more")} == {4 if step % 4 == 0 else 1}

    @pytest.mark.parametrize("size", ((8,), (11, 1), ()), ids=str)
    def test_of_broadcast_moments(self, function, size):
        compare(function, {"mu": draw(SHORT), "logvar": draw(size)}, noise=torch.randn(SHORT))
        compare(function, {"mu": draw(size), "logvar": draw(SHORT)}, noise=torch.randn(SHORT))

    @pytest.mark.parametrize("samples", ((0,), (2, 0)), ids=str)
    def test_of_no_samples(self, function, samples):
        compare(function, moments(SHORT), sample_shape=samples, noise=torch.randn(*samples, *SHORT))

    @pytest.mark.parametrize("shape", ((0, 3), (3, 0), ()), ids=str)
    def test_of_nothing_and_of_one_number(self, function, shape):
        options = {"event_ndim": 0} if function is vf.rsample_kl else {}
        compare(function, moments(shape), noise=torch.randn(shape), **options)

    def test_whatever_the_seed_and_offset(self, function):
        """Of a raw call, which has them too."""
        mu, logvar, noise = torch.randn(SHORT), torch.randn(SHORT), torch.randn(SHORT)
        name = function.__name__
        options = vf.operators.OPERATORS[name].Options(seed=3, offset=5, first_sample=2, noise=noise)
        prior = () if function is vf.rsample else (None, None)
        out = getattr(operators.KERNELS, f"{name}_fwd")(mu, logvar, *prior, *options)
        z, *_ = out if isinstance(out, tuple) else (out,)
        assert_close(z, mu + torch.exp(0.5 * logvar) * noise)

    def test_is_the_seed_s(self, function):
        """The seed's noise, given, makes the bits that the seed makes."""
        tensors = moments(LONG)
        noise = vf.standard_normal(LONG, seed=9)
        for temperature in (1.0, 0.7):
            outs = [
                function(**tensors, temperature=temperature, backend="triton", **source)
                for source in ({"seed": 9}, {"noise": noise})
            ]
            outs = [out if isinstance(out, tuple) else (out,) for out in outs]
            assert same_bits(*outs)
            grads = [torch.autograd.grad([o.sum() for o in out], tensors.values()) for out in outs]
            assert same_bits(*grads)

    def test_is_refused(self, function):
        tensors, fwd = moments(SHORT), getattr(operators.KERNELS, f"{function.__name__}_fwd")
        prior = () if function is vf.rsample else (None, None)
        record = vf.operators.OPERATORS[function.__name__].Options
        for noise, error in ((torch.randn(8), ValueError), (torch.ones(SHORT, dtype=torch.int32), TypeError)):
            with pytest.raises(error, match="noise"):
                fwd(*tensors.values(), *prior, *record(noise=noise))


@pytest.mark.parametrize("function", SAMPLERS)
class TestTemperature:
    @pytest.mark.parametrize(
        ("dtype", "param"), [*((dtype, "logvar") for dtype in FLOATS), (torch.float32, "softplus")], ids=str
    )
    def test_of_every_dtype(self, function, param, dtype):
        """Of the sample alone: the KL has none."""
        compare(function, moments(LONG, dtype), seed=3, temperature=0.7, param=param, param_eps=0.125)

    @pytest.mark.parametrize(("samples", "offset"), (((3,), 0), ((3,), 3), ((16,), 3)), ids=str)
    def test_of_samples(self, function, samples, offset):
        compare(function, moments(ODD), sample_shape=samples, seed=3, offset=offset, temperature=1.5)

    def test_of_0_and_1(self, function, launched):
        tensors = moments(SHORT)
        outs = [function(**tensors, seed=3, temperature=t, backend="triton") for t in (0.0, 1.0)]
        z, plain = (out[0] if isinstance(out, tuple) else out for out in outs)
        assert torch.equal(z, tensors["mu"])
        # As if it had not been said.
        assert [name for name, _, _ in launched] == ["forward_of_more", "forward"]
        want = function(**tensors, seed=3, backend="triton")
        assert same_bits([plain], [want[0] if isinstance(want, tuple) else want])


def prior(mu, logvar, dtype=torch.float32):
    """Of the sizes given; None is none of that."""
    sizes = {"prior_mu": mu, "prior_logvar": logvar}
    return {name: draw(size, dtype) for name, size in sizes.items() if size is not None}


SIZES = (LONG, (72,), (2, 1), (), (1, 72), None)


class TestPrior:
    @pytest.mark.parametrize(
        ("mu", "logvar"), [(SIZES[k], SIZES[(k + j) % 6]) for k in range(6) for j in (0, 1, 3)]
    )
    def test_of_every_size(self, mu, logvar):
        """A prior a feature, a datum or altogether has its gradients in its own shape."""
        compare(vf.rsample_kl, moments(LONG) | prior(mu, logvar), seed=1)

    @pytest.mark.parametrize("size", ((3, 1, 1), (4, 1), (2, 1, 4, 9)), ids=str)
    def test_of_three_dims(self, size):
        compare(vf.rsample_kl, moments((2, 3, 4, 9)) | prior(size, size), seed=1, event_ndim=3)
        compare(vf.rsample_kl, moments((2, 3, 4, 9)) | prior(size, size), seed=1, event_ndim=1)

    @pytest.mark.parametrize("shape", (SHORT, ODD, SPLIT), ids=str)
    @pytest.mark.parametrize(
        ("dtype", "offset"),
        ((torch.float32, 0), (torch.float32, 3), (torch.bfloat16, 3), (torch.float64, 0)),
        ids=str,
    )
    def test_of_every_alignment(self, shape, offset, dtype):
        operands = moments(shape, dtype) | prior(shape, shape[1:], dtype)
        compare(vf.rsample_kl, operands, seed=1, offset=offset, free_bits=0.2)

    @pytest.mark.parametrize(
        ("size", "samples"),
        [*((size, (3,)) for size in (SHORT, (8,), (11, 1), ())), (SHORT, (16,)), ((8,), (2, 8)), ((), (0,))],
        ids=str,
    )
    def test_beside_samples(self, size, samples, launched):
        operands = moments(SHORT) | prior(size, size)
        compare(vf.rsample_kl, operands, seed=1, sample_shape=samples, temperature=0.5)
        grouped = {c["GROUPED"] for name, _, c in launched if name == "backward_of_more"}
        assert grouped == {samples in ((16,), (2, 8))}

    @pytest.mark.parametrize(
        ("own", "of_prior"),
        ((torch.bfloat16, torch.float32), (torch.float16, torch.float64), (torch.float64, torch.bfloat16)),
        ids=str,
    )
    def test_of_another_dtype(self, own, of_prior):
        """z has that of mu and logvar, the KL that of all; each gradient its operand's."""
        (z, kl), grads = compare(vf.rsample_kl, moments(LONG, own) | prior(LONG, (72,), of_prior), seed=1)
        assert z.dtype == own
        assert kl.dtype == (torch.float64 if torch.float64 in (own, of_prior) else torch.float32)
        assert [g.dtype for g in grads.values()] == [own, own, of_prior, of_prior]

    @pytest.mark.parametrize("param", ("logvar", "logstd", "std", "var", "softplus"))
    def test_of_every_form(self, param):
        operands = moments(LONG) | prior(LONG, (72,))
        for name in ("logvar", "prior_logvar"):
            operands[name] = (operands[name].detach().abs() + 0.25).requires_grad_()
        compare(vf.rsample_kl, operands, seed=1, param=param, param_eps=0.125, bounds=(0.5, 1.5))

    def test_of_numbers(self, launched):
        operands = moments(LONG) | {"prior_mu": 0.25, "prior_logvar": -0.5}
        compare(vf.rsample_kl, operands, seed=1)
        assert all(c["MODES"][2:4] == (walk.NUMBER,) * 2 for n, _, c in launched if n.endswith("of_more"))

    @pytest.mark.parametrize("laid_out", [*LAYOUTS.values()][1:4], ids=[*LAYOUTS][1:4])
    def test_of_any_strides(self, laid_out):
        operands = {
            name: laid_out(t.detach()).requires_grad_()
            for name, t in (moments((11, 12)) | prior((11, 12), (11, 12))).items()
        }
        compare(vf.rsample_kl, operands, seed=1)

    def test_without_its_upstream_gradients(self):
        """z's gradient alone leaves the prior 0, the KL's is the KL's."""
        for k in range(2):
            operands = moments(LONG) | prior(LONG, (72,))
            got, want = (
                torch.autograd.grad(vf.rsample_kl(**operands, seed=1, backend=b)[k].sum(), operands.values())
                for b in ("triton", "reference")
            )
            for a, b in zip(got, want, strict=True):
                assert_close(a, b, rtol=2e-5, atol=2e-5)

    def test_that_alone_is_differentiated(self):
        operands = moments(LONG) | prior(LONG, LONG)
        operands |= {name: operands[name].detach() for name in ("mu", "logvar")}
        compare(vf.rsample_kl, operands, seed=1)

    def test_of_more_elements_is_refused(self):
        raw = operators.KERNELS.rsample_kl_fwd
        record = vf.operators.OPERATORS["rsample_kl"].Options
        with pytest.raises(ValueError, match="prior"):
            raw(torch.randn(72), torch.randn(72), torch.randn(2, 72), None, *record())

    @pytest.mark.parametrize("shape", ((0, 5), (5, 0)), ids=str)
    def test_of_nothing(self, shape):
        compare(vf.rsample_kl, moments(shape) | prior(shape[1:], ()), seed=1)

    def test_kl_is_gaussian_kl_s(self):
        """Bit for bit: one formula, in tiles of one shape."""
        operands = moments(LONG) | prior(LONG, (72,))
        for form in ({}, {"prior_param": "softplus", "prior_param_eps": 0.125}):
            _, kl = vf.rsample_kl(**operands, seed=1, backend="triton", **form)
            assert same_bits([kl], [vf.gaussian_kl(**operands, backend="triton", **form)])


def test_all_at_once():
    noise = torch.randn(48, *SHORT, dtype=torch.float16)[::3].transpose(0, 0)
    compare(
        vf.rsample_kl,
        moments(SHORT) | prior((8,), (11, 1)),
        noise=noise,
        sample_shape=(16,),
        temperature=0.8,
        free_bits=0.1,
        param="softplus",
        bounds=(-1.0, 1.0),
        bounds_grad="pass",
        prior_param="logstd",
        prior_bounds=(None, 0.5),
    )

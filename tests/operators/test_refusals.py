"""What must raise, or return, and not crash, hang or be silent: data swapped under autograd, empty ranks."""

import signal

import pytest
import torch

import vae_fast as vf
from helpers.calls import BERNOULLI, GAUSSIAN, INFLATED, KL, POISSON, RSAMPLE
from helpers.marks import each_backend, each_call, each_density, each_sampler, needs_native
from helpers.raw_calls import SUM, arguments

pytestmark = each_backend


def call(name, *given, **options):
    """A raw operator."""
    return getattr(torch.ops.vae_fast, name)(*arguments(name, *given, **options))


def draw(sample_shape=(), shape=(), dtype=torch.float32):
    place = {"sample_shape": sample_shape, "shape": shape, "dtype": dtype, "device": torch.device("cpu")}
    return call("standard_normal_fwd", **place, seed=1, offset=0, first_sample=0)


@pytest.fixture
def soon():
    """A hang is an error: after 20 s an alarm interrupts the test."""

    def late(*_):
        raise TimeoutError("a call hangs")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


class TestSwappedData:
    """``tensor.data = …`` between the passes, where autograd does not look."""

    @pytest.mark.parametrize("rows", [4_000_000, 3, 0])
    def test_of_another_shape(self, rows, backend):
        mu = torch.nn.Parameter(torch.zeros(4, 3))
        kl = vf.gaussian_kl(mu, torch.zeros(3))
        mu.data = torch.ones(rows, 3)
        with pytest.raises((ValueError, RuntimeError)) as caught:
            (kl * torch.rand(4)).sum().backward()
        if backend == "native":
            assert f"dkl has shape (4,), and not ({rows},) as the result has" in str(caught.value)

    @each_call
    def test_of_any_operand(self, call, backend):
        if backend != "native":
            pytest.skip("formulas that broadcast what fits, or a GPU's")
        for k in range(len(call.operands)):
            tensors = call.draw((6, 5))
            outs = call(*tensors)
            tensors[k].data = torch.rand(50, 6, 5)
            with pytest.raises((ValueError, RuntimeError)):
                torch.autograd.grad(outs, call.wanted(tensors), [torch.rand_like(out) for out in outs])

    @each_call
    def test_of_fewer_dims_or_another_dtype(self, call):
        """Nothing is read that is not there; what fits has a gradient."""
        for k in range(len(call.operands)):
            for value in (torch.rand(5), torch.rand(()), torch.rand(6, 5, dtype=torch.float64)):
                tensors = call.draw((6, 5))
                outs = call(*tensors)
                tensors[k].data = value
                others = [t for t in call.wanted(tensors) if t is not tensors[k]]
                try:
                    grads = torch.autograd.grad(outs, others, [torch.rand_like(out) for out in outs])
                except (ValueError, RuntimeError):
                    continue
                assert all(g.shape == t.shape for g, t in zip(grads, others, strict=True))


class TestFreedMemory:
    @each_call
    def test_storage_resized_to_nothing(self, call, backend):
        """As frameworks that shard parameters do; PyTorch's own operations read beyond it."""
        if backend != "native":
            pytest.skip("made of others' operations, or on a GPU")
        for k in range(len(call.operands)):
            tensors = [t.detach() for t in call.draw((6, 5))]
            tensors[k].untyped_storage().resize_(0)
            with pytest.raises(ValueError, match=f"{call.operands[k]} of shape .* outside its memory"):
                call(*tensors)


@pytest.mark.usefixtures("soon")
class TestNothing:
    """Shapes without elements, whatever their other dims."""

    def test_a_rank_whose_share_is_empty(self):
        mu = torch.zeros(0, 3, requires_grad=True)
        z = vf.rsample(mu, 0.0, (5, 5), seed=1)
        (z.sum(0) * torch.ones(5, 0, 3)).sum().backward()
        assert mu.grad.shape == (0, 3)

    @each_sampler
    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)], ids=str)
    @pytest.mark.parametrize("samples", [(5, 5), (2, 3, 4), (0, 5), (5, 0)], ids=str)
    def test_samples(self, call, shape, samples):
        tensors = call.draw(shape)
        z, *rest = call(*tensors, samples)
        for upstream in (
            torch.ones(()).expand(z.shape),
            torch.ones_like(z).transpose(0, 1).contiguous().transpose(0, 1),
        ):
            grads = torch.autograd.grad(
                [z, *rest], tensors, [upstream, *map(torch.ones_like, rest)], retain_graph=True
            )
            assert all(g.shape == shape for g in grads)

    def test_the_sums_of_no_samples_are_numbers(self):
        """0, and multiplied as such: by a dσ/dr of ∞ they are NaN."""
        mu, lv = torch.zeros(2, requires_grad=True), torch.tensor([0.0, torch.inf], requires_grad=True)
        z = vf.rsample(mu, lv, 0, seed=1)
        dmu, dlv = torch.autograd.grad(z, (mu, lv), torch.ones_like(z))
        assert dmu.tolist() == [0.0, 0.0] and dlv[0] == 0 and bool(dlv[1].isnan())

    @each_density
    @pytest.mark.parametrize("reduction", ["sum", "none"])
    def test_data_without_elements(self, call, reduction, backend):
        """However many: no work is made of them."""
        if backend != "native":
            pytest.skip("PyTorch's own operations take as long as they take; grids are of another kind")
        n = 2**45
        tensors = [torch.zeros(1, 0).expand(n, 0).requires_grad_() for _ in call.operands]
        if reduction == "none":
            with pytest.raises(RuntimeError, match=f"allocate {4 * n} bytes"):
                call(*tensors)
            return
        (out,) = call(*tensors, reduction="sum")
        assert out == 0
        for g in torch.autograd.grad(out, call.wanted(tensors)):
            assert g.shape == (n, 0)

    def test_noise(self, backend):
        if backend != "native":
            pytest.skip("PyTorch's own operations take as long as they take; grids are of another kind")
        assert draw(sample_shape=[2**45], shape=[0, 3]).shape == (2**45, 0, 3)
        assert vf.rsample(torch.zeros(0, 3), 0.0, 2**32, seed=1).shape == (2**32, 0, 3)


class TestTooMuch:
    def test_elements_that_64_bits_do_not_count(self):
        a, b = torch.zeros(1, 1).expand(2**32, 1), torch.zeros(1, 1).expand(1, 2**32)
        for reduction in ("none", "sum"):
            with pytest.raises(ValueError, match="more elements than 64 bits can count"):
                vf.gaussian_kl(a, b, reduction=reduction)
        with pytest.raises(ValueError, match="more elements than 64 bits can count"):
            vf.rsample(a, b, seed=1)
        with pytest.raises(ValueError, match="z of shape .* more elements"):
            vf.rsample(torch.zeros(4), 0.0, (2**31, 2**31), seed=1)
        with pytest.raises(ValueError, match="z of shape .* more elements"):
            vf.rsample_kl(torch.zeros(4), 0.0, (2**31, 2**31), seed=1)
        with pytest.raises(ValueError, match="the result of shape .* more elements"):
            vf.standard_normal((2**32, 2**32), seed=1)

    @pytest.mark.parametrize("call", [RSAMPLE, KL, BERNOULLI, GAUSSIAN, INFLATED, POISSON], ids=str)
    def test_memory_that_is_not_there(self, call, backend):
        """The message says what could not be allocated, as PyTorch's does."""
        if backend != "native":
            pytest.skip("PyTorch's own message")
        tensors = [t.detach() for t in call.draw((1, 4))]
        if call is RSAMPLE:
            with pytest.raises(
                RuntimeError, match=r"can't allocate memory: you tried to allocate 17592186044416 bytes"
            ):
                call(*(t.expand(2**8, 4) for t in tensors), 2**32)
            return
        tensors = [t.expand(2**43, 4) for t in tensors]
        with pytest.raises(
            RuntimeError, match=r"allocate 35184372088832 bytes, for a tensor of shape \(8796093022208,\)"
        ):
            call(*tensors)

    def test_of_a_gradient(self, backend):
        """Of an operand in another order than C's too."""
        if backend != "native":
            pytest.skip("PyTorch's own message")
        y = torch.zeros(1, 1, 1).expand(2, 2**40, 4)
        raw = torch.ops.vae_fast.bernoulli_log_prob_bwd
        given = (torch.ones(()), y, torch.zeros(()))
        args = arguments("bernoulli_log_prob_bwd", *given, reduction=SUM, needs=(True, False, False))
        with pytest.raises(
            RuntimeError, match=r"allocate 35184372088832 bytes, for a tensor of shape \(2, 1099511627776, 4\)"
        ):
            raw(*args)


@needs_native
class TestRawOperators:
    def test_a_gradient_of_bytes(self):
        x = torch.zeros(4, dtype=torch.uint8)
        with pytest.raises(ValueError, match="x of .* has no gradient"):
            call("bernoulli_log_prob_fwd", torch.zeros(4), x, needs=(True, True))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
    def test_noise_of_another_dtype(self, dtype):
        with pytest.raises(ValueError, match="dtype must be"):
            draw(shape=[4], dtype=dtype)
        with pytest.raises(ValueError, match="noise must be|noise of"):
            call("rsample_fwd", torch.zeros(4), torch.zeros(4), noise=torch.zeros(4, dtype=dtype))

    @pytest.mark.parametrize("sizes", [[-1], [2, -3], [-2, -2]], ids=str)
    def test_negative_sizes(self, sizes):
        """Said of the argument, and not of memory."""
        with pytest.raises(ValueError, match="has a negative size"):
            draw(shape=sizes)
        with pytest.raises(ValueError, match="z of shape .* has a negative size"):
            call("rsample_fwd", torch.zeros(4), torch.zeros(4), sample_shape=sizes)

    @pytest.mark.parametrize("code", [-1, 5, 2**32])
    def test_codes(self, code):
        for name, most in (("param", 4), ("bounds_grad", 1), ("prior_param", 4)):
            with pytest.raises(ValueError, match=f"{name} must be a code from 0 to {most}"):
                call("gaussian_kl_fwd", torch.zeros(4), torch.zeros(4), **{name: code}, needs=(False,) * 4)

    def test_an_upstream_gradient_of_one_element(self):
        mu = torch.zeros(6, 3)
        with pytest.raises(ValueError, match=r"dkl has shape \(1,\), and not \(6,\)"):
            call("gaussian_kl_bwd", torch.ones(1), mu, mu, needs=(True, True, *(False,) * 3))

    def test_noise_of_another_shape(self):
        mu = torch.zeros(6, 3)
        with pytest.raises(ValueError, match=r"noise has shape \(6, 3\), and not \(2, 6, 3\)"):
            call("rsample_fwd", mu, mu, sample_shape=(2,), noise=mu)

    def test_a_prior_of_another_shape(self):
        mu = torch.zeros(6, 3)
        with pytest.raises(ValueError, match="the prior does not broadcast"):
            call("rsample_kl_fwd", mu, mu, torch.zeros(2, 6, 3))

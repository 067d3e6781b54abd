"""What a caller gets for inputs that are wrong, degenerate, non-finite or huge."""

import os
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist

import vae_fast as vf
from helpers.calls import (
    BERNOULLI,
    CALLS,
    COUNTS,
    GAUSSIAN,
    KL,
    KL_PRIOR,
    LOG_PROBS,
    RSAMPLE,
    SAMPLERS,
    WITH_X,
    same_bits,
)
from helpers.marks import (
    each_backend,
    each_call,
    each_density,
    each_operand,
    each_sampler,
    each_with_event,
)

pytestmark = each_backend


def replaced(tensors, i, value):
    return [value if k == i else t for k, t in enumerate(tensors)]


class TestShapes:
    @each_operand(*CALLS)
    def test_operands_that_do_not_broadcast(self, call, i):
        tensors = replaced(call.draw((3, 4)), i, torch.rand(2, 5))
        with pytest.raises(ValueError, match="do not broadcast") as caught:
            call(*tensors)
        message = str(caught.value)
        other = 1 if i == 0 else 0
        assert call.operands[i] in message and call.operands[other] in message
        assert "(2, 5)" in message and "(3, 4)" in message

    @each_density
    def test_a_weight_that_does_not_broadcast(self, call):
        with pytest.raises(
            ValueError, match=rf"{call.operands[0]}.* \(3, 4\) and weight .* \(7, 1\) do not broadc"
        ):
            call(*call.draw((3, 4)), weight=torch.ones(7, 1))

    @each_with_event
    @pytest.mark.parametrize("event_ndim", [3, 100, -1])
    def test_event_ndim_out_of_range(self, call, event_ndim):
        with pytest.raises(ValueError) as caught:
            call(*call.draw((3, 4)), event_ndim=event_ndim)
        message = str(caught.value)
        assert f"event_ndim={event_ndim}" in message and "(3, 4)" in message
        assert all(name.removeprefix("prior_") in message for name in call.operands[:2])

    @each_with_event
    def test_the_default_event_ndim_does_not_fit_0d(self, call):
        with pytest.raises(ValueError, match="event_ndim=1"):
            call(*call.draw(()))

    @each_with_event
    def test_event_ndim_counts_dims_of_the_broadcast_shape(self, call):
        tensors = call.draw((4,))
        tensors[1] = call.draw((2, 3, 4))[1]
        assert call(*tensors, event_ndim=3)[-1].shape == ()

    @each_with_event
    @pytest.mark.parametrize("event_ndim", [1.0, True, "1", None])
    def test_event_ndim_of_another_type(self, call, event_ndim):
        with pytest.raises(TypeError, match="event_ndim"):
            call(*call.draw((3, 4)), event_ndim=event_ndim)

    @each_sampler
    def test_sample_shape(self, call):
        tensors = call.draw((3, 4))
        with pytest.raises(ValueError, match=r"sample_shape.*-1"):
            call(*tensors, sample_shape=(2, -1))
        for wrong in ((1.5,), "12", torch.tensor([2])):
            with pytest.raises(TypeError, match="sample_shape"):
                call(*tensors, sample_shape=wrong)


def quantised(value):
    # torch warns once a process that it will do without them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.quantize_per_tensor(value, 0.1, 0, torch.quint8)


NOT_DENSE_FLOATS = {
    "complex64": lambda v: v.to(torch.complex64),
    "complex128": lambda v: v.to(torch.complex128),
    "int8": lambda v: v.to(torch.int8),
    "int64": lambda v: v.to(torch.int64),
    "uint8": lambda v: v.to(torch.uint8),
    "bool": lambda v: v > 0,
    "float8_e4m3fn": lambda v: v.to(torch.float8_e4m3fn),
    "quint8": quantised,
    "sparse_coo": lambda v: v.to_sparse(),
    "sparse_csr": lambda v: v.to_sparse_csr(),
}
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
INTEGERS = (*SIGNED, torch.uint16, torch.uint32, torch.uint64)
# Signed ones are counts.
NO_TARGETS = [(call, d) for call in WITH_X for d in INTEGERS if not (call.counted and d in SIGNED)]
# A CSR matrix may hold counts.
OTHER_TARGETS = [
    (call, kind)
    for call in WITH_X
    for kind in ("complex64", "float8_e4m3fn", "quint8", "sparse_coo", "sparse_csr")
    if not (call.counted and kind == "sparse_csr")
]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
class TestKinds:
    """Dtypes and layouts that are not served."""

    @each_operand(*CALLS, without=("x",))
    @pytest.mark.parametrize("kind", NOT_DENSE_FLOATS)
    def test_not_a_dense_float(self, call, i, kind):
        wrong = NOT_DENSE_FLOATS[kind](torch.rand(3, 4))
        with pytest.raises(TypeError) as caught:
            call(*replaced(call.draw((3, 4)), i, wrong))
        message = str(caught.value)
        assert message.startswith(call.operands[i]) and str(wrong.dtype) in message
        if kind.startswith("sparse"):
            assert kind in message

    @each_operand(*CALLS)
    @pytest.mark.parametrize("wrong", [[1.0], "1", True, 1j, np.ones(3)], ids=lambda v: type(v).__name__)
    def test_no_tensor_at_all(self, call, i, wrong):
        with pytest.raises(TypeError) as caught:
            call(*replaced(call.draw((3, 4)), i, wrong))
        assert str(caught.value).startswith(call.operands[i]) and type(wrong).__name__ in str(caught.value)

    @pytest.mark.parametrize(("call", "dtype"), NO_TARGETS, ids=str)
    def test_integer_targets(self, call, dtype):
        x = torch.ones(3, 4).to(dtype)
        with pytest.raises(TypeError) as caught:
            call(*call.draw((3, 4))[:-1], x)
        message = str(caught.value)
        assert message.startswith("x ") and str(dtype) in message
        assert all(word in message for word in ("uint8", "bool", "float"))

    @pytest.mark.parametrize(("call", "kind"), OTHER_TARGETS, ids=str)
    def test_other_targets(self, call, kind):
        x = NOT_DENSE_FLOATS[kind](torch.rand(3, 4))
        with pytest.raises(TypeError, match="x must be") as caught:
            call(*call.draw((3, 4))[:-1], x)
        assert str(x.dtype) in str(caught.value)

    @each_density
    @pytest.mark.parametrize("kind", ["complex64", "int64", "quint8", "sparse_coo"])
    def test_weights(self, call, kind):
        weight = NOT_DENSE_FLOATS[kind](torch.rand(3, 4))
        with pytest.raises(TypeError, match="weight must be") as caught:
            call(*call.draw((3, 4)), weight=weight)
        assert str(weight.dtype) in str(caught.value)


class TestOptions:
    @each_density
    @pytest.mark.parametrize("reduction", ["avg", None, ["sum"]])
    def test_reduction(self, call, reduction):
        with pytest.raises((ValueError, TypeError)):
            call(*call.draw((3, 4)), reduction=reduction)
        with pytest.raises(ValueError, match="'none', 'sum', 'mean'"):
            call(*call.draw((3, 4)), reduction="avg")

    @pytest.mark.parametrize("call", [c for c in CALLS if c.has("param_eps")], ids=str)
    def test_scale_form(self, call):
        tensors = call.draw((3, 4))
        for name, wrong, error in (
            ("param", "sigma", ValueError),
            ("param_eps", "1", TypeError),
            ("bounds", (1.0, 0.0), ValueError),
            ("bounds", (0.0, float("nan")), ValueError),
            ("bounds", 3.0, ValueError),
            ("bounds", ("a", 1.0), TypeError),
        ):
            with pytest.raises(error, match=name.removesuffix("_eps")):
                call(*tensors, **{name: wrong})

    @each_density
    def test_scale(self, call):
        with pytest.raises(TypeError, match="scale must be a number"):
            call(*call.draw((3, 4)), scale="2")

    def test_numbers(self):
        mu = torch.zeros(3, 4)
        with pytest.raises(TypeError, match="x_scale must be a number"):
            vf.bernoulli_log_prob(mu, mu, x_scale="2")
        with pytest.raises(TypeError, match="x_scale must be a number"):
            vf.gaussian_log_prob(mu, mu, mu, x_scale=None)
        for call in (vf.gaussian_kl, vf.rsample_kl):
            with pytest.raises(TypeError, match="free_bits must be a number"):
                call(mu, mu, free_bits="1")
        for name in ("offset", "first_sample", "stream"):
            with pytest.raises(TypeError, match=f"{name} must be an integer"):
                vf.rsample(mu, mu, seed=1, **{name: 1.5})
        for name in ("temperature", "param_eps"):
            with pytest.raises(TypeError, match=f"{name} must be a number"):
                vf.rsample(mu, mu, seed=1, **{name: "1"})
        with pytest.raises(TypeError, match="prior_param_eps must be a number"):
            vf.gaussian_kl(mu, mu, prior_param_eps="1")

    @pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), float("inf")])
    def test_validate(self, wrong):
        x = torch.rand(3, 4)
        assert vf.bernoulli_log_prob(torch.zeros(3, 4), x, validate=True).shape == (3,)
        x[1, 2] = wrong
        with pytest.raises(ValueError, match="x"):
            vf.bernoulli_log_prob(torch.zeros(3, 4), x, validate=True)

    @pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), float("inf")])
    def test_validate_probabilities(self, wrong):
        """Refused where asked for; without, the data they belong to are NaN, and no others."""
        p, x = torch.rand(3, 4), torch.rand(3, 4)
        assert vf.bernoulli_log_prob(p, x, param="probs", validate=True).isfinite().all()
        p[1, 2] = wrong
        with pytest.raises(ValueError, match=r"logits, .* probabilities, has values outside \[0, 1\]"):
            vf.bernoulli_log_prob(p, x, param="probs", validate=True)
        vf.bernoulli_log_prob(p.nan_to_num(), x, validate=True)
        for t in (x, torch.zeros(3, 4), torch.ones(3, 4)):
            found = vf.bernoulli_log_prob(p, t, param="probs").isnan()
            assert found.tolist() == [False, True, False]

    @pytest.mark.parametrize("wrong", ["logvar", "probabilities", None, 1])
    def test_bernoulli_param(self, wrong):
        with pytest.raises(ValueError, match="param must be one of 'logits', 'probs'"):
            vf.bernoulli_log_prob(torch.zeros(3, 4), torch.zeros(3, 4), param=wrong)

    def test_validate_scales_x(self):
        x = torch.tensor([[0, 255]], dtype=torch.uint8)
        vf.bernoulli_log_prob(torch.zeros(1, 2), x, x_scale=1 / 255, validate=True)
        with pytest.raises(ValueError, match="x_scale"):
            vf.bernoulli_log_prob(torch.zeros(1, 2), x, validate=True)

    def test_standard_normal(self):
        for shape, error in (((-3,), ValueError), ((1.5,), TypeError), ("3", TypeError)):
            with pytest.raises(error, match="shape"):
                vf.standard_normal(shape, seed=1)
        for dtype in (torch.int64, torch.complex64, torch.float8_e4m3fn):
            with pytest.raises(TypeError, match=f"dtype .*{dtype}"):
                vf.standard_normal((3,), seed=1, dtype=dtype)


class TestDevices:
    """The meta device stands for another one, so that no GPU is needed."""

    @each_operand(*CALLS)
    def test_operands_on_two_devices(self, call, i):
        tensors = call.draw((3, 4))
        here = str(tensors[0].device)
        with pytest.raises(ValueError) as caught:
            call(*replaced(tensors, i, tensors[i].detach().to("meta")))
        message = str(caught.value)
        other = 1 if i == 0 else 0
        assert all(word in message for word in (here, "meta", call.operands[i], call.operands[other]))

    @each_density
    def test_weight_on_another_device(self, call):
        with pytest.raises(ValueError, match="weight on meta"):
            call(*call.draw((3, 4)), weight=torch.ones(3, 1, device="meta"))

    @each_sampler
    def test_seed_on_another_device(self, call):
        with pytest.raises(ValueError, match="seed is on meta"):
            call(*call.draw((3, 4)), seed=torch.tensor([1], device="meta"))

    @each_call
    def test_a_0d_cpu_tensor_goes_with_any_device(self, call):
        if len(call.operands) == 2 and "x" in call.operands:
            pytest.skip("its operands are one parameter, and data")
        tensors = [torch.zeros(3, 4, device="meta") for _ in call.operands]
        tensors[1] = torch.tensor(0.5, device="cpu")
        assert call(*tensors, backend="reference")[0].device.type == "meta"

    @each_call
    def test_all_on_one_other_device(self, call):
        tensors = [torch.zeros(3, 4, device="meta", requires_grad=True) for _ in call.operands]
        here = call(*call.draw((3, 4)))
        there = call(*tensors, backend="reference")
        assert [t.shape for t in there] == [t.shape for t in here]
        assert {t.device.type for t in there} == {"meta"}


@pytest.fixture(scope="class")
def distribute(tmp_path_factory):
    """Makes a DTensor of a tensor, on a group of this one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        yield lambda t: distribute_tensor(t.detach().cpu(), mesh, [Shard(0)])
    finally:
        dist.destroy_process_group()


class TestDTensor:
    @each_operand(*CALLS)
    def test_mixed_with_plain_tensors(self, call, i, distribute):
        tensors = call.draw((3, 4))
        with pytest.raises(TypeError, match="local tensors") as caught:
            call(*replaced(tensors, i, distribute(tensors[i])))
        message = str(caught.value)
        assert f"{call.operands[i]} is a DTensor" in message
        assert f"{call.operands[1 if i == 0 else 0]} is a plain tensor" in message

    @each_density
    def test_a_plain_weight(self, call, distribute):
        with pytest.raises(TypeError, match="weight is a plain tensor.*local tensors"):
            call(*map(distribute, call.draw((3, 4))), weight=torch.ones(3, 1))

    @each_density
    def test_densities_of_dtensors(self, call, distribute):
        tensors = call.draw((3, 4))
        together = call(*map(distribute, tensors))[0]
        torch.testing.assert_close(together.to_local(), call(*tensors)[0].detach().cpu())

    @each_sampler
    def test_samples_of_dtensors(self, call, distribute):
        """A shard's place in the noise is the caller's to say, with offset=: local tensors are what is served."""
        with pytest.raises(TypeError, match="mu is a DTensor.*local tensors.*offset="):
            call(*map(distribute, call.draw((3, 4))))

    @each_operand(*SAMPLERS)
    def test_samples_of_a_dtensor_and_a_scalar(self, call, i, distribute):
        """Which promote to a DTensor."""
        tensors = [torch.zeros(()), torch.zeros(())]
        with pytest.raises(TypeError, match=f"{call.operands[i]} is a DTensor.*local tensors.*offset="):
            call(*replaced(tensors, i, distribute(torch.zeros(3, 4))))


EMPTY = [((0, 4), 1), ((3, 0), 1), ((0, 0), 1), ((0,), 1), ((0,), 0), ((2, 0, 3), 2), ((2, 0, 3), 1), ((0, 3), 0)]


class TestEmpty:
    @each_with_event
    @pytest.mark.parametrize(("shape", "event_ndim"), EMPTY)
    def test_one_zero_a_datum(self, call, shape, event_ndim):
        tensors = call.draw(shape)
        values = call.with_grads(*tensors, event_ndim=event_ndim)
        n = len(call.wanted(tensors))
        density, grads = values[-1 - n], values[-n:]
        assert density.shape == shape[: len(shape) - event_ndim]
        assert bool((density == 0).all())
        assert all(g.shape == shape for g in grads)

    @each_density
    @pytest.mark.parametrize(("shape", "event_ndim"), EMPTY)
    def test_reductions(self, call, shape, event_ndim):
        """As PyTorch: the sum of nothing is 0; the mean of no data is NaN, of data without elements 0."""
        tensors = call.draw(shape)
        total, *grads = call.with_grads(*tensors, event_ndim=event_ndim, reduction="sum")
        assert total.shape == () and total.item() == 0.0
        assert all(g.shape == shape for g in grads)
        mean, *grads = call.with_grads(*tensors, event_ndim=event_ndim, reduction="mean", weight=2.0)
        n_data = np.prod(shape[: len(shape) - event_ndim])
        assert mean.shape == () and (mean.item() == 0.0 if n_data else mean.isnan().item())
        assert all(g.shape == shape for g in grads)

    @each_sampler
    @pytest.mark.parametrize("sample_shape", [(), (0,), (2, 0), (3,)])
    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 4)])
    def test_samples(self, call, sample_shape, shape):
        tensors = call.draw(shape)
        z, *rest = call.with_grads(*tensors, sample_shape=sample_shape)
        assert z.shape == (*sample_shape, *shape)
        assert all(g.shape == shape for g in rest[-2:])
        if call is RSAMPLE and 0 in sample_shape:
            assert all(bool((g == 0).all()) for g in rest)

    @each_call
    def test_an_empty_operand_broadcasts_with_one(self, call):
        tensors = call.draw((0, 4))
        tensors[1] = call.draw((1, 4))[1]
        wanted = call.wanted(tensors)
        for grad, t in zip(call.with_grads(*tensors)[-len(wanted) :], wanted, strict=True):
            assert grad.shape == t.shape and bool((grad == 0).all())

    @each_call
    def test_0d(self, call):
        tensors = call.draw(())
        options = {"event_ndim": 0} if call.event else {}
        whole = call.with_grads(*tensors, **options)
        in_one_dim = call.with_grads(*(t.detach().reshape(1).requires_grad_() for t in tensors), **options)
        assert all(v.shape == () for v in whole)
        assert same_bits(whole, [v.reshape(()) for v in in_one_dim])

    @each_density
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_0d_reductions(self, call, reduction):
        tensors = call.draw(())
        assert same_bits(call(*tensors, event_ndim=0, reduction=reduction), call(*tensors, event_ndim=0))


def reached(call, i, results):
    """The results that an operand takes part in: a prior takes none in the sample, a mean none in log q."""
    if call in LOG_PROBS and call.operands[i] != "logvar":
        z, _, log_p = results
        return (log_p,) if call.operands[i].startswith("prior") else (z, log_p)
    return results[1:] if call.operands[i].startswith("prior") and not call.density else results


class TestNotFinite:
    @each_operand(*CALLS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("reduction", ["none", "sum"])
    def test_other_data_are_untouched(self, call, i, value, reduction):
        if reduction == "sum" and not call.density:
            pytest.skip("a density's option")
        tensors = call.draw((5, 9))
        odd = [t.detach().clone() for t in tensors]
        odd[i][2, 4] = value
        options = {"reduction": reduction} if call.density else {}
        clean = call.with_grads(*tensors, **options)
        ours = call.with_grads(*(t.requires_grad_() for t in odd), **options)
        others = torch.tensor([0, 1, 3, 4])
        rows = [(a, b) for a, b in zip(ours, clean, strict=True) if a.ndim]
        assert same_bits([a[others] for a, _ in rows], [b[others] for _, b in rows])
        if value != value:
            results = ours[: -len(call.wanted(tensors))]
            assert all(bool(r.isnan().any()) for r in reached(call, i, results))

    @each_call
    def test_a_nan_is_not_lost(self, call):
        """The result of its own datum is NaN, whichever operand it came in by."""
        for i in range(len(call.operands)):
            tensors = [t.detach() for t in call.draw((5, 9))]
            tensors[i][2, 4] = torch.nan
            for out in reached(call, i, call(*tensors)):
                own = out[2, 4] if out.ndim == 2 else out[2]
                assert bool(own.isnan())

    @each_call
    def test_a_gradient_that_is_nan(self, call):
        tensors = call.draw((5, 9))

        def broken(out):
            upstream = torch.ones_like(out)
            upstream[2] = torch.nan
            return upstream

        n = len(call.wanted(tensors))
        clean = call.with_grads(*tensors)[-n:]
        ours = call.with_grads(*tensors, upstream=broken)[-n:]
        others = torch.tensor([0, 1, 3, 4])
        assert same_bits([a[others] for a in ours], [b[others] for b in clean])
        assert all(bool(a[2].isnan().all()) for a in ours)


class TestLarge:
    @each_sampler
    @pytest.mark.parametrize("offset", [2**31 - 5, 2**32 - 5, 2**33 + 1, 2**63 - 5, 2**64 - 5, -5])
    def test_noise_far_out(self, call, offset):
        """rsample's noise is standard_normal's, across the ends of 32 and 64 bits, in the backward too."""
        mu, logvar = torch.zeros(3, 4), torch.zeros(3, 4, requires_grad=True)
        place, last = {"offset": offset, "stream": 2**32 - 1}, 2**32 - 2
        z, *_ = call(mu, logvar, (2,), **place, first_sample=last)
        eps = [vf.standard_normal((3, 4), seed=7, **place, sample=last + k) for k in (0, 1)]
        assert same_bits([z], [torch.stack(eps)])
        (dlogvar,) = torch.autograd.grad(z.sum(), logvar)
        torch.testing.assert_close(dlogvar, 0.5 * (eps[0] + eps[1]))

    @pytest.mark.parametrize("call", [KL, KL_PRIOR, BERNOULLI, GAUSSIAN, *COUNTS], ids=str)
    def test_shapes_of_more_than_2_to_31_elements(self, call):
        shape = (2**16 + 1, 2**15)
        tensors = [torch.zeros(shape, device="meta", requires_grad=True) for _ in call.operands]
        out, *grads = call.with_grads(*tensors, backend="reference")
        assert out.shape == shape[:1] and all(g.shape == shape for g in grads)

    @staticmethod
    def need(gib):
        """Skips where the device has less memory: the reference holds several float32 tensors of the size."""
        if torch.get_default_device().type == "cuda":
            total = torch.cuda.mem_get_info()[1]
        else:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if total < gib * 2**30:
            pytest.skip(f"needs {gib} GiB of memory")

    @pytest.mark.slow
    def test_bernoulli_of_more_than_2_to_31_elements(self, rows=2**16 + 1):
        """uint8 targets and logits per feature; only the last row, beyond 2³¹ elements, has ones."""
        self.need(96)
        columns = 2**15
        logits = torch.full((columns,), 2.0, requires_grad=True)
        x = torch.zeros((rows, columns), dtype=torch.uint8)
        x[-1] = 1
        log_prob = vf.bernoulli_log_prob(logits, x)
        one, zero = (columns * torch.nn.functional.logsigmoid(torch.tensor(sign * 2.0)) for sign in (1, -1))
        torch.testing.assert_close(log_prob[-1].detach(), one, rtol=1e-5, atol=0)
        torch.testing.assert_close(log_prob[:-1].detach(), zero.expand(rows - 1), rtol=1e-5, atol=0)
        (dlogits,) = torch.autograd.grad(log_prob[-2:].sum(), logits)
        s = torch.sigmoid(torch.tensor(2.0))
        torch.testing.assert_close(dlogits, (1 - 2 * s).expand(columns), rtol=1e-5, atol=0)

    @pytest.mark.slow
    def test_kl_of_more_than_2_to_31_elements(self, rows=2**16 + 1):
        """One number for mu, expanded; logvar per datum, so that the last row differs."""
        self.need(96)
        logvar = torch.zeros(rows, 1)
        logvar[-1] = 1.0
        logvar.requires_grad_()
        kl = vf.gaussian_kl(torch.ones(()).expand(rows, 2**15), logvar)
        expected = 2**15 * 0.5 * (1.0 + torch.expm1(logvar.detach()) - logvar.detach())
        torch.testing.assert_close(kl.detach(), expected[:, 0], rtol=1e-5, atol=0)
        (dlogvar,) = torch.autograd.grad(kl.sum(), logvar)
        torch.testing.assert_close(dlogvar, 2**15 * 0.5 * torch.expm1(logvar.detach()), rtol=1e-5, atol=0)

    @pytest.mark.slow
    @pytest.mark.parametrize("samples", [1, 2**16 + 1])
    def test_samples_of_more_than_2_to_31_elements(self, samples, n=2**31 + 2**15):
        """One sample that long, and many short ones; beside the window compared, ε is taken as it comes."""
        self.need(96)
        each = n // samples
        z = vf.rsample(torch.zeros(()).expand(each), 0.0, (samples,), seed=5)
        last = vf.standard_normal((16,), seed=5, offset=each - 16, sample=samples - 1)
        assert same_bits([z[-1, -16:]], [last])
        middle = vf.standard_normal((16,), seed=5, offset=each // 2, sample=samples // 2)
        assert same_bits([z[samples // 2, each // 2 : each // 2 + 16]], [middle])


class TestNoExtension:
    def test_the_reference_serves_and_the_reason_is_told(self, capsys):
        from vae_fast.cli.main import main

        found = vf.backends()
        assert found["reference"].available
        assert all(b.reason == "" if b.available else b.reason for b in found.values())
        main(["info"])
        told = capsys.readouterr().out
        assert all(b.name in told and b.reason in told for b in found.values())

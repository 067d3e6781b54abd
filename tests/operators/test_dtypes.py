"""Dtypes of every operator: each operand keeps its own, none is rounded or copied to match; so do gradients."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import vae_fast as vf
from helpers import behaviour, definition
from helpers.calls import DENSITIES, RSAMPLE, WITH_X, same_bits
from helpers.cases import each_case
from helpers.marks import each_backend, each_call, each_with_x

pytestmark = each_backend

HALF = [torch.bfloat16, torch.float16]
FLOATS = (torch.float32, torch.float64, *HALF)
each_half = pytest.mark.parametrize("half", HALF, ids=str)


def parameters(call):
    return [k for k, name in enumerate(call.operands) if name != "x"]


class TestZeroDims:
    @each_half
    def test_a_learned_scale_beside_half_operands(self, half):
        """What latent-diffusion losses have: a 0-d log σ², its gradient a sum over everything, times a scale."""
        mean, x = torch.randn(64, 100).to(half), torch.randn(64, 100).to(half)
        lv = torch.tensor(-6.0, requires_grad=True)
        loss = vf.gaussian_log_prob(mean, lv, x, reduction="mean", scale=-1)
        (loss * 65536).backward()
        square = ((x.double() - mean.double()) ** 2).sum(1).mean() * torch.tensor(6.0).double().exp()
        assert_close(lv.grad.double(), 65536 * 0.5 * (100 - square), rtol=1e-6, atol=0)
        assert lv.grad.dtype == torch.float32 and loss.dtype == torch.float32

    def test_under_autocast(self, backend):
        lv = torch.nn.Parameter(torch.tensor(-6.0))
        mean, x = torch.randn(64, 100), torch.randn(64, 100)
        with torch.autocast(mean.device.type, dtype=torch.bfloat16):
            mean = mean @ torch.eye(100)
            assert mean.dtype == torch.bfloat16
            vf.gaussian_log_prob(mean, lv, x.bfloat16(), reduction="mean", scale=-1).backward()
        square = ((x.bfloat16().double() - mean.double()) ** 2).sum(1).mean() * torch.tensor(6.0).double().exp()
        assert_close(lv.grad.double(), 0.5 * (100 - square), rtol=1e-6, atol=0)

    @each_call
    @each_half
    @pytest.mark.parametrize("own", [torch.float32, torch.float64], ids=str)
    def test_any_parameter(self, call, half, own):
        """It changes no result's dtype, and has the gradient that it has beside widened operands."""
        if len(parameters(call)) < 2:
            pytest.skip("one parameter, whose dtype decides")
        for k in parameters(call):
            tensors = [t.detach().to(half) for t in call.draw((6, 5))]
            tensors[k] = torch.tensor(0.7137, dtype=own)
            wide = [t.to(torch.float32) if t.ndim else t for t in tensors]
            tensors, wide = ([t.requires_grad_() for t in ts] for ts in (tensors, wide))
            got, want = call.with_grads(*tensors), call.with_grads(*wide)
            wanted = call.wanted(tensors)
            n = len(got) - len(wanted)
            if call in DENSITIES or call is RSAMPLE:
                assert got[0].dtype == (half if call is RSAMPLE else torch.float32)
            assert got[n + k].dtype == own
            # Sums over 30 elements, upstream gradients of half type for z only.
            assert_close(got[n + k], want[n + k], rtol=2e-6, atol=1e-5)
            assert all(g.dtype == t.dtype for g, t in zip(got[n:], wanted, strict=True))


class TestHalf:
    @each_case()
    @each_half
    def test_computed_in_float32(self, case, half):
        """What the widened operands give, rounded once if at all."""
        behaviour.check_half(case, half, *case.inputs(half), light=case.call.op in definition.LIGHT)


class TestPromotion:
    @each_call
    @pytest.mark.parametrize("first", FLOATS, ids=str)
    @pytest.mark.parametrize("second", FLOATS, ids=str)
    def test_is_as_if_converted(self, call, first, second):
        """Bit for bit; x, whatever it is, has no part in it."""
        dtypes = [second if k else first for k, _ in enumerate(call.operands)]
        tensors = [t.detach().to(dtype) for t, dtype in zip(call.draw((6, 5)), dtypes, strict=True)]
        taking_part = {dtypes[k] for k in parameters(call)}
        promoted = torch.promote_types(*taking_part) if len(taking_part) > 1 else first
        (*_, got) = call(*(t.requires_grad_() for t in tensors))
        converted = [t.detach().to(promoted) if k in parameters(call) else t for k, t in enumerate(tensors)]
        (*_, want) = call(*converted)
        wide = torch.float64 if promoted == torch.float64 else torch.float32
        assert got.dtype == want.dtype == (promoted if call is RSAMPLE else wide)
        if wide == torch.float64 or torch.float64 not in dtypes:  # float64 data are computed with as such
            assert torch.equal(got, want)
        wanted = call.wanted(tensors)
        for grad, t in zip(torch.autograd.grad(got.sum(), wanted), wanted, strict=True):
            assert grad.dtype == t.dtype

    @each_with_x
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_bytes_and_bools_count_as_their_values(self, call, dtype):
        parameters = [t.detach().to(dtype).requires_grad_() for t in call.draw((300, 5))[:-1]]
        pixels, mask = torch.randint(0, 256, (300, 5), dtype=torch.uint8), torch.rand(300, 5) < 0.5
        for x, x_scale in ((pixels, 1 / 255), (mask, 1.0), (mask.to(torch.uint8), 1.0)):
            as_float = x.to(dtype)  # exactly
            options = {"x_scale": x_scale} if call.has("x_scale") else {}
            got, want = (call.with_grads(*parameters, t, **options) for t in (x, as_float))
            assert len(got) == 1 + len(parameters) and same_bits(got, want)

    @each_call
    @pytest.mark.parametrize("first", [torch.float32, *HALF], ids=str)
    @pytest.mark.parametrize("second", [torch.float32, torch.float64, *HALF], ids=str)
    def test_of_parameters_with_dims(self, call, first, second):
        k = parameters(call)
        if len(k) < 2:
            pytest.skip("one parameter")
        tensors = [t.detach().to(second if i == k[1] else first) for i, t in enumerate(call.draw((6, 5)))]
        tensors = [t.requires_grad_() for t in tensors]
        got = call.with_grads(*tensors)
        wanted = call.wanted(tensors)
        n = len(got) - len(wanted)
        promoted = torch.promote_types(first, second)
        sums = torch.promote_types(promoted, torch.float32)
        assert got[0].dtype == (sums if call in DENSITIES else promoted)
        assert [g.dtype for g in got[n:]] == [t.dtype for t in wanted]
        wide = [t.detach().to(sums).requires_grad_() for t in tensors]
        upstream = iter([torch.ones_like(o) for o in got[:n]])
        want = call.with_grads(*wide, upstream=lambda out: next(upstream).to(out.dtype))
        for g, w in zip(got, want, strict=True):
            eps = torch.finfo(g.dtype).eps if g.dtype != sums else 8 * torch.finfo(sums).eps
            assert_close(g.to(w.dtype), w, rtol=eps, atol=eps)

    @each_with_x
    @pytest.mark.parametrize("what", ["x", "weight"])
    def test_float64_data_are_not_rounded(self, call, what):
        """Arithmetic in float64, results of float32 parameters in float32."""
        tensors = [t.detach() for t in call.draw((6, 5))]
        weight = torch.rand(6, 5, dtype=torch.float64) if what == "weight" else None
        if what == "x":
            tensors[-1] = torch.rand(6, 5, dtype=torch.float64)
        tensors = [t.requires_grad_() for t in tensors]
        wide = [t.detach().double().requires_grad_() for t in tensors]
        for options in ({}, {"reduction": "sum"}, {"event_ndim": 0}):
            got = call.with_grads(*tensors, weight=weight, **options)
            want = call.with_grads(*wide, weight=weight, **options)
            assert got[0].dtype == torch.float32
            for g, w in zip(got, want, strict=True):
                # Rounded once: half an ULP, and the error of float64.
                assert_close(g.double(), w, rtol=0.5001 * torch.finfo(g.dtype).eps + 1e-14, atol=1e-14)

    @pytest.mark.parametrize("half", HALF, ids=str)
    def test_float64_is_rounded_once_to_half_types(self, half, backend):
        """Not by way of float32: where that lands in the middle of two numbers, it rounds wrongly."""
        if backend != "native":
            pytest.skip("rounded by PyTorch, or a GPU's instructions")
        eps = torch.finfo(half).eps
        middle = 1 + eps / 2
        mean = torch.zeros(4, dtype=half).requires_grad_()
        # The gradient by the mean is x − mean at σ = 1.
        x = torch.tensor([middle + 2**-40, -middle - 2**-40, middle - 2**-40, middle], dtype=torch.float64)
        (grad,) = torch.autograd.grad(vf.gaussian_log_prob(mean, 0.0, x, reduction="sum"), mean)
        assert grad.tolist() == [1 + eps, -1 - eps, 1.0, 1.0]


class Watched(TorchDispatchMode):
    """Notes the names of all operations, and the most elements that each makes."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        outs = out if isinstance(out, (tuple, list)) else (out,)
        n = max((o.numel() for o in outs if isinstance(o, torch.Tensor)), default=0)
        self.made[str(func)] = max(n, self.made.get(str(func), 0))
        return out


@each_call
def test_no_operand_is_copied(call, backend):
    """Of four dtypes, and one of them small: operations of ours alone make anything of full size."""
    if backend == "reference":
        pytest.skip("made of PyTorch's operations")
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float32)
    tensors = [t.detach().to(d) for t, d in zip(call.draw((64, 50)), kinds, strict=False)]
    for t in call.wanted(tensors):
        t.requires_grad_()
    (grads_of,) = [[torch.ones_like(out) for out in call(*tensors)]]
    with Watched() as watched:
        torch.autograd.grad(call(*tensors), call.wanted(tensors), grads_of)
    large = [name for name, n in watched.made.items() if n >= 64 * 50 and not name.startswith("vae_fast")]
    assert not large


def test_bools_of_any_byte(backend):
    """As .view(torch.bool) and np.load give them: all but 0 is True, of targets and of weights."""
    odd = torch.tensor([0, 1, 2, 77, 128, 255] * 7, dtype=torch.uint8).reshape(6, 7)
    plain = odd != 0
    for layout in (lambda t: t, lambda t: t.t().contiguous().t(), lambda t: t[:, :1], lambda t: t[:1]):
        ours, wanted = layout(odd).view(torch.bool), layout(plain)
        for call in WITH_X:
            parameters = call.draw((6, 7))[:-1]
            got = call.with_grads(*parameters, ours), call.with_grads(*parameters, torch.ones(6, 7), weight=ours)
            want = (
                call.with_grads(*parameters, wanted),
                call.with_grads(*parameters, torch.ones(6, 7), weight=wanted),
            )
            for these, those in zip(got, want, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


def test_bytes_of_targets_are_values(backend):
    x = torch.tensor([0, 1, 2, 77, 128, 255], dtype=torch.uint8)
    mean = torch.randn(6)
    assert_close(vf.gaussian_log_prob(mean, 0.0, x), vf.gaussian_log_prob(mean, 0.0, x.float()))

"""A linear layer and its Bernoulli log-likelihood in blocks against the two calls it stands for."""

import pytest
import torch
from torch.func import grad, vmap
from torch.nn.functional import linear

import vae_fast as vf
from helpers.calls import same_bits
from helpers.marks import each_backend

pytestmark = each_backend

H, D = 6, 9
SHAPES = {
    "rows": ((11, H), (11, D)),
    "samples": ((4, 11, H), (11, D)),
    "samples of samples": ((2, 3, 5, H), (5, D)),
    "data of two dims": ((3, 2, 5, H), (2, 5, D)),
    "one datum": ((7, H), (D,)),
    "nothing": ((H,), (D,)),
}
each_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
each_block = pytest.mark.parametrize("rows", [None, 1, 4, 12, 10**6])


def draw(shapes=SHAPES["samples"], dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    made = torch.randn(shapes[0]), torch.randn(D, H), torch.randn(D) if bias else None
    leaves = [None if t is None else t.to(dtype).requires_grad_() for t in made]
    return leaves, torch.rand(shapes[1]).to(dtype)


def two_calls(h, weight, bias, x, **options):
    return vf.bernoulli_log_prob(linear(h, weight, bias), x, event_ndim=1, **options)


def with_grads(function, leaves, x, **options):
    out = function(*leaves, x, **options)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out.detach(), *torch.autograd.grad(out, [t for t in leaves if t is not None], upstream)


class TestEquals:
    @each_shape
    @each_block
    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    @pytest.mark.parametrize("recompute", [True, False], ids=["again", "kept"])
    def test_the_two_calls(self, shapes, rows, bias, recompute):
        leaves, x = draw(shapes, torch.float64, bias)
        found = with_grads(vf.linear_bernoulli_log_prob, leaves, x, block_rows=rows, recompute=recompute)
        torch.testing.assert_close(found, with_grads(two_calls, leaves, x))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_in_every_dtype(self, dtype):
        """Sums over the blocks are made in float32, and rounded as one product's is, once a block."""
        leaves, x = draw(dtype=dtype)
        found, expected = (
            with_grads(f, leaves, x, **option)
            for f, option in ((vf.linear_bernoulli_log_prob, {"block_rows": 8}), (two_calls, {}))
        )
        assert [t.dtype for t in found] == [t.dtype for t in expected]
        close = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 40 * torch.finfo(dtype).eps}
        torch.testing.assert_close(found, expected, **close)

    @pytest.mark.parametrize("kind", [torch.uint8, torch.bool], ids=str)
    def test_of_bytes(self, kind):
        leaves, x = draw()
        x = (x * 255).to(torch.uint8) if kind == torch.uint8 else x > 0.5
        option = {"x_scale": 1 / 255} if kind == torch.uint8 else {}
        found = with_grads(vf.linear_bernoulli_log_prob, leaves, x, block_rows=4, **option)
        torch.testing.assert_close(found, with_grads(two_calls, leaves, x, **option))

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_reduced(self, reduction):
        leaves, x = draw(dtype=torch.float64)
        option = {"reduction": reduction, "scale": -0.5}
        found = with_grads(vf.linear_bernoulli_log_prob, leaves, x, block_rows=4, **option)
        if reduction == "mean":
            # Over the rows: the density's own is over data, and sums events.
            option = {"reduction": "sum", "scale": -0.5 / 44}
        torch.testing.assert_close(found, with_grads(two_calls, leaves, x, **option))

    def test_of_strided_operands(self):
        leaves, x = draw(dtype=torch.float64)
        h, weight, bias = leaves
        strided = h.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
        turned = weight.detach().T.contiguous().T.requires_grad_()
        wide = torch.stack([x, x], -1)[..., 0]
        found = with_grads(vf.linear_bernoulli_log_prob, (strided, turned, bias), wide, block_rows=4)
        torch.testing.assert_close(found, with_grads(two_calls, leaves, x))


class TestGradients:
    @pytest.mark.parametrize("wanted", range(3), ids=["h", "weight", "bias"])
    def test_of_one_alone(self, wanted):
        leaves, x = draw(dtype=torch.float64)
        for k, leaf in enumerate(leaves):
            leaf.requires_grad_(k == wanted)
        out = vf.linear_bernoulli_log_prob(*leaves, x, block_rows=4)
        (found,) = torch.autograd.grad(out.sum(), leaves[wanted])
        (expected,) = torch.autograd.grad(two_calls(*leaves, x).sum(), leaves[wanted])
        torch.testing.assert_close(found, expected)

    def test_numerically_and_of_gradients(self):
        leaves, x = draw(((2, 3, H), (3, D)), torch.float64)
        assert torch.autograd.gradcheck(lambda *t: vf.linear_bernoulli_log_prob(*t, x, block_rows=2), leaves)
        assert torch.autograd.gradgradcheck(lambda *t: vf.linear_bernoulli_log_prob(*t, x, block_rows=2), leaves)

    def test_of_targets(self):
        leaves, x = draw(dtype=torch.float64)
        x.requires_grad_()
        (found,) = torch.autograd.grad(vf.linear_bernoulli_log_prob(*leaves, x).sum(), x)
        torch.testing.assert_close(found, linear(*leaves).sum(0))

    @pytest.mark.parametrize("recompute", [True, False], ids=["again", "kept"])
    def test_what_is_held(self, recompute):
        """The operands; and one table of derivatives by the logits, in blocks, unless they are to be made again."""
        leaves, x = draw()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            vf.linear_bernoulli_log_prob(*leaves, x, block_rows=4, recompute=recompute)
        operands = [t.numel() for t in (*leaves, x)]
        assert kept[:4] == operands and sum(kept[4:]) == (0 if recompute else 4 * 11 * D)

    @pytest.mark.parametrize("recompute", [True, False], ids=["again", "kept"])
    def test_twice(self, recompute):
        leaves, x = draw()
        out = vf.linear_bernoulli_log_prob(*leaves, x, block_rows=4, recompute=recompute).sum()
        first = torch.autograd.grad(out, leaves, retain_graph=True)
        assert same_bits(first, torch.autograd.grad(out, leaves))


class TestSettings:
    def test_under_transforms(self):
        leaves, x = draw(dtype=torch.float64)
        h, weight, bias = (t.detach() for t in leaves)

        def call(h, x):
            return vf.linear_bernoulli_log_prob(h, weight, bias, x, reduction="sum", block_rows=2)

        found = vmap(grad(call), in_dims=(1, 0))(h, x)
        expected = torch.stack([grad(call)(h[:, k], x[k]) for k in range(len(x))])
        torch.testing.assert_close(found, expected)

    def test_compiled(self):
        leaves, x = draw(dtype=torch.float64)
        compiled = torch.compile(vf.linear_bernoulli_log_prob, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(with_grads(compiled, leaves, x), with_grads(two_calls, leaves, x))

    def test_under_autocast(self):
        """The products are in bfloat16, as linear's are; gradients come in the leaves' dtypes."""
        leaves, x = draw()
        kind = leaves[0].device.type
        with torch.autocast(kind, torch.bfloat16):
            found = with_grads(vf.linear_bernoulli_log_prob, leaves, x, block_rows=4)
            expected = with_grads(two_calls, leaves, x)
        assert [t.dtype for t in found] == [torch.float32] * 4
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.3)
        exact = with_grads(two_calls, leaves, x)
        assert not torch.equal(found[0], exact[0])

    @pytest.mark.parametrize("shape", [(0, 5, H), (3, 0, H)])
    def test_no_rows(self, shape):
        leaves, _ = draw((shape, (5, D)))
        x = torch.rand(shape[1], D)
        out, *grads = with_grads(vf.linear_bernoulli_log_prob, leaves, x)
        assert out.shape == shape[:2] and all(not g.any() for g in grads)

    def test_the_named_backend_serves(self):
        leaves, x = draw()
        found = vf.linear_bernoulli_log_prob(*leaves, x, block_rows=44, backend="reference")
        assert same_bits([found], [two_calls(*leaves, x, backend="reference")])


@pytest.mark.parametrize(
    ("h", "weight", "bias", "x", "options", "match"),
    [
        ((3, H), (D, H + 1), (D,), (3, D), {}, r"h must be \[..., H\]"),
        ((), (D, H), (D,), (3, D), {}, r"h must be \[..., H\]"),
        ((3, H), (D, H), (D + 1,), (3, D), {}, r"bias must be \[D\]"),
        ((3, H), (D, H), (D,), (4, D), {}, r"x must be \[\*data, D\]"),
        ((3, H), (D, H), (D,), (2, 3, D), {}, r"x must be \[\*data, D\]"),
        ((3, H), (D, H), (D,), (3, D + 1), {}, r"x must be \[\*data, D\]"),
        ((3, H), (D, H), (D,), (3, D), {"block_rows": 0}, "block_rows must be a positive int"),
        ((3, H), (D, H), (D,), (3, D), {"reduction": "max"}, "reduction"),
        ((3, H), (D, H), (D,), (3, D), {"backend": "abacus"}, "abacus"),
    ],
)
def test_what_does_not_fit(h, weight, bias, x, options, match):
    with pytest.raises(ValueError, match=match):
        vf.linear_bernoulli_log_prob(*(torch.zeros(s) for s in (h, weight, bias, x)), **options)


@pytest.mark.parametrize("other", [1, 2, 3])
def test_tensors_of_two_devices(other):
    """PyTorch's product of them would be memory that nobody wrote."""
    tensors = [torch.zeros(3, H), torch.zeros(D, H), torch.zeros(D), torch.zeros(3, D)]
    tensors[other] = tensors[other].to("meta")
    with pytest.raises(ValueError, match="h is on cpu, .* on meta"):
        vf.linear_bernoulli_log_prob(*tensors)

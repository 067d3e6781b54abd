"""Operands, targets, weights and upstream gradients of any strides, for every operator: as contiguous copies."""

import pytest
import torch

from helpers import behaviour
from helpers.calls import CALLS
from helpers.cases import Case, each_case
from helpers.marks import each_backend, each_call, each_density, each_operand, each_with_x

pytestmark = each_backend


@each_case("plain", "elementwise", "sum", "weight", "samples")
def test_operands_together_and_one_at_a_time(case):
    behaviour.check_layouts(case, *case.inputs(torch.float32, (4, 3, 5, 3)))


@each_case("plain", "two_event_dims", "samples")
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_expanded(case, dim):
    behaviour.check_expanded(case, *case.inputs(torch.float32), dim=dim)


@each_case("plain", "elementwise", "two_event_dims", "sum", "weight", "samples")
def test_upstream_gradients(case):
    behaviour.check_upstreams(case, *case.inputs(torch.float32))


# Shapes that broadcast to (5, 2, 3).
SMALL = ((3,), (5, 1, 1), (2, 1), ())


@each_call
def test_gradients_have_their_operands_shape(call):
    """Of operands that are smaller than others: their copies' gradients, summed."""
    full, n = (5, 2, 3), len(call.operands)
    shapes = [[small if k == i else full for k in range(n)] for i in range(n) for small in SMALL]
    shapes += [[full, *SMALL[: n - 1]], [*SMALL[1:n], full]]
    for each in shapes:
        if not call.density and torch.broadcast_shapes(*each[:2]) != full:
            continue  # to a prior, which makes no sample of another shape
        tensors = [call.draw(shape, torch.float64)[k] for k, shape in enumerate(each)]
        for options in [{"event_ndim": n} for n in (0, 1, 2)] if call.event else [{"sample_shape": (2,)}]:
            behaviour.check_shape_of_gradient(Case(call, "small", options), tensors, full)


def is_close(these, those):
    """Sums in another order differ by some 1e-6 of Σ|terms|; an element read from a wrong place by O(1)."""
    for a, b in zip(these, those, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)


def transposed(value):
    return value.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(value):
    """Every second element of something larger, not from its start."""
    larger = torch.full([2 * n + 3 for n in value.shape], torch.nan).to(value.dtype)
    window = larger[tuple(slice(1, 2 * n + 1, 2) for n in value.shape)]
    return window.copy_(value)


def channels_last(value):
    return value.contiguous(memory_format=torch.channels_last)


def negative_bit(value):
    return torch._neg_view(-value)


def expanded_data(value):
    return value[:1].expand(value.shape)


def expanded_events(value):
    return value[..., :1].expand(value.shape)


VIEWS = (transposed, sliced, channels_last, negative_bit, expanded_data, expanded_events)
BYTES = (transposed, sliced, channels_last, expanded_data, expanded_events)


class TestViews:
    @each_operand(*CALLS)
    @pytest.mark.parametrize("view", VIEWS)
    def test_views(self, call, i, view):
        tensors = [t.detach() for t in call.draw((2, 3, 4, 5))]
        odd = view(tensors[i])
        if view is negative_bit:
            assert odd.is_neg()
        for options in ({"event_ndim": 1}, {"event_ndim": 3}) if call.event else ({},):
            leaves = [t.requires_grad_() for t in [odd.detach() if k == i else t for k, t in enumerate(tensors)]]
            plain = [t.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for t in leaves]
            is_close(call.with_grads(*leaves, **options), call.with_grads(*plain, **options))

    @each_with_x
    @pytest.mark.parametrize("view", BYTES)
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool], ids=str)
    def test_views_of_targets(self, call, view, dtype):
        *tensors, _ = call.draw((2, 3, 4, 5))
        x = view(torch.randint(0, 2, (2, 3, 4, 5)).to(dtype))
        plain = x.clone(memory_format=torch.contiguous_format)
        is_close(call.with_grads(*tensors, x, event_ndim=3), call.with_grads(*tensors, plain, event_ndim=3))

    @each_density
    @pytest.mark.parametrize("view", VIEWS)
    def test_views_of_weights(self, call, view):
        tensors = call.draw((2, 3, 4, 5))
        weight = view(torch.rand(2, 3, 4, 5))
        plain = weight.clone(memory_format=torch.contiguous_format)
        for reduction in ("none", "sum"):
            options = {"event_ndim": 2, "reduction": reduction}
            odd = call.with_grads(*tensors, weight=weight, **options)
            is_close(odd, call.with_grads(*tensors, weight=plain, **options))

    @each_call
    def test_all_in_channels_last(self, call):
        tensors = call.draw((2, 3, 4, 5))
        options = {"event_ndim": 3} if call.event else {}
        odd = [channels_last(t.detach()).requires_grad_() for t in tensors]
        is_close(call.with_grads(*odd, **options), call.with_grads(*tensors, **options))


def from_sum(out):
    return torch.tensor(1.5).expand(out.shape)


def from_cat(out):
    whole = torch.randn(*out.shape[:-1], out.shape[-1] + 7)
    return whole[..., 5:-2]


def from_transpose(out):
    return torch.randn(out.shape[::-1]).permute(*reversed(range(out.ndim)))


def from_negative(out):
    return negative_bit(torch.randn(out.shape))


def from_row(out):
    return torch.randn(out.shape[-1:]).expand(out.shape)


class TestUpstream:
    @each_call
    @pytest.mark.parametrize("strided", [from_sum, from_cat, from_transpose, from_negative, from_row])
    def test_gradients_of_any_stride(self, call, strided):
        tensors = call.draw((3, 4, 5))
        made = []

        def odd(out):
            made.append(strided(out))
            return made[-1]

        ours = call.with_grads(*tensors, upstream=odd)
        again = iter(made)
        plain = call.with_grads(
            *tensors, upstream=lambda out: next(again).clone(memory_format=torch.contiguous_format)
        )
        is_close(ours, plain)

    @each_call
    @pytest.mark.parametrize("strided", [from_sum, from_transpose])
    def test_elementwise_and_sampled(self, call, strided):
        tensors = call.draw((3, 4, 5))
        options = {"event_ndim": 0} if call.event else {}
        if not call.density:
            options["sample_shape"] = (2,)
        made = []

        def odd(out):
            made.append(strided(out))
            return made[-1]

        ours = call.with_grads(*tensors, upstream=odd, **options)
        again = iter(made)
        is_close(ours, call.with_grads(*tensors, upstream=lambda out: next(again).contiguous(), **options))

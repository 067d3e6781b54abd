"""Options of every operator that has them: reductions and events, σ's parametrisations, numbers for operands."""

import pytest
import torch
from torch.testing import assert_close

from helpers import accuracy
from helpers.behaviour import sigma_of, with_grads
from helpers.calls import CALLS, COUNTS, DENSITIES, KL_PRIOR, PROBS
from helpers.cases import PARAMS
from helpers.marks import each_backend, each_density, each_with_x

pytestmark = each_backend

each_gaussian = pytest.mark.parametrize("call", [c for c in CALLS if "logvar" in c.operands], ids=str)


def inputs(call, shape=(4, 2, 3), dtype=torch.float64):
    return [t.detach() for t in call.draw(shape, dtype)]


@each_density
def test_events_and_reductions(call):
    tensors = inputs(call, (5, 2, 3))
    (element,) = call(*tensors, event_ndim=0)
    for event_ndim in range(4):
        (out,) = call(*tensors, event_ndim=event_ndim)
        assert_close(out, element.reshape(*(5, 2, 3)[: 3 - event_ndim], -1).sum(-1))
        (total,) = call(*tensors, event_ndim=event_ndim, reduction="sum", scale=-2.0)
        assert_close(total, -2 * element.sum())
        (mean,) = call(*tensors, event_ndim=event_ndim, reduction="mean")
        assert_close(mean, out.mean())


# Four operands of 4·10⁶ elements are more than the test is worth, and so are a count's formulas.
LONG = [(call, (1, 4 * 10**6)) for call in DENSITIES if call is not KL_PRIOR and not call.counted]
SUMS = [
    *LONG,
    *((call, (10**4, 100)) for call in DENSITIES if not call.counted),
    *((call, (2, 40000)) for call in COUNTS),
]


@pytest.mark.parametrize(("call", "shape"), SUMS, ids=str)
def test_sums_of_many_terms(call, shape):
    tensors = [t if call is PROBS or call.counted else 2 * t for t in inputs(call, shape, torch.float32)]
    terms = call(*tensors, event_ndim=0)[0].double()
    total = call(*tensors)[0].double()
    assert ((total - terms.sum(-1)).abs() <= accuracy.rows_bound(shape[-1]) * terms.abs().sum(-1)).all()
    total = call(*tensors, reduction="sum")[0].double()
    assert (total - terms.sum()).abs() <= accuracy.rows_bound(terms.numel()) * terms.abs().sum()


@each_density
def test_sums_over_several_dims(call):
    tensors = inputs(call, (16, 3, 64, 64), torch.float32)
    terms = call(*tensors, event_ndim=0)[0].double()
    total = call(*tensors, event_ndim=3)[0].double()
    bound = accuracy.rows_bound(3 * 64 * 64) * terms.abs().sum((1, 2, 3))
    assert ((total - terms.sum((1, 2, 3))).abs() <= bound).all()


@each_gaussian
@pytest.mark.parametrize("param", PARAMS)
@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("bounds", [None, (0.4, 1.1)], ids=str)
def test_param_is_what_it_says(call, param, eps, bounds):
    """The call with log σ² in the place of the argument, σ being what the documentation says; gradients too."""
    sigma = sigma_of(param, eps)
    scales = [name.endswith("logvar") for name in call.operands]
    tensors = [0.2 + t.abs() if scale else t for t, scale in zip(inputs(call), scales, strict=True)]
    options = {"event_ndim": 0} if call.event else {}

    def converted(*operands):
        clamped = [t.clamp(*bounds) if bounds else t for t in operands]
        log_vars = [2 * torch.log(sigma(t)) for t in clamped]
        return call(*(v if s else t for v, t, s in zip(log_vars, operands, scales, strict=True)), **options)

    got = with_grads(lambda *t: call(*t, param=param, param_eps=eps, bounds=bounds, **options), *tensors)
    assert_close(got, with_grads(converted, *tensors))


@each_gaussian
def test_a_number_for_the_scale(call):
    """It promotes nothing, and has no gradient."""
    tensors = inputs(call)
    k = call.operands.index("logvar")

    def with_number(*others, value=-0.4):
        return call(*others[:k], value, *others[k:])

    others = [t for i, t in enumerate(tensors) if i != k]
    want = with_grads(lambda *t: with_number(*t, value=torch.full_like(tensors[k], -0.4)), *others)
    assert_close(with_grads(with_number, *others), want)
    assert with_number(*(t.float() for t in others))[0].dtype == torch.float32


@each_with_x
def test_samples_of_parameters_share_their_targets(call):
    *parameters, _ = inputs(call, (7, 5, 3))
    x = inputs(call, (5, 3))[-1]
    want = torch.stack([call(*one, x)[0] for one in zip(*parameters, strict=True)])
    assert_close(call(*parameters, x)[0], want)

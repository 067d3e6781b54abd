"""Random calls of every operator: shapes, strides, dtypes of each operand, options and special values."""

import math
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from helpers.calls import BERNOULLI, CALLS, PROBS, RSAMPLE, RSAMPLE_KL, Call

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGETS = (*FLOATS, torch.uint8, torch.bool)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
KL_PRIOR_MU = Call("gaussian_kl", ("mu", "logvar", "prior_mu"))
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0)
# Sizes at the edges of packs, tiles and pieces; rarely long.
SIZES = st.sampled_from((1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 33, 0))
LONG = st.sampled_from((127, 257, 511, 513, 1100))


@st.composite
def shapes(draw):
    shape = draw(st.lists(SIZES, min_size=0, max_size=4))
    if shape and draw(st.integers(0, 3)) == 0:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(LONG)
    while math.prod(shape) > 40_000:
        shape[shape.index(max(shape))] //= 4
    return tuple(shape)


def laid_out(draw, value):
    """The same values at other strides and offsets of memory; what lies between them is NaN (or 77)."""
    if value.dtype == torch.bool:
        # Laid out as bytes: True is any but 0, as in memory that another library filled.
        true = torch.tensor(draw(st.sampled_from((1, 1, 2, 77, 128, 255))), dtype=torch.uint8)
        return laid_out(draw, torch.where(value, true, 0)).view(torch.bool)
    odd = torch.nan if value.is_floating_point() else 77
    kind = draw(st.sampled_from(("contiguous", "permuted", "strided", "cut", "offset", "repeated")))
    if kind == "permuted" and value.ndim > 1:
        order = draw(st.permutations(range(value.ndim)))
        back = [order.index(d) for d in range(value.ndim)]
        return value.permute(order).contiguous().permute(back)
    if kind == "strided" and value.ndim:
        wide = torch.full((*value.shape, 2), odd, dtype=value.dtype)
        wide[..., 1] = value
        return wide[..., 1]
    if kind == "cut" and value.ndim:
        dim = draw(st.integers(0, value.ndim - 1))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        shape = list(value.shape)
        shape[dim] += before + after
        room = torch.full(shape, odd, dtype=value.dtype)
        return room.narrow(dim, before, value.shape[dim]).copy_(value)
    if kind == "offset":
        memory = torch.full((value.numel() + 3,), odd, dtype=value.dtype)
        return memory[draw(st.integers(1, 3)) :][: value.numel()].view(value.shape).copy_(value)
    if kind == "repeated" and value.ndim:
        dim = draw(st.integers(0, value.ndim - 1))
        if value.shape[dim]:
            return value.narrow(dim, 0, 1).expand(value.shape)
    return value.contiguous()


def operand(draw, shape, dtype, positive=False, probability=False, masks=False):
    """An operand that broadcasts to the shape, perhaps smaller; ``masks``: zeros among its values."""
    own = [1 if draw(st.integers(0, 4)) == 0 else n for n in shape]
    own = own[draw(st.integers(0, len(own))) if draw(st.integers(0, 5)) == 0 else 0 :]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if dtype == torch.bool:
        value = torch.rand(own, generator=generator) < 0.5
    elif dtype == torch.uint8:
        value = torch.randint(0, 256, own, generator=generator).to(dtype)
    else:
        value = torch.randn(own, generator=generator, dtype=torch.float64) * draw(st.sampled_from((0.1, 1.0, 3.0)))
        value = value.abs() + 0.25 if positive else value.mul(5).sigmoid() if probability else value
        value = value.to(dtype)
        if masks and draw(st.booleans()):
            value[torch.rand(own, generator=generator) < 0.5] = 0.0
        if value.numel() and draw(st.integers(0, 5)) == 0:
            value.view(-1)[draw(st.integers(0, value.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    return laid_out(draw, value)


class Case(NamedTuple):
    """A call, and what of it is differentiated: ``needs`` has one entry an operand, and one for the weight."""

    call: Call
    tensors: list[torch.Tensor]
    options: dict[str, Any]
    needs: list[bool]
    seed: int
    upstream: str

    @property
    def shape(self):
        weight = self.options.get("weight")
        operands = self.tensors if weight is None else (*self.tensors, weight)
        return torch.broadcast_shapes(*(t.shape for t in operands))


@st.composite
def dtypes(draw, names):
    """A dtype for each operand, of one kind in half of the cases; targets may be bytes in any."""
    common = draw(st.sampled_from(FLOATS)) if draw(st.booleans()) else None
    return [
        draw(st.sampled_from(TARGETS)) if name == "x" else common or draw(st.sampled_from(FLOATS)) for name in names
    ]


def gaussian_options(draw):
    return {
        "param": draw(st.sampled_from(PARAMS)),
        "param_eps": draw(st.sampled_from((0.0, 0.125))),
        "bounds": draw(st.sampled_from((None, None, (-1.0, 1.5), (None, 0.75)))),
    }


@st.composite
def cases(draw):
    call = draw(st.sampled_from((*CALLS, KL_PRIOR_MU)))
    shape = draw(shapes())
    options = dict(call.options)
    if call not in (BERNOULLI, PROBS):
        options |= gaussian_options(draw)
    positive = options.get("param") in ("std", "var")
    tensors = []
    for k, (name, dtype) in enumerate(zip(call.operands, draw(dtypes(call.operands)), strict=True)):
        of_probs = call is PROBS and k == 0
        value = operand(draw, shape, dtype, positive=positive and "logvar" in name, probability=of_probs)
        tensors.append(value)
    if "x" in call.operands:
        # A target and parameters of unequal numbers of dims may make a table, which raises.
        most = max(t.ndim for t in tensors)
        tensors[0], tensors[-1] = (t[(None,) * (most - t.ndim)] if t.ndim else t for t in (tensors[0], tensors[-1]))
    if call.density:
        options["reduction"] = draw(st.sampled_from(("none", "sum", "mean")))
        options["scale"] = draw(st.sampled_from((1.0, -1.0, 0.3)))
        if draw(st.booleans()):
            options["weight"] = operand(draw, shape, draw(st.sampled_from(TARGETS)), masks=True)
    if call in (RSAMPLE, RSAMPLE_KL):
        options["sample_shape"] = draw(st.sampled_from(((), (), (1,), (3,), (2, 2), (0,))))
        options["offset"] = draw(st.sampled_from((0, 1, 2, 3, 2**32 * 4 - 9, -17)))
        options["first_sample"] = draw(st.sampled_from((0, 5, 2**32 - 4)))
    if call.op in ("rsample_kl", "gaussian_kl"):
        options["free_bits"] = draw(st.sampled_from((None, None, 0.3)))
    if "x" in call.operands:
        options["x_scale"] = draw(st.sampled_from((1.0, 1 / 255, 0.5)))
    needs = draw(st.lists(st.booleans(), min_size=len(tensors) + 1, max_size=len(tensors) + 1))
    case = Case(
        call, tensors, options, needs, draw(st.integers(0, 2**31)), draw(st.sampled_from(("ones", "any", "view")))
    )
    if call.event:
        options["event_ndim"] = draw(st.integers(0, len(case.shape)))
    return case

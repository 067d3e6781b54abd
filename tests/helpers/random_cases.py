"""Random calls of every operator: shapes, strides, dtypes of each operand, options and special values."""

import math
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from helpers.calls import BERNOULLI, CALLS, PLAIN, POISSON, PROBS, Call

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGETS = (*FLOATS, torch.uint8, torch.bool)
COUNTS = (*TARGETS, torch.int16, torch.int32, torch.int64)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
KL_PRIOR_MU = Call("gaussian_kl", ("mu", "logvar", "prior_mu"))
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0)
# Of a count's mean and θ, which are not negative.
SPECIAL_OF_COUNTS = (0.0, math.inf, math.nan, 1.0, 2.0**-20)
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


def sizes(draw, shape):
    """Those of an operand that broadcasts to the shape, perhaps smaller; and what draws its values."""
    own = [1 if draw(st.integers(0, 4)) == 0 else n for n in shape]
    own = own[draw(st.integers(0, len(own))) if draw(st.integers(0, 5)) == 0 else 0 :]
    return own, torch.Generator().manual_seed(draw(st.integers(0, 2**31)))


def counts(draw, shape, dtype):
    """Many are 0, few are large: the truth takes a step a count."""
    own, generator = sizes(draw, shape)
    value = torch.randint(-6, draw(st.sampled_from((2, 13, 40))), own, generator=generator).clamp(min=0)
    if value.numel() and draw(st.integers(0, 5)) == 0:
        value.view(-1)[draw(st.integers(0, value.numel() - 1))] = 100 if dtype == torch.uint8 else 300
    return laid_out(draw, value.to(dtype))


def operand(draw, shape, dtype, positive=False, probability=False, masks=False, special=SPECIAL):
    """An operand that broadcasts to the shape; ``masks``: zeros among its values."""
    own, generator = sizes(draw, shape)
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
            value.view(-1)[draw(st.integers(0, value.numel() - 1))] = draw(st.sampled_from(special))
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
        weights = [self.options.get(name) for name in ("weight", "pos_weight")]
        operands = [t for t in (*self.tensors, *weights) if t is not None]
        return torch.broadcast_shapes(*(t.shape for t in operands))


@st.composite
def dtypes(draw, names, data=TARGETS):
    """A dtype for each operand, of one kind in half of the cases; data may be bytes in any."""
    common = draw(st.sampled_from(FLOATS)) if draw(st.booleans()) else None
    return [
        draw(st.sampled_from(data)) if name == "x" else common or draw(st.sampled_from(FLOATS)) for name in names
    ]


def form(draw, prefix=""):
    form = {
        "param": draw(st.sampled_from(PARAMS)),
        "param_eps": draw(st.sampled_from((0.0, 0.125))),
        "bounds": draw(st.sampled_from((None, None, (-1.0, 1.5), (None, 0.75)))),
    }
    return {prefix + name: value for name, value in form.items()}


def gaussian_options(draw, call):
    options = form(draw) | {"bounds_grad": draw(st.sampled_from(("zero", "zero", "pass")))}
    if not call.has("prior_param"):
        return options
    if draw(st.booleans()):
        return options | form(draw, "prior_")
    return options | {f"prior_{name}": options[name] for name in ("param", "param_eps", "bounds")}


def counted_options(draw, call):
    """Words of which only those of a softmax over events are not for one element alone."""
    names = {"param": ("mean", "log_mean"), "theta_param": ("theta", "log_theta")}
    names |= {"param": ("rate", "log_rate")} if call is POISSON else {}
    words = {name: draw(st.sampled_from(of)) for name, of in names.items() if call.has(name)}
    return words | {"eps": draw(st.sampled_from((0.0, 0.0, 0.125)))}


def fits(shape, other):
    """Whether it broadcasts to the other shape."""
    try:
        return torch.broadcast_shapes(shape, other) == torch.Size(other)
    except RuntimeError:
        return False


def drawn_options(draw, samples, shape):
    """What a sampler draws from, or the noise itself."""
    options = {
        "offset": draw(st.sampled_from((0, 1, 2, 3, 2**32 * 4 - 9, -17))),
        "first_sample": draw(st.sampled_from((0, 5, 2**32 - 4))),
        "stream": draw(st.sampled_from((0, 0, 1, 2**32 - 1))),
        "noise": None,
    }
    if draw(st.integers(0, 3)):
        return options
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.randn((*samples, *shape), generator=generator).to(draw(st.sampled_from(FLOATS)))
    noise = laid_out(draw, noise)
    return options | {"seed": None, "offset": 0, "first_sample": 0, "stream": 0, "noise": noise}


@st.composite
def cases(draw):
    call = draw(st.sampled_from((*CALLS, KL_PRIOR_MU)))
    shape = draw(shapes())
    options = dict(call.options)
    if call.counted:
        options |= counted_options(draw, call)
    elif call in PLAIN:
        options |= {"param": draw(st.sampled_from(("scale", "log_scale")))} if call.has("param") else {}
    elif call not in (BERNOULLI, PROBS):
        options |= gaussian_options(draw, call)
    params = {"logvar": options.get("param"), "prior_logvar": options.get("prior_param")}
    params |= {"mean": options.get("param"), "rate": options.get("param"), "theta": options.get("theta_param")}
    tensors = []
    of_each = draw(dtypes(call.operands, COUNTS if call.counted else TARGETS))
    for k, (name, dtype) in enumerate(zip(call.operands, of_each, strict=True)):
        of_probs = call is PROBS and k == 0
        if call.counted and name == "x":
            value = counts(draw, shape, dtype)
        elif call.counted and params.get(name) == name:
            value = operand(draw, shape, dtype, positive=True, special=SPECIAL_OF_COUNTS)
        else:
            of_scale = name == "df" or (name in ("b", "sigma") and options["param"] == "scale")
            positive = of_scale or params.get(name) in ("std", "var")
            special = SPECIAL_OF_COUNTS if of_scale else SPECIAL
            value = operand(draw, shape, dtype, positive, of_probs, special=special)
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
    else:
        samples = options["sample_shape"] = draw(st.sampled_from(((), (), (1,), (3,), (2, 2), (0,))))
        moments = torch.broadcast_shapes(*(t.shape for t in tensors[:2]))
        # A prior makes no sample of another shape.
        tensors[2:] = [t if fits(t.shape, moments) else t.new_tensor(0.5) for t in tensors[2:]]
        options |= drawn_options(draw, samples, moments)
        if call.has("temperature"):
            options["temperature"] = draw(st.sampled_from((1.0, 1.0, 0.0, 0.625)))
        if call.has("q_grad"):
            options["q_grad"] = draw(st.sampled_from(("total", "path")))
    if call is BERNOULLI and draw(st.integers(0, 3)) == 0:
        options["pos_weight"] = operand(draw, shape, draw(st.sampled_from(TARGETS)), positive=True)
    if call.op in ("rsample_kl", "gaussian_kl"):
        options["free_bits"] = draw(st.sampled_from((None, None, 0.3)))
    if call.has("x_scale"):
        options["x_scale"] = draw(st.sampled_from((1.0, 1 / 255, 0.5)))
    needs = draw(st.lists(st.booleans(), min_size=len(tensors) + 1, max_size=len(tensors) + 1))
    needs = [need and k not in call.constants for k, need in enumerate(needs)]
    case = Case(
        call, tensors, options, needs, draw(st.integers(0, 2**31)), draw(st.sampled_from(("ones", "any", "view")))
    )
    if call.event:
        options["event_ndim"] = draw(st.integers(0, len(case.shape)))
    return case

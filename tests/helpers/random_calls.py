"""Calls of Triton's launchers at random: of every operator, with operands that lie and are typed in every way."""

import math
import random

import torch

from helpers.launched_calls import made
from vae_fast.checks import FLOATS, dtypes_of
from vae_fast.operators import OPERATORS
from vae_fast.triton_kernels import operators

INF = math.inf
SHAPES = ((5, 7), (4, 8), (3, 2, 16), (1, 1), (32, 64), (2, 0), (3, 1500))
# Of options that are no codes and no numbers of the noise.
CHOICES = {
    "event_ndim": (0, 1, 1, 2),
    "scale": (1.0, -1.0, 0.3),
    "x_scale": (1.0, 1 / 255),
    "param_eps": (0.0, 0.0, 0.1),
    "prior_param_eps": (0.0, 0.0, 0.1),
    "eps": (0.0, 1e-8),
    "low": (-INF, -INF, 0.1),
    "prior_low": (-INF, -INF, 0.1),
    "high": (INF, INF, 2.0),
    "prior_high": (INF, INF, 2.0),
    "free_bits": (None, 0.1, 0.2),
    "temperature": (1.0, 1.0, 0.7, 0.8),
    "offset": (0, 4, 8, 1, 6),
    "first_sample": (0, 3, 2**32),
    "sample_shape": ((), (), (2,), (3, 2), (16,)),
    "shape": SHAPES,
    "dtype": FLOATS,
    "device": (torch.device("cpu"),),
}
NEIGHBOURS = 5
LAUNCHED = [name for name in OPERATORS if hasattr(operators.KERNELS, f"{name}_fwd")]


def layout(draw, shape, dtype):
    """A tensor of a shape: dense, in another order, between others, at an odd address, or one number many times."""
    kind = draw.choice(("dense", "dense", "dense", "order", "step", "odd", "repeated"))
    if kind == "order":
        return torch.empty(shape[::-1], dtype=dtype).permute(tuple(reversed(range(len(shape)))))
    if kind == "step" and shape:
        return torch.empty((*shape[:-1], 2 * shape[-1]), dtype=dtype)[..., : shape[-1]]
    if kind == "odd":
        return torch.empty(math.prod(shape) + 1, dtype=dtype)[1:].view(shape)
    if kind == "repeated" and shape:
        return torch.empty((1, *shape[1:]), dtype=dtype).expand(shape)
    return torch.empty(shape, dtype=dtype)


def broadcast(draw, shape):
    """What broadcasts to a shape."""
    kind = draw.choice(("all", "all", "all", "feature", "datum", "number"))
    return {"all": shape, "feature": shape[1:], "datum": (*shape[:-1], 1), "number": ()}[kind]


def signs(draw, tensor):
    """The tensor, sometimes as one that is negated on the fly."""
    floats = tensor is not None and tensor.is_floating_point()
    return torch._neg_view(tensor) if floats and draw.random() < 0.05 else tensor


def options_of(draw, operator, like):
    """Values of all options. The noise has the shape of a sample of ``like``'s."""
    values = {}
    for option in operator.options:
        codes = [n for word, n in (option.codes or {}).items() if word != "softmax"]
        if codes:
            values[option.name] = draw.choice(codes)
        elif option.name == "seed":
            values[option.name] = draw.randrange(-(2**63), 2**63)
        elif option.name == "seed_tensor":
            values[option.name] = draw.choice((None, None, torch.zeros(1, dtype=torch.int64)))
        elif option.name != "noise":
            values[option.name] = draw.choice(CHOICES[option.name])
    if any(option.name == "noise" for option in operator.options):
        shape = (*values["sample_shape"], *like)
        values["noise"] = draw.choice((None, None, signs(draw, layout(draw, shape, torch.float32))))
    return values


def another(draw, tensor, dtypes):
    """A tensor of the same shape that lies otherwise, or is of another dtype; most are no other class."""
    dtype = draw.choice((tensor.dtype, tensor.dtype, *dtypes))
    return signs(draw, layout(draw, tuple(tensor.shape), dtype))


def varied(draw, operator, args, upstream):
    """The arguments with one of them another, so that what is kept of their class may be of no use."""
    tensors = upstream + len(operator.operands)
    options = tensors + len(operator.options)
    args, place = list(args), draw.randrange(len(args))
    value = args[place]
    if isinstance(value, torch.Tensor):
        own = upstream <= place < tensors
        args[place] = another(draw, value, dtypes_of(operator.operands[place - upstream]) if own else FLOATS)
    elif tensors <= place < options:
        option = operator.options[place - tensors]
        if option.name == "seed_tensor":
            args[place] = torch.zeros(1, dtype=torch.int64)
        elif option.codes:
            args[place] = draw.choice([n for word, n in option.codes.items() if word != "softmax"])
        elif option.name in CHOICES:
            args[place] = draw.choice(CHOICES[option.name])
    elif isinstance(value, bool):
        args[place] = not value
    return tuple(args)


def random_calls(seed):
    """A raw operator's calls, each its function and arguments, of which some may be refused.

    One call at random, and others of which each differs from the one before in one argument.
    """
    draw = random.Random(seed)
    operator = OPERATORS[draw.choice(LAUNCHED)]
    shape, main = draw.choice(SHAPES), draw.choice((torch.float32, torch.float32, *FLOATS))
    operands = {}
    for k, operand in enumerate(operator.operands):
        size = shape if k == 0 else broadcast(draw, shape)
        dtype = draw.choice((main, main, main, *dtypes_of(operand)))
        tensor = layout(draw, size, dtype)
        absent = operand.optional and draw.random() < 0.7 or operand.name == "log_library"
        operands[operand.name] = None if absent else signs(draw, tensor)
    options = options_of(draw, operator, shape)
    backward = operator.backward is not None and draw.random() < 0.5
    if operator.packed and draw.random() < 0.2:
        both = torch.empty((*shape[:-1], 2 * shape[-1]), dtype=main)
        operands["mu" if "mu" in operands else "mean"], operands["logvar"] = both.chunk(2, -1)
    needs = [name for name in operands if draw.random() < 0.7]
    upstream = []
    dtype = draw.choice((torch.float32, main))
    for result in operator.results if backward else ():
        if result in operator.sums:
            size = () if options.get("reduction") else shape[: len(shape) - options["event_ndim"]]
            size = (*(options["sample_shape"] if operator.of_samples else ()), *size)
        else:
            size = (*options["sample_shape"], *shape)
        absent = len(operator.results) > 1 and draw.random() < 0.2
        upstream.append(None if absent else signs(draw, layout(draw, size, dtype)))
    function, args = made(operator.name, operands, options, needs, tuple(upstream) if backward else None)
    calls = [(function, args)]
    for _ in range(NEIGHBOURS):
        args = varied(draw, operator, args, len(upstream))
        calls.append((function, args))
    return calls

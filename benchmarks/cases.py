"""What is timed: operators × shapes × dtypes × passes, their operands, and the bytes that have to move."""

import math
from dataclasses import dataclass

import torch

from vae_fast.operators import DATA, OPERATORS

from .providers import COUNTS, PROVIDERS, serves

OPS = tuple(OPERATORS)
# Of a user's shape, where none is chosen: a bound's terms.
TERMS = tuple(op for op in OPS if op not in ("standard_normal", "rsample"))

PASSES = ("forward", "backward", "both")
# Small, middle, large; the same for every run, so that runs can be compared. Latent vectors, and data.
_LATENT, _DATA = ((100, 20), (512, 64), (4096, 128)), ((100, 784), (512, 784), (4096, 3072))
SHAPES = {op: _DATA if any(o.role == DATA for o in OPERATORS[op].operands) else _LATENT for op in OPS}
SHAPES["gaussian_log_prob"] = ((100, 560), *_DATA[1:])
# One element: what a call costs before there is anything to do.
ONE = (1, 1)
# Of a GPU: each operand several times its cache, or nearly.
LARGE = (4096, 3072)
DTYPES = ("float32", "float64", "bfloat16", "float16", "float32-uint8", "bfloat16-uint8")


@dataclass(frozen=True)
class Case:
    """An operator on operands of one shape. ``dtype`` may name another one for the targets: "float32-uint8"."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    passing: str

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def floating(self):
        return getattr(torch, self.dtype.partition("-")[0])

    @property
    def group(self):
        return f"{self.op} {'x'.join(map(str, self.shape))} {self.dtype} {self.passing}"

    def operands(self, device="cpu"):
        """Leaves that require a gradient, drawn from a fixed seed; targets of a density at last, which do not."""
        generator = torch.Generator().manual_seed(0)
        names = [o.name for o in OPERATORS[self.op].operands if o.role != "weight" and not o.optional]
        if self.op in COUNTS:
            return self._counts(len(names) - 1, generator, device)
        parameters = [name for name in names if name != "x"] or ["like"]  # noise has the shape of one
        drawn = [torch.randn(self.shape, generator=generator) for _ in parameters]
        # Scales and degrees of freedom are positive.
        drawn = [t.exp() if name in ("b", "sigma", "df") else t for name, t in zip(parameters, drawn, strict=True)]
        tensors = [t.to(self.floating) for t in drawn]
        tensors = [t.to(device).requires_grad_(bool(names)) for t in tensors]
        if "x" in names:
            if self.dtype.endswith("-uint8"):
                x = torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=generator)
            else:
                x = torch.rand(self.shape, generator=generator).to(self.floating)
            tensors.append(x.to(device))
        return tensors

    def _counts(self, parameters, generator, device):
        """Means and dispersions about 1, and counts, half of which are 0."""
        tensors = [torch.randn(self.shape, generator=generator).exp().to(self.floating) for _ in range(parameters)]
        x = torch.poisson(torch.randn(self.shape, generator=generator).exp(), generator=generator)
        x = x.to(torch.uint8 if self.dtype.endswith("-uint8") else self.floating)
        return [*(t.to(device).requires_grad_() for t in tensors), x.to(device)]

    def row(self, provider, tensors):
        """What the JSON says of a provider's row beside its times."""
        return {
            "provider": provider,
            "op": self.op,
            "shape": "x".join(map(str, self.shape)),
            "dtype": self.dtype,
            "pass": self.passing,
            "elements": self.size,
            "bytes": self.bytes(tensors),
        }

    def moved(self, tensors):
        """Tensors of the shape that have to move, if each is moved once.

        A sample and its gradient do; a density is a number a datum or less. A density's gradients can be had in its
        forward pass; those of a sample alone do not depend on its mean.
        """
        if not OPERATORS[self.op].operands:
            return self.passing != "backward"
        sampled = "z" in OPERATORS[self.op].results
        grads = sum(t.requires_grad for t in tensors)
        forward = len(tensors) + sampled
        backward = sampled + len(tensors) + grads - (self.op == "rsample")
        both = forward + backward if sampled else len(tensors) + grads
        return {"forward": forward, "backward": backward, "both": both}[self.passing]

    def bytes(self, tensors):
        moved = self.moved(tensors)
        wide, narrow = tensors[0].element_size(), tensors[-1].element_size()
        return self.size * (moved * wide - (wide - narrow))


def _cases(op, shape, dtype, passes, providers):
    """The cases of these that exist: only a density has targets to be of a dtype of their own."""
    if "-" in dtype and all(operand.name != "x" for operand in OPERATORS[op].operands):
        return
    # Noise has no gradient.
    for passing in passes if op != "standard_normal" else ("forward",):
        for provider in providers:
            if serves(provider, op):
                yield Case(op, shape, dtype, passing), provider


def quick():
    """Whether all is well, in under a minute."""
    for op in OPS:
        yield from _cases(op, SHAPES[op][1], "float32", ("both",), [p for p in PROVIDERS if p != "compile"])


def default():
    """float32 at three sizes in every way; the other dtypes and the extremes of shape against eager."""
    for op in OPS:
        for shape in SHAPES[op]:
            yield from _cases(op, shape, "float32", PASSES, PROVIDERS)
    few = [p for p in PROVIDERS if p not in ("compile", "distributions", "functional", "reference")]
    for op in OPS:
        for dtype in DTYPES[1:]:
            yield from _cases(op, SHAPES[op][1], dtype, ("both",), few)
        # Few data with long events, many with short ones, fewer elements than a call costs, and one.
        for shape in ((2, SHAPES[op][1][0] * SHAPES[op][1][1] // 2), (SHAPES[op][1][0] * SHAPES[op][1][1] // 4, 4)):
            yield from _cases(op, shape, "float32", ("both",), few)
        for shape in ((8, 16), ONE):
            yield from _cases(op, shape, "float32", ("both",), few)


def gpu():
    """What is asked of a GPU: launches at small shapes, memory's speed at large ones, what a call itself costs."""
    few = [p for p in PROVIDERS if p not in ("compile", "distributions", "functional", "reference")]
    for op in OPS:
        for shape in (SHAPES[op][0], LARGE):
            yield from _cases(op, shape, "float32", PASSES, few)
            yield from _cases(op, shape, "float32", ("both",), ("compile",))
        yield from _cases(op, ONE, "float32", PASSES, few)
        yield from _cases(op, LARGE, "bfloat16", ("both",), few)


def full():
    """Everything."""
    for op in OPS:
        for shape in (*SHAPES[op], (8, 16), (2, 65536), (32768, 4)):
            yield from own(shape, DTYPES, (op,))


LEVELS = {"quick": quick, "default": default, "gpu": gpu, "full": full}


def own(shape, dtypes, ops):
    """A user's shape, in every way."""
    for op in ops:
        for dtype in dtypes:
            yield from _cases(op, shape, dtype, PASSES, PROVIDERS)

"""What is timed: operators × shapes × dtypes × passes, their operands, and the bytes that have to move."""

import math
from dataclasses import dataclass

import torch

from vae_fast.backends import OPS

from .providers import PROVIDERS, serves

PASSES = ("forward", "backward", "both")
# Operands and results that have to move, if each is moved once: in a forward pass, a backward pass, and both. A
# density's gradient can be had in its forward pass.
_MOVED = {
    "standard_normal": (1, 0, 1),
    "rsample": (3, 4, 7),
    "rsample_kl": (3, 4, 7),
    "gaussian_kl": (2, 4, 4),
    "bernoulli_log_prob": (2, 3, 3),
    "gaussian_log_prob": (3, 5, 5),
}
# Small, middle, large; the same for every run, so that runs can be compared.
SHAPES = {
    "standard_normal": ((100, 20), (512, 64), (4096, 128)),
    "rsample": ((100, 20), (512, 64), (4096, 128)),
    "rsample_kl": ((100, 20), (512, 64), (4096, 128)),
    "gaussian_kl": ((100, 20), (512, 64), (4096, 128)),
    "bernoulli_log_prob": ((100, 784), (512, 784), (4096, 3072)),
    "gaussian_log_prob": ((100, 560), (512, 784), (4096, 3072)),
}
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
        count = 1 if self.op in ("standard_normal", "bernoulli_log_prob") else 2
        tensors = [torch.randn(self.shape, generator=generator).to(self.floating) for _ in range(count)]
        tensors = [t.to(device).requires_grad_(self.op != "standard_normal") for t in tensors]
        if "log_prob" in self.op:
            if self.dtype.endswith("-uint8"):
                x = torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=generator)
            else:
                x = torch.rand(self.shape, generator=generator).to(self.floating)
            tensors.append(x.to(device))
        return tensors

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

    def bytes(self, tensors):
        moved = _MOVED[self.op][PASSES.index(self.passing)]
        wide, narrow = tensors[0].element_size(), tensors[-1].element_size()
        return self.size * (moved * wide - (wide - narrow))


def _cases(op, shape, dtype, passes, providers):
    """The cases of these that exist: only a density has targets to be of a dtype of their own."""
    if "-" in dtype and "log_prob" not in op:
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
        # Few data with long events, many with short ones, and fewer elements than a call costs.
        for shape in ((2, SHAPES[op][1][0] * SHAPES[op][1][1] // 2), (SHAPES[op][1][0] * SHAPES[op][1][1] // 4, 4)):
            yield from _cases(op, shape, "float32", ("both",), few)
        yield from _cases(op, (8, 16), "float32", ("both",), few)


def gpu():
    """What is asked of a GPU: launches at small shapes, memory's speed at large ones."""
    few = [p for p in PROVIDERS if p not in ("compile", "distributions", "functional", "reference")]
    for op in OPS:
        for shape in (SHAPES[op][0], LARGE):
            yield from _cases(op, shape, "float32", PASSES, few)
            yield from _cases(op, shape, "float32", ("both",), ("compile",))
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

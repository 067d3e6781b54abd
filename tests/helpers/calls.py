"""Every operator as one kind of call, for the tests that hold for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import vae_fast as vf


@dataclass(frozen=True)
class Call:
    """An operator, the names of its tensor operands in order, and the options every call of it gets."""

    op: str
    function: Callable[..., Any]
    operands: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    event: bool = True
    """Whether it takes event_ndim."""
    density: bool = True
    """Whether it takes weight, reduction and scale."""

    def __call__(self, *tensors, **options):
        """The results, always as a tuple."""
        out = self.function(*tensors, **{**self.options, **options})
        return out if isinstance(out, tuple) else (out,)

    def __str__(self):
        return "-".join([self.op, str(len(self.operands)), *(["probs"] if self is PROBS else [])])

    def draw(self, shape, dtype=torch.float32):
        """Operands of one shape that require a gradient: normal; a Bernoulli's targets (and p) uniform."""
        uniform = self.operands if self is PROBS else ("x",) if self is BERNOULLI else ()
        return [
            (torch.rand if name in uniform else torch.randn)(shape, dtype=dtype).requires_grad_()
            for name in self.operands
        ]

    def with_grads(self, *tensors, upstream=None, **options):
        """The results and the operands' gradients; ``upstream`` makes the gradient of a result, ones by default."""
        outs = self(*tensors, **options)
        grads = [(upstream or torch.ones_like)(out) for out in outs]
        wanted = [t for t in tensors if t.requires_grad]
        return (*(out.detach() for out in outs), *torch.autograd.grad(outs, wanted, grads))


RSAMPLE = Call("rsample", vf.rsample, ("mu", "logvar"), {"seed": 7}, event=False, density=False)
RSAMPLE_KL = Call("rsample_kl", vf.rsample_kl, ("mu", "logvar"), {"seed": 7}, density=False)
KL = Call("gaussian_kl", vf.gaussian_kl, ("mu", "logvar"))
KL_PRIOR = Call("gaussian_kl", vf.gaussian_kl, ("mu", "logvar", "prior_mu", "prior_logvar"))
BERNOULLI = Call("bernoulli_log_prob", vf.bernoulli_log_prob, ("logits", "x"))
PROBS = Call("bernoulli_log_prob", vf.bernoulli_log_prob, ("logits", "x"), {"param": "probs"})
GAUSSIAN = Call("gaussian_log_prob", vf.gaussian_log_prob, ("mean", "logvar", "x"))

CALLS = (RSAMPLE, RSAMPLE_KL, KL, KL_PRIOR, BERNOULLI, PROBS, GAUSSIAN)
WITH_EVENT = tuple(c for c in CALLS if c.event)
DENSITIES = tuple(c for c in CALLS if c.density)
WITH_X = (BERNOULLI, PROBS, GAUSSIAN)
SAMPLERS = (RSAMPLE, RSAMPLE_KL)


def bits(tensor):
    """The tensor's bits as integers, so that NaN equals NaN and −0 is not 0."""
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    return tensor.detach().contiguous().view(kinds.get(tensor.dtype, torch.int16))


def same_bits(these, those):
    """Whether two sequences of tensors agree in shape and in every bit."""
    pairs = zip(these, those, strict=True)
    return all(a.dtype == b.dtype and torch.equal(bits(a), bits(b)) for a, b in pairs)

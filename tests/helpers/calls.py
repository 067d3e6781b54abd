"""Every operator as one kind of call, for the tests that hold for all of them."""

from dataclasses import dataclass, field
from typing import Any

import torch

import vae_fast as vf
from vae_fast.operators import OPERATORS


@dataclass(frozen=True)
class Call:
    """An operator, the names of its tensor operands in order, and the options every call of it gets."""

    op: str
    operands: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def operator(self):
        return OPERATORS[self.op]

    @property
    def function(self):
        return getattr(vf, self.op)

    @property
    def event(self):
        """Whether it takes event_ndim."""
        return self.has("event_ndim")

    @property
    def density(self):
        """Whether it takes weight, reduction and scale."""
        return self.operator.density

    @property
    def counted(self):
        """Whether its data are counts, of which parameters are positive."""
        return self.operator.counted

    @property
    def served(self):
        """The operator that compiled kernels are called by: that of a common call's arguments, or of all."""
        given = {operand.name for operand in self.operator.operands if operand.optional}.intersection(self.operands)
        common = self.operator.common
        told = set(self.options).difference(option.name for option in common.options)
        return self.operator if given or told else common

    def has(self, option):
        """Whether it takes an option, by its public name."""
        names = {o.name for o in (*self.operator.options, *self.operator.operands)}
        if option == "pos_weight" and self.options.get("param") == "probs":
            return False
        return option in names or (option == "bounds" and "low" in names)

    @property
    def argnums(self):
        """The numbers of the operands that have a gradient."""
        return tuple(i for i, name in enumerate(self.operands) if name in self.operator.differentiable)

    @property
    def constants(self):
        """The numbers of the others."""
        return tuple(i for i in range(len(self.operands)) if i not in self.argnums)

    def wanted(self, tensors):
        """Those of its operands that a gradient can be asked for."""
        return [tensors[i] for i in self.argnums]

    def __call__(self, *tensors, **options):
        """The results, always as a tuple.

        What an operator need not have goes by name; after the others a sampler takes sample_shape by position.
        """
        given, others = tensors[: len(self.operands)], tensors[len(self.operands) :]
        optional = {o.name for o in self.operator.operands if o.optional}
        by_name = {name: t for name, t in zip(self.operands, given, strict=True) if name in optional}
        required = (t for name, t in zip(self.operands, given, strict=True) if name not in optional)
        out = self.function(*required, *others, **by_name, **{**self.options, **options})
        return out if isinstance(out, tuple) else (out,)

    def __str__(self):
        return "-".join([self.op, str(len(self.operands)), *(["probs"] if self is PROBS else [])])

    def draw(self, shape, dtype=torch.float32):
        """Operands of one shape, which require a gradient where they have one."""
        tensors = [self._drawn(name, shape, dtype) for name in self.operands]
        return [t.requires_grad_(i not in self.constants) for i, t in enumerate(tensors)]

    def _drawn(self, name, shape, dtype):
        """Normal, scales and degrees of freedom positive, a Bernoulli's targets (and p) uniform, counts small.

        A third of the counts are 0, and their parameters positive.
        """
        if self.counted:
            if name == "x":
                return torch.randint(-6, 13, shape).clamp(min=0).to(dtype)
            if name != "zero_logits":
                return 0.3 + 3 * torch.rand(shape, dtype=dtype)
        if name in ("b", "sigma", "df"):
            return 0.3 + 3 * torch.rand(shape, dtype=dtype)
        uniform = self.operands if self is PROBS else ("x",) if self in (BERNOULLI, CONTINUOUS) else ()
        return (torch.rand if name in uniform else torch.randn)(shape, dtype=dtype)

    def with_grads(self, *tensors, upstream=None, **options):
        """The results and the operands' gradients; ``upstream`` makes the gradient of a result, ones by default."""
        outs = self(*tensors, **options)
        grads = [(upstream or torch.ones_like)(out) for out in outs]
        wanted = [t for t in self.wanted(tensors) if t.requires_grad]
        return (*(out.detach() for out in outs), *torch.autograd.grad(outs, wanted, grads))


def _call(op, *optional, **options):
    """A call with every operand that an operator needs, and these of the others."""
    operands = (o for o in OPERATORS[op].operands if not o.optional or o.name in optional)
    return Call(op, tuple(o.name for o in operands), options)


RSAMPLE = _call("rsample", seed=7)
RSAMPLE_KL = _call("rsample_kl", seed=7)
RSAMPLE_KL_PRIOR = _call("rsample_kl", "prior_mu", "prior_logvar", seed=7)
RSAMPLE_LOG_PROB = _call("rsample_log_prob", seed=7)
RSAMPLE_LOG_PROB_PRIOR = _call("rsample_log_prob", "prior_mu", "prior_logvar", seed=7)
KL = _call("gaussian_kl")
KL_PRIOR = _call("gaussian_kl", "prior_mu", "prior_logvar")
BERNOULLI = _call("bernoulli_log_prob")
PROBS = _call("bernoulli_log_prob", param="probs")
GAUSSIAN = _call("gaussian_log_prob")
COUNT = _call("negative_binomial_log_prob")
INFLATED = _call("negative_binomial_log_prob", "zero_logits")
POISSON = _call("poisson_log_prob")
CONTINUOUS = _call("continuous_bernoulli_log_prob")
LAPLACE = _call("laplace_log_prob")
STUDENT_T = _call("student_t_log_prob")

COUNTS = (COUNT, INFLATED, POISSON)
# Of what others have tests of, the engine and its options, they meet a part.
PLAIN = (CONTINUOUS, LAPLACE, STUDENT_T)
# A sample with its log-densities.
LOG_PROBS = (RSAMPLE_LOG_PROB, RSAMPLE_LOG_PROB_PRIOR)
OF_SAMPLES = (RSAMPLE, RSAMPLE_KL, RSAMPLE_KL_PRIOR, *LOG_PROBS)
CALLS = (*OF_SAMPLES, KL, KL_PRIOR, BERNOULLI, PROBS, GAUSSIAN, *COUNTS, *PLAIN)
WITH_EVENT = tuple(c for c in CALLS if c.event)
DENSITIES = tuple(c for c in CALLS if c.density)
WITH_X = tuple(c for c in CALLS if "x" in c.operands)
SAMPLERS = (RSAMPLE, RSAMPLE_KL, RSAMPLE_LOG_PROB)


def bits(tensor):
    """The tensor's bits as integers, so that NaN equals NaN and −0 is not 0."""
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    return tensor.detach().contiguous().view(kinds.get(tensor.dtype, torch.int16))


def same_bits(these, those):
    """Whether two sequences of tensors agree in shape and in every bit."""
    pairs = zip(these, those, strict=True)
    return all(a.dtype == b.dtype and torch.equal(bits(a), bits(b)) for a, b in pairs)

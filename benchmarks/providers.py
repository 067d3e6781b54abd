"""Who is timed: PyTorch's own ways to each result, and every backend of vae_fast that is available here."""

from types import SimpleNamespace

import torch

import vae_fast as vf
from vae_fast.operators import OPERATORS

from . import formulas

# Densities whose bytes are counts, not pixels.
COUNTS = tuple(name for name, operator in OPERATORS.items() if operator.counted)


def _ours(backend):
    """vae_fast in the form of the eager formulas: summed, and with the seed drawn as training code draws it."""

    def standard_normal(like):
        seed = int(torch.randint(2**63 - 1, ()))
        return vf.standard_normal(like.shape, seed=seed, device=like.device, dtype=like.dtype, backend=backend)

    def rsample(mu, logvar):
        return vf.rsample(mu, logvar, backend=backend)

    def rsample_kl(mu, logvar):
        z, kl = vf.rsample_kl(mu, logvar, event_ndim=mu.ndim - 1, backend=backend)
        return z, kl.sum()

    def rsample_log_prob(mu, logvar):
        z, log_q, log_p = vf.rsample_log_prob(mu, logvar, event_ndim=mu.ndim - 1, backend=backend)
        return z, log_p.sum() - log_q.sum()

    def density(op):
        def call(*tensors):
            *parameters, x = tensors
            options = {"event_ndim": tensors[0].ndim - 1, "reduction": "sum", "backend": backend}
            if x.dtype == torch.uint8 and op not in COUNTS:
                options["x_scale"] = 1 / 255
            if op == "negative_binomial_log_prob":
                options["eps"] = 1e-8  # as the eager formula has it
                options["zero_logits"] = parameters.pop() if len(parameters) == 3 else None
            return getattr(vf, op)(*parameters, x, **options)

        return call

    densities = {op: density(op) for op, operator in OPERATORS.items() if operator.density}
    samplers = {"rsample": rsample, "rsample_kl": rsample_kl, "rsample_log_prob": rsample_log_prob}
    return SimpleNamespace(standard_normal=standard_normal, **samplers, **densities)


def _compiled():
    return SimpleNamespace(
        **{op: torch.compile(getattr(formulas.EAGER, op), dynamic=False, fullgraph=True) for op in OPERATORS}
    )


BACKENDS = tuple(name for name, backend in vf.backends().items() if backend.available)
_MAKE = {
    "eager": lambda: formulas.EAGER,
    "compile": _compiled,
    "distributions": lambda: formulas.DISTRIBUTIONS,
    "functional": lambda: formulas.FUNCTIONAL,
    **{name: (lambda name=name: _ours(name)) for name in BACKENDS},
}
PROVIDERS = tuple(_MAKE)
# The reference is there to be right; at large sizes it takes seconds.
REFERENCE_MOST = 1_000_000


def serves(name, op):
    """Whether a provider has an operator."""
    some = {"functional": formulas.FUNCTIONAL, "distributions": formulas.DISTRIBUTIONS}
    return name not in some or hasattr(some[name], op)


def provider(name):
    """The operators of a provider: functions of tensors by name. A compiled one compiles at its first call."""
    if name == "compile":
        torch._dynamo.reset()
    return _MAKE[name]()

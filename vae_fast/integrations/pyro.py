"""The drop-in distributions for Pyro's models and guides: ``pip install pyro-ppl``.

>>> from vae_fast.integrations.pyro import BernoulliVector, DiagonalNormal  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

try:
    from pyro.distributions.torch_distribution import TorchDistributionMixin
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"vae_fast.integrations.pyro needs Pyro (pip install pyro-ppl): {error}") from error

from vae_fast import distributions

__all__ = ["BernoulliVector", "DiagonalNormal"]


class _Vector(TorchDistributionMixin):
    @staticmethod
    def infer_shapes(**arg_shapes: Any) -> Any:
        raise NotImplementedError("the event's dims are an argument, event_ndim, and not known from shapes")


class DiagonalNormal(distributions.DiagonalNormal, _Vector):
    """``vae_fast.distributions.DiagonalNormal`` with Pyro's methods: ``Normal(loc, scale).to_event(1)``, fused.

    Arguments and results are the same. ``to_event`` makes a wider event of the same class, so that
    ``DiagonalNormal(loc, scale, 0).to_event(1)`` is fused too; ``mask``, ``expand_by`` and all else are Pyro's, and
    so are plates, subsampling and masks. TraceMeanField_ELBO takes the closed form of the divergence.
    """


class BernoulliVector(distributions.BernoulliVector, _Vector):
    """``vae_fast.distributions.BernoulliVector`` with Pyro's methods: ``Bernoulli(…).to_event(1)``, fused.

    Arguments and results are the same, and ``to_event`` as in ``DiagonalNormal``.
    """

"""The drop-in distributions for Pyro's models and guides: ``pip install pyro-ppl``.

>>> from vae_fast.integrations.pyro import BernoulliVector, DiagonalNormal  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

try:
    from pyro.distributions.torch_distribution import TorchDistributionMixin
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"vae_fast.integrations.pyro needs Pyro (pip install pyro-ppl): {error}") from error

from vae_fast import distributions
from vae_fast.ops import arguments

__all__ = ["BernoulliVector", "DiagonalNormal"]


class _Vector(TorchDistributionMixin):
    @classmethod
    def infer_shapes(cls, event_ndim: int = 1, **arg_shapes: Sequence[int]) -> tuple[torch.Size, torch.Size]:
        """(batch_shape, event_shape) of what arguments of these shapes, () for a number, and event_ndim make.

        Raises ValueError where the shapes do not broadcast, or event_ndim does not fit.
        """
        shape = torch.broadcast_shapes(*map(torch.Size, arg_shapes.values()))
        data = len(shape) - arguments.event_dims(event_ndim, shape, ", ".join(arg_shapes))
        return shape[:data], shape[data:]


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

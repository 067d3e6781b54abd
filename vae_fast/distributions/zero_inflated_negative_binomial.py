"""The zero-inflated negative binomial as a torch.distributions.Distribution, on the fused operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from vae_fast.distributions import bernoulli_terms as terms
from vae_fast.distributions.counts import Counts, Parameter
from vae_fast.distributions.known_slopes import known_slopes
from vae_fast.distributions.negative_binomial import NegativeBinomial, given_parameters


def _log_odds_slope(p: Tensor) -> tuple[Tensor]:
    """1/(p(1 − p)), but finite: where p is 0 or 1, a density's slope by the logit may be 0."""
    return (1.0 / (p * (1.0 - p)).clamp(min=torch.finfo(p.dtype).tiny),)


_log_odds = known_slopes(terms.log_odds, _log_odds_slope)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Negative binomial counts that are 0 with probability σ(π) besides: those of scvi-tools, fused.

    log p(x) as ``vae_fast.negative_binomial_log_prob`` with ``zero_logits``, summed over an event. ``mean`` and
    ``variance`` are those of the inflated counts, ``mu`` is the mean before.

    Args:
        zi_logits, zi_probs: π or σ(π), one of them, a tensor or a number; at 0 and 1 gradients by σ(π) are finite,
            though not their limits.
        otherwise as ``NegativeBinomial``.

    Shapes, dtypes: as ``NegativeBinomial``.

    Raises:
        NotImplementedError: ``mode`` besides.
        otherwise as ``NegativeBinomial``.

    Source: as ``vae_fast.negative_binomial_log_prob``.

    >>> p = ZeroInflatedNegativeBinomial(mu=torch.full((100, 20), 3.0), theta=torch.ones(20), zi_logits=-1.0)
    >>> p.log_prob(p.sample((8,))).shape
    torch.Size([8, 100, 20])
    """

    arg_constraints = {
        **NegativeBinomial.arg_constraints,
        "zi_logits": constraints.real,
        "zi_probs": constraints.unit_interval,
    }

    def __init__(
        self,
        total_count: Parameter | None = None,
        probs: Parameter | None = None,
        logits: Parameter | None = None,
        *,
        mu: Parameter | None = None,
        theta: Parameter | None = None,
        zi_logits: Parameter | None = None,
        zi_probs: Parameter | None = None,
        scale: Tensor | None = None,
        eps: float = 0.0,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        given = given_parameters(total_count, probs, logits, mu, theta)
        zeros = {"zi_logits": zi_logits, "zi_probs": zi_probs}
        zero = {name: value for name, value in zeros.items() if value is not None}
        if len(zero) != 1:
            raise ValueError("pass either zi_logits or zi_probs")
        Counts.__init__(
            self,
            {**given, **zero},
            scale=scale,
            eps=eps,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )

    def _zero_logits(self) -> Tensor:
        given = self._tensors.get("zi_logits")
        return _log_odds(self._wide("zi_probs")) if given is None else given

    def _inflation(self) -> tuple[Tensor, Tensor]:
        """σ(π) and σ(−π), in the dtype that arithmetic is done in."""
        if "zi_probs" in self._tensors:
            p = self._wide("zi_probs")
            return p, 1.0 - p
        logits = self._wide("zi_logits")
        return terms.logistic(logits), terms.logistic(-logits)

    @property
    def zi_logits(self) -> Tensor:
        """The logit of a zero besides."""
        given = "zi_logits" in self._tensors
        return self._whole(self._tensors["zi_logits"]) if given else self._narrow(self._zero_logits())

    @property
    def zi_probs(self) -> Tensor:
        """The probability of a zero besides."""
        given = "zi_probs" in self._tensors
        return self._whole(self._tensors["zi_probs"]) if given else self._narrow(self._inflation()[0])

    @property
    def mean(self) -> Tensor:
        return self._narrow(self._inflation()[1] * self._mean())

    @property
    def variance(self) -> Tensor:
        (dead, alive), mean = self._inflation(), self._mean()
        return self._narrow(alive * mean * (1.0 + self._ratio() + dead * mean))

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError("the mode of a zero-inflated count")

    def sample(self, sample_shape: Sequence[int] | None = ()) -> Tensor:
        """As ``NegativeBinomial.sample``, and then uniform numbers for the zeros."""
        with torch.no_grad():
            counts = super().sample(sample_shape)
            dead = self._whole(self._inflation()[0], counts.dtype)
            return counts.masked_fill(torch.rand_like(counts) < dead, 0.0)

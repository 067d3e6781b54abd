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

    log p(x) = log(σ(π) + σ(−π)·p(0)) of x = 0 and log σ(−π) + log p(x) of all others, summed over an event, p being
    the negative binomial of mean μ and variance μ + μ²/θ. It is given by one of three pairs, (total_count, logits)
    or (total_count, probs) by torch.distributions' names, (mu, theta) by scvi-tools'; and by zi_logits or zi_probs.
    ``mean`` and ``variance`` are those of the inflated counts, ``mu`` is the mean before. There is no gradient by
    x.

    Args:
        total_count: θ > 0, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature has
            its gradient in its own shape.
        probs: μ/(θ + μ) in [0, 1), a tensor of any floating dtype or a number.
        logits: log(μ/θ), a tensor of any floating dtype or a number.
        mu: μ ≥ 0, a tensor of any floating dtype or a number.
        theta: θ > 0, ∞ too, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature
            has its gradient in its own shape.
        zi_logits: π, a tensor or a number; not together with ``zi_probs``.
        zi_probs: σ(π) in [0, 1], a tensor or a number; not together with ``zi_logits``. At 0 and 1 gradients by it
            are finite, though not their limits.
        scale: scvi-tools' normalised mean, kept for ``get_normalized("scale")``. Beside ``total_count`` and without
            one it is μ over the sum of μ along the last dim, as there.
        eps: ε inside the logarithms, log(θ + ε), log(μ + ε) and log(θ + μ + ε): 1e-8 makes scvi-tools' values.
        event_ndim: how many trailing dims make up one event; 0 as torch.distributions has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions, also where scvi-tools would warn; False leaves out every check
            that waits for the device. None: what ``Distribution.set_default_validate_args`` says.

    Shapes: ``batch_shape`` and ``event_shape`` are the broadcast shape of the parameters, cut before its last
    ``event_ndim`` dims. ``sample(sample_shape)`` has sample_shape + batch_shape + event_shape, ``log_prob`` one
    number a batch element. Every parameter can be asked for, whichever were given, in the full shape.

    Dtypes: counts of any floating or integer dtype or bool; samples and densities are float64 for float64, else
    float32, since half types do not hold counts.

    Raises:
        TypeError: a parameter of a complex, quantised, sparse or nested kind; of integers, but for θ.
        ValueError: none of the three pairs, both or neither of zi_logits and zi_probs, shapes that do not
            broadcast, an ``event_ndim`` that does not fit; with validation, parameters out of range or NaN, a value
            that is no count, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``, ``mode``.

    Example:
        >>> parameters = {"mu": torch.full((100, 20), 3.0), "theta": torch.ones(20)}
        >>> p = vae_fast.distributions.ZeroInflatedNegativeBinomial(**parameters, zi_logits=-1.0)
        >>> p.log_prob(p.sample((8,))).shape
        torch.Size([8, 100, 20])

    Source: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), its Methods.
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
        """Poisson counts, of rates from a Gamma distribution, and then uniform numbers for the zeros.

        All are from PyTorch's default generator. A rate is no more than 1e8, as in scvi-tools; where θ is ∞ it is
        μ.

        Args:
            sample_shape: leading dims of independent samples.

        Returns:
            sample_shape + batch_shape + event_shape; float64 for float64 parameters, else float32.
        """
        with torch.no_grad():
            counts = super().sample(sample_shape)
            dead = self._whole(self._inflation()[0], counts.dtype)
            return counts.masked_fill(torch.rand_like(counts) < dead, 0.0)

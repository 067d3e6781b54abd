"""The negative binomial as a torch.distributions.Distribution, on the fused operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Gamma, constraints

from vae_fast.distributions import bernoulli_terms as terms
from vae_fast.distributions.counts import Counts, Parameter
from vae_fast.distributions.vector import as_distributions_broadcast
from vae_fast.ops.arguments import MeanParam
from vae_fast.ops.negative_binomial_log_prob import negative_binomial_log_prob

# What scvi-tools clamps the Poisson rates of its samples to.
_MOST = 1e8


def given_parameters(
    total_count: Parameter | None,
    probs: Parameter | None,
    logits: Parameter | None,
    mu: Parameter | None,
    theta: Parameter | None,
) -> dict[str, Parameter]:
    """Those that were given, the mean's first. Raises ValueError unless they are one of the three pairs."""
    named = {"probs": probs, "logits": logits, "mu": mu, "total_count": total_count, "theta": theta}
    given = {name: value for name, value in named.items() if value is not None}
    if list(given) not in (["mu", "theta"], ["probs", "total_count"], ["logits", "total_count"]):
        got = " and ".join(given) or "none"
        raise ValueError(f"pass mu and theta, or total_count and either probs or logits, got {got}")
    return given


class NegativeBinomial(Counts):
    """Independent negative binomial counts: those of torch.distributions and of scvi-tools, fused.

    Counts of mean μ and variance μ + μ²/θ, log p(x) = log Γ(x + θ) − log Γ(θ) − log x! + θ·log(θ/(θ + μ)) +
    x·log(μ/(θ + μ)), summed over an event. It is given by one of three pairs:

        (total_count, logits): θ and log(μ/θ), as torch.distributions.
        (total_count, probs): θ and μ/(θ + μ), as torch.distributions.
        (mu, theta): μ and θ, as scvi-tools.

    Values and gradients are those of torch.distributions; there is none by x. What differs: a ``total_count`` of 0,
    which makes every count 0 for certain, is refused; ``probs`` are not clamped.

    Args:
        total_count: θ > 0, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature has
            its gradient in its own shape.
        probs: μ/(θ + μ) in [0, 1), a tensor of any floating dtype or a number.
        logits: log(μ/θ), a tensor of any floating dtype or a number.
        mu: μ ≥ 0, a tensor of any floating dtype or a number.
        theta: θ > 0, ∞ too, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature
            has its gradient in its own shape.
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
        ValueError: none of the three pairs, shapes that do not broadcast, an ``event_ndim`` that does not fit; with
            validation, parameters out of range or NaN, a value that is no count, or one whose last dims are not
            ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``.

    Example:
        >>> parameters = {"mu": torch.full((100, 20), 3.0), "theta": torch.ones(20)}
        >>> p = vae_fast.distributions.NegativeBinomial(**parameters, event_ndim=1)
        >>> p.log_prob(p.sample((8,))).shape
        torch.Size([8, 100])

    Source: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), its Methods.
    """

    arg_constraints = {
        "total_count": constraints.positive,
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
        "mu": constraints.nonnegative,
        "theta": constraints.positive,
    }

    def __init__(
        self,
        total_count: Parameter | None = None,
        probs: Parameter | None = None,
        logits: Parameter | None = None,
        *,
        mu: Parameter | None = None,
        theta: Parameter | None = None,
        scale: Tensor | None = None,
        eps: float = 0.0,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            given_parameters(total_count, probs, logits, mu, theta),
            scale=scale,
            eps=eps,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )

    # ---- parameters ------------------------------------------------------------------------------------------

    _THETA: tuple[str, ...] = ("total_count", "theta")

    @property
    def _theta(self) -> str:
        """The name that θ was given by."""
        return next(name for name in self._THETA if name in self._tensors)

    def _ratio(self) -> Tensor:
        """μ/θ."""
        if self._main == "logits":
            return torch.exp(self._wide("logits"))
        if self._main == "probs":
            p = self._wide("probs")
            return p / (1.0 - p)
        return self._wide("mu") / self._wide(self._theta)

    def _mean(self) -> Tensor:
        return self._wide("mu") if self._main == "mu" else self._wide(self._theta) * self._ratio()

    @property
    def theta(self) -> Tensor:
        """θ, the inverse dispersion."""
        return self._whole(self._tensors[self._theta])

    @property
    def total_count(self) -> Tensor:
        """θ, by torch.distributions' name."""
        return self.theta

    @property
    def mu(self) -> Tensor:
        """μ, the mean, where no zeros are inflated."""
        return self._whole(self._tensors["mu"]) if self._main == "mu" else self._narrow(self._mean())

    @property
    def logits(self) -> Tensor:
        """log(μ/θ)."""
        if self._main == "logits":
            return self._whole(self._tensors["logits"])
        if self._main == "probs":
            return self._narrow(terms.log_odds(self._wide("probs")))
        return self._narrow(torch.log(self._mean()) - torch.log(self._wide(self._theta)))

    @property
    def probs(self) -> Tensor:
        """μ/(θ + μ)."""
        if self._main == "probs":
            return self._whole(self._tensors["probs"])
        if self._main == "logits":
            return self._narrow(terms.logistic(self._wide("logits")))
        mean = self._mean()
        return self._narrow(mean / (mean + self._wide(self._theta)))

    @property
    def scale(self) -> Tensor | None:
        if self._scale is None and "total_count" in self._tensors:
            return self.mu / self.mu.sum(-1, keepdim=True)
        return self._scale

    def get_normalized(self, key: str) -> Tensor | None:
        return self.mu if key == "mu" else super().get_normalized(key)

    # ---- moments, samples, density ---------------------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def mode(self) -> Tensor:
        theta = self._wide(self._theta)
        peak = torch.where(torch.isinf(theta), self._mean(), (theta - 1.0) * self._ratio())
        return self._narrow(peak.floor().clamp(min=0.0))

    @property
    def variance(self) -> Tensor:
        return self._narrow(self._mean() * (1.0 + self._ratio()))

    def sample(self, sample_shape: Sequence[int] | None = ()) -> Tensor:
        """Poisson counts, of rates from a Gamma distribution, from PyTorch's default generator.

        A rate is no more than 1e8, as in scvi-tools; where θ is ∞ it is μ.

        Args:
            sample_shape: leading dims of independent samples.

        Returns:
            sample_shape + batch_shape + event_shape; float64 for float64 parameters, else float32.
        """
        with torch.no_grad():
            dtype = torch.promote_types(self._dtype, torch.float32)
            theta, ratio, mean = (
                self._whole(t, dtype) for t in (self._wide(self._theta), self._ratio(), self._mean())
            )
            # Of a Gamma of shape ∞ the sampler would reject NaN after NaN.
            poisson = torch.isinf(theta)
            gamma = Gamma(theta.masked_fill(poisson, 1.0), 1.0 / ratio, validate_args=False)
            rate = torch.where(poisson, mean, gamma.sample(torch.Size(sample_shape or ())))
            return torch.poisson(rate.clamp(max=_MOST))

    def _zero_logits(self) -> Tensor | None:
        """The logit of a zero besides."""
        return None

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        mean = self._tensors[self._main]
        param: MeanParam = "mean"
        theta, zero_logits = self._tensors[self._theta], self._zero_logits()
        # Odds by their logarithm, which has more range; the others by the mean, whose slope at 0 is finite.
        if self._main == "logits":
            mean, param = self._wide("logits") + torch.log(self._wide(self._theta)), "log_mean"
        elif self._main != "mu":
            mean = self._mean()
        return negative_binomial_log_prob(
            mean,
            theta,
            as_distributions_broadcast(value, mean, theta, zero_logits),
            zero_logits=zero_logits,
            param=param,
            eps=self._eps,
            event_ndim=self.event_ndim,
            backend=self._backend,
        )

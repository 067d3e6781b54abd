"""The diagonal Gaussian as a torch.distributions.Distribution, on the fused operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from vae_fast.distributions.vector import Vector, as_distributions_broadcast, floating_value
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.rsample import rsample
from vae_fast.reference.densities import compute_dtype
from vae_fast.sigma import VAR

# The second arguments that are σ = 1.
_ONE = {"logvar": 0.0, "logstd": 0.0, "std": 1.0, "var": 1.0}


class DiagonalNormal(Vector):
    """N(loc, σ²) with a diagonal covariance: ``Independent(Normal(loc, scale), event_ndim)``, fused.

    log p(x) = −½ Σ (log σ² + ((x − loc)/σ)² + log 2π) over an event. Values and gradients are those of
    torch.distributions. The noise is ``vae_fast``'s, from PyTorch's default generator, so ``torch.manual_seed``
    governs. ``kl_divergence`` takes it with another one, with ``Independent(Normal)`` and, for ``event_ndim=0``,
    with ``Normal``, in one kernel; a prior whose ``param``, ``param_eps`` or ``bounds`` differ from the posterior's
    is converted first, and both are to σ where the posterior's is "softplus" or has a ``param_eps`` or ``bounds``.
    With ``Laplace`` and what else PyTorch has divergences with ``Normal`` for it is PyTorch's own, of single
    numbers or of ``Independent`` ones.

    Args:
        loc: mean, a tensor of any floating dtype or a number.
        scale: σ, or what ``param`` says, a tensor or a number, broadcast against ``loc`` without a copy; its
            gradient has its own shape.
        event_ndim: how many trailing dims make up one event; 0 for ``Normal`` itself.
        param: what ``scale`` is: "std" σ, "logvar" log σ² (the usual encoder's), "logstd" log σ, "var" σ², or
            "softplus", σ = log(1 + e^scale).
        param_eps: added to σ ("var": to σ²); many encoders have "softplus" with 1e-4.
        bounds: (low, high), to which ``scale`` is clamped as it is given; either may be None. None: no clamp.
        bounds_grad: the gradient of ``scale`` outside the bounds: "zero", as torch.clamp's, or "pass", that of the
            value at the bound, as nn.GaussianNLLLoss has it.
        backend: "reference", "native", "triton" or "auto", for every operator called; None is what ``use_backend``
            says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Shapes: ``batch_shape`` and ``event_shape`` are the broadcast shape of ``loc`` and ``scale``, cut before its
    last ``event_ndim`` dims. ``rsample(sample_shape)`` has sample_shape + batch_shape + event_shape; ``log_prob``,
    ``entropy`` and ``kl_divergence`` have one number a batch element.

    Dtypes: samples have the promoted dtype of loc and scale; densities float64 for float64, else float32. A value
    does not promote.

    Raises:
        TypeError: loc or scale of a complex, integer, quantised, sparse or nested kind.
        ValueError: shapes that do not broadcast, an ``event_ndim`` that does not fit, an unknown ``param``; with
            validation, a NaN in loc, a σ that is not positive, or a value whose last dims are not ``event_shape``
            (``Independent`` broadcasts those).
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``cdf`` and ``icdf`` unless ``event_ndim=0``.

    Example:
        >>> q = vae_fast.distributions.DiagonalNormal(torch.zeros(100, 20), torch.ones(20))
        >>> q.log_prob(q.rsample((8,))).shape
        torch.Size([8, 100])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4 and appendices B and C.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        event_ndim: int = 1,
        *,
        param: Param = "std",
        param_eps: float = 0.0,
        bounds: Bounds | None = None,
        bounds_grad: BoundsGrad = "zero",
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._form = arguments.sigma_form(param, param_eps, bounds, bounds_grad)
        self._gaussian: dict[str, Any] = {
            "param": param,
            "param_eps": param_eps,
            "bounds": bounds,
            "bounds_grad": bounds_grad,
        }
        self._backend = backend
        # As given, so that a scale a feature gets its gradient summed in the kernel.
        check = arguments.floating if isinstance(scale, Tensor) else arguments.number
        self._raw: Tensor | float = check("scale", scale)
        if isinstance(loc, Tensor):
            self._loc = arguments.floating("loc", loc)
        else:
            like = self._raw if isinstance(self._raw, Tensor) else torch.empty(())
            self._loc = torch.full((), arguments.number("loc", loc), dtype=like.dtype, device=like.device)
        self._standard = (
            not isinstance(loc, Tensor)
            and not isinstance(scale, Tensor)
            and (loc, scale, param_eps, bounds) == (0.0, _ONE.get(param), 0.0, None)
        )
        raw = self._raw if isinstance(self._raw, Tensor) else None
        shape = arguments.broadcast_shape("loc", self._loc.shape, scale=raw)
        event_ndim = arguments.event_dims(event_ndim, shape, "loc and scale")
        super().__init__(shape, event_ndim, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> DiagonalNormal:
        new: DiagonalNormal = self._get_checked_instance(DiagonalNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        new._form, new._gaussian, new._backend = self._form, self._gaussian, self._backend
        new._loc, new._raw, new._standard = self.loc.expand(shape), self._raw, self._standard
        new._expand_to(shape, self)
        return new

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_ndim) if self.event_ndim else constraints.real

    @property
    def loc(self) -> Tensor:
        """The mean, in the full shape."""
        return self._loc.expand(self.batch_shape + self.event_shape)

    @property
    def scale(self) -> Tensor:
        """σ, whatever ``param`` is, in the full shape."""
        return self._whole(self._form.sigma(self._clamped()))

    def _clamped(self) -> Tensor:
        """The second argument within its bounds, in the dtype that arithmetic is done in."""
        raw = self._raw if isinstance(self._raw, Tensor) else self._loc.new_full((), self._raw)
        return self._form.clamp(raw.to(compute_dtype(raw.dtype)))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        r, form = self._clamped(), self._form
        if form.kind == VAR:
            variance = r + form.eps
        else:
            variance = torch.exp(form.log_var(r)) if form.logarithmic else form.sigma(r).square()
        return self._whole(variance)

    def _whole(self, of_scale: Tensor) -> Tensor:
        """What is made of the scale alone, in its own dtype and in the full shape."""
        dtype = self._raw.dtype if isinstance(self._raw, Tensor) else self._loc.dtype
        return of_scale.to(dtype).expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: int | Sequence[int] = (), **drawn: Any) -> Tensor:
        """Reparameterised samples.

        Args:
            sample_shape: leading dims of independent samples, an int or a sequence of ints.
            drawn: what is drawn, by the keyword arguments of ``vae_fast.rsample`` that say it: temperature, noise,
                seed, stream, offset, first_sample, generator.

        Returns:
            sample_shape + batch_shape + event_shape, in the promoted dtype of loc and scale.
        """
        return rsample(self._loc, self._raw, sample_shape, **drawn, **self._gaussian, backend=self._backend)

    def sample(self, sample_shape: int | Sequence[int] = (), **drawn: Any) -> Tensor:
        """Samples without a gradient.

        Args:
            sample_shape: leading dims of independent samples, an int or a sequence of ints.
            drawn: what is drawn, by the keyword arguments of ``vae_fast.rsample`` that say it: temperature, noise,
                seed, stream, offset, first_sample, generator.

        Returns:
            sample_shape + batch_shape + event_shape, in the promoted dtype of loc and scale.
        """
        with torch.no_grad():
            return self.rsample(sample_shape, **drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(self._loc, floating_value(value, self._loc.dtype))

    def _log_prob(self, mean: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
        return gaussian_log_prob(
            mean,
            self._raw,
            as_distributions_broadcast(value, mean, self._raw),
            event_ndim=self.event_ndim,
            scale=scale,
            backend=self._backend,
            **self._gaussian,
        )

    def entropy(self) -> Tensor:
        # −log p of the mean itself is ½ Σ (log σ² + log 2π); a mean of 0 keeps NaN and gradients of loc out.
        zero = self._loc.new_zeros(()).expand(self.batch_shape + self.event_shape)
        return self._log_prob(zero, zero, scale=-1.0) + 0.5 * self.event_shape.numel()

    def cdf(self, value: Tensor) -> Tensor:
        """P(X ≤ ``value``), for ``event_ndim=0`` only; with the digits of the lower tail."""
        self._require_single()
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        # Not by torch.special.ndtr, which is ½(1 + erf) and 0 below −6 in float32.
        return (0.5 * torch.special.erfc(-math.sqrt(0.5) * z.to(compute_dtype(z.dtype)))).to(z.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """The x of P(X ≤ x) = ``value``, for ``event_ndim=0`` only; for probabilities however small."""
        self._require_single()
        z = torch.special.ndtri(value.to(compute_dtype(value.dtype))).to(value.dtype)
        return self.loc + self.scale * z

    def _require_single(self) -> None:
        if self.event_ndim:
            raise NotImplementedError("cdf and icdf are those of single numbers: event_ndim=0")

    def __repr__(self) -> str:
        scale = tuple(self._raw.shape) if isinstance(self._raw, Tensor) else self._raw
        options = "".join(f", {k}={v!r}" for k, v in self._gaussian.items() if v not in (0.0, None, "zero"))
        return f"{type(self).__name__}(loc: {tuple(self._loc.shape)}, scale: {scale}, {self.event_ndim}{options})"

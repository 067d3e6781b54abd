"""The variational auto-encoder: encoder and decoder joined by the ops into a bound, samples and log p(x)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import by_data, seeds, tracing
from .bounds import OBJECTIVES
from .nn import BernoulliMLP
from .ops.arguments import QGrad
from .ops.bernoulli_log_prob import bernoulli_log_prob
from .ops.gaussian_kl import gaussian_kl
from .ops.gaussian_log_prob import gaussian_log_prob
from .ops.rsample import rsample
from .ops.rsample_kl import rsample_kl
from .ops.rsample_log_prob import rsample_log_prob
from .priors import StandardNormal, check_prior

__all__ = ["VAE", "VAEOutput"]

Index = Tensor | slice | Sequence[int]
Seed = int | Tensor
Decoded = Tensor | tuple[Tensor, Tensor]

# Elements of x that log_marginal decodes at once by default: tens of megabytes of an MLP's activations, about
# 2 GB of a 64-channel convolutional decoder's.
_LOG_MARGINAL_ELEMENTS = 2**23


class VAEOutput(NamedTuple):
    """What ``VAE.forward`` returns. B is the batch; densities are in nats, float32 (float64 for float64).

    Args:
        elbo: [B]: the lower bound on log p(x): log_likelihood − kl, or that of another objective. β has no part in
            it.
        log_likelihood: [B]: log p(x|z) at the sampled z, constants included; of several samples their average.
        kl: [B]: KL(q(z|x) ‖ p(z)), ≥ 0; to a prior without a closed form its estimate, log q(z|x) − log p(z) at the
            samples, of several their average, which may be negative.
        loss: a 0-d tensor, to call ``backward()`` on: −mean(log_likelihood − β·kl), or −mean of another objective's
            bound.
        z: [B, *latent], in mu's dtype: the reparameterised sample; of n_samples=K [K, B, *latent], of (M, K)
            [M, K, B, *latent].
    """

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor
    loss: Tensor
    z: Tensor


class VAE(nn.Module):
    r"""A variational auto-encoder with a diagonal Gaussian posterior and the prior N(0, I), or another one.

    .. math::
        \log p_\theta(x) \ge
        \mathrm{E}_{q_\phi(z|x)}[\log p_\theta(x|z)] - \mathrm{KL}(q_\phi(z|x) \,\|\, p(z))

    The expectation is of one sample, :math:`z = \mu + e^{\log\sigma^2/2}\,\varepsilon`, the KL term in closed form
    where p(z) is N(0, I).

    Args:
        encoder: module, ``encoder(x) -> (mu, logvar)``; mu is [B, *latent], logvar broadcasts to it.
        decoder: module, ``decoder(z)`` returns Bernoulli logits of x's shape, or a Gaussian's pair
            ``(mean, logvar)``: mean has x's shape, logvar broadcasts to it (0-d or a float will do).
        beta: weight of the KL term in ``loss``. A plain attribute: set it during training to warm it up.
        latent_shape: size or shape of one latent vector, which only :meth:`sample` needs; None:
            ``encoder.latent_shape`` where there is one, or the prior's.
        objective: what ``loss`` is the negative mean of, and how its gradient is estimated:

            - "elbo": the evidence lower bound, its KL in closed form, averaged over ``n_samples``.
            - "iwae": the importance-weighted bound, log of the mean weight (Burda, Grosse and Salakhutdinov 2016).
            - "miwae": the average of M such bounds of K samples each (Rainforth et al. 2018).
            - "dreg": the importance-weighted bound; the encoder's gradient is the doubly reparameterised one, whose
              signal grows with K where the plain one's falls (Tucker, Lawson, Gu and Maddison 2019). ``elbo``
              and a ``kl`` by samples have no gradient then; ``loss`` has.
            - "stl": the average of log p(x, z) − log q(z|x), whose gradient leaves out the score of q, of mean 0:
              it is 0 where q is exact (Roeder, Wu and Duvenaud 2017, "Sticking the Landing").
        n_samples: K, the samples of each datum; of "miwae" the pair (M, K). Plain attributes, both.
        prior: p(z), a module with ``log_prob(z)``, z [..., *latent] to [...], and
            ``sample(n, seed=None, generator=None)``, [n, *latent]; or with ``with_encoder(encode)``, for an object
            that has these.
            :class:`MixturePrior` and :class:`VampPrior` are such; None is :class:`StandardNormal`, the only one
            with a KL in closed form. Its parameters are the model's, as θ, in every objective.

    Data: x is [B, *event], one batch dim and any number of event dims, so convolutional networks plug in.
    Floats are taken as they are. uint8 stands for x/255: the encoder sees floats in [0, 1], the likelihood
    reads the bytes (a Gaussian one is the density of x/255). bool stands for 0 and 1. These floats have the
    dtype of the encoder's first floating-point parameter.

    Noise: with ``seed=`` a call is a pure function of its arguments; without, the seed comes from
    ``generator`` or PyTorch's default one.

    Raises:
        ValueError: x has no batch dim; the encoder's mu is not a batch of x's length, or its logvar does not
            broadcast to mu; the decoder's logits or mean have another shape than x.
        ValueError: an unknown objective; n_samples that is not what the objective takes; β ≠ 1 with another
            objective than "elbo".
        ValueError: a prior of latent vectors of another shape; its ``log_prob`` is not one number a latent vector.
        TypeError: x is an integer tensor other than uint8; the encoder's output is not a pair, or the
            decoder's neither a tensor nor a pair; a prior that is no module, or has not the methods.

    Example:
        >>> vae = vae_fast.VAE(vae_fast.GaussianMLP(784, 20), vae_fast.BernoulliMLP(20, 784))
        >>> out = vae(torch.rand(100, 784), seed=0)
        >>> out.loss.backward()
        >>> out.elbo.shape, out.z.shape
        (torch.Size([100]), torch.Size([100, 20]))

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10; the loss with β ≠ 1: Higgins et
    al., "β-VAE" (2017).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        beta: float = 1.0,
        latent_shape: int | Sequence[int] | None = None,
        objective: str = "elbo",
        n_samples: int | tuple[int, int] = 1,
        prior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.n_samples = n_samples
        self._samples()
        self.encoder = encoder
        self.decoder = decoder
        self.beta = beta
        if latent_shape is None:
            latent_shape = getattr(encoder, "latent_shape", None)
        self.prior = StandardNormal(latent_shape) if prior is None else prior
        self.latent_shape: tuple[int, ...] | None = check_prior(self.prior, latent_shape)

    def forward(
        self,
        x: Tensor,
        *,
        index: Index | None = None,
        seed: Seed | None = None,
        offset: int = 0,
        generator: torch.Generator | None = None,
    ) -> VAEOutput:
        """The evidence lower bound of each datum, its two terms, and the loss.

        Args:
            x: the data, [B, *event]: floats, uint8, which stands for x/255, or bool.
            index: what the encoder is called with instead of x: which data x holds (:class:`LocalGaussian`). None:
                x.
            seed: an int, or one int64 element on x's device; the result is then a pure function of the arguments.
                Without a seed it is drawn from ``generator``.
            offset: place of mu's first element in the noise: a shard of a batch passes the number of latent
                elements before it and draws what the whole batch would have drawn.
            generator: where the seed is drawn from, not together with ``seed``. None: PyTorch's default one.

        Returns:
            A :class:`VAEOutput`.

        Raises:
            ValueError: shapes of x, of the encoder's or of the decoder's output that do not fit each other; both
                ``seed`` and ``generator``.
            TypeError: x is an integer tensor other than uint8; an encoder or decoder that returns something else
                than the class says.
        """
        samples = self._samples()
        mu, logvar = self.encode(x, index=index)
        # Not self.prior, whose look-up takes a microsecond.
        if self.objective != "elbo" or samples != (1, 1) or not _closed_form(self._modules["prior"]):
            noise: dict[str, Any] = {"seed": seed, "offset": offset, "generator": generator}
            return self._of_samples(x, mu, logvar, samples, noise)
        z, kl = rsample_kl(mu, logvar, event_ndim=mu.ndim - 1, seed=seed, offset=offset, generator=generator)
        decoded = self.decode(z)
        _check_event(decoded, x.shape)
        log_likelihood = _log_likelihood(decoded, x)
        loss = -(log_likelihood - self.beta * kl).mean()
        return VAEOutput(log_likelihood - kl, log_likelihood, kl, loss, z)

    def encode(self, x: Tensor, *, index: Index | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar) of q(z|x): the encoder's output, checked.

        Args:
            x: the data, [B, *event]: floats, uint8, which stands for x/255, or bool.
            index: what the encoder is called with instead of x. None: x.

        Returns:
            mu [B, *latent], and logvar, which broadcasts to it, in the encoder's dtype.

        Raises:
            ValueError: x has no batch dim; mu is not a batch of x's length, or logvar does not broadcast to it.
            TypeError: x is an integer tensor other than uint8; the encoder's output is not a pair.
        """
        if x.ndim == 0:
            raise ValueError("x needs a leading batch dim, got a 0-d tensor")
        output = self.encoder(self._encoder_input(x) if index is None else index)
        if not _is_pair(output):
            raise TypeError(f"the encoder must return the pair (mu, logvar), got {_describe(output)}")
        mu, logvar = output
        if mu.ndim == 0 or mu.shape[0] != x.shape[0]:
            raise ValueError(
                f"the encoder's mu must hold one latent vector for each of x's {x.shape[0]} data, "
                f"got mu of shape {list(mu.shape)} for x of shape {list(x.shape)}"
            )
        _check_logvar(logvar, mu, "encoder", "mu")
        return mu, logvar

    def decode(self, z: Tensor) -> Decoded:
        """The decoder's output for ``z`` [B, *latent], checked: logits, or a Gaussian's (mean, logvar)."""
        output = self.decoder(z)
        if isinstance(output, Tensor):
            return output
        if not _is_pair(output):
            raise TypeError(
                "the decoder must return a tensor (Bernoulli logits) or the pair (mean, logvar), "
                f"got {_describe(output)}"
            )
        mean, logvar = output
        _check_logvar(logvar, mean, "decoder", "mean")
        return mean, logvar

    def reconstruct(self, x: Tensor, *, index: Index | None = None) -> Tensor:
        """The mean of p(x|z) at z = mu. Differentiable.

        Args:
            x: the data, [B, *event]: floats, uint8, which stands for x/255, or bool.
            index: what the encoder is called with instead of x. None: x.

        Returns:
            [B, *event], in the decoder's dtype, for uint8 data on the scale of x/255.

        Raises:
            ValueError: x has no batch dim; mu is not a batch of x's length, or a logvar does not broadcast to its
                mean.
            TypeError: x is an integer tensor other than uint8; an encoder or decoder that returns something else
                than the class says.
        """
        mu, _ = self.encode(x, index=index)
        return _mean(self.decode(mu))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: Seed | None = None,
        generator: torch.Generator | None = None,
        mean: bool = True,
    ) -> Tensor:
        """Data of the model: z ~ p(z), then the mean of p(x|z), or a draw from it. Without a graph.

        z is sample 0 of the seed's noise, or what the prior makes of the seed, the draw from p(x|z) takes sample 1:
        ``seed`` decides both.

        Args:
            n: how many data.
            seed: an int, or one int64 element on the decoder's device; the result is then a pure function of the
                arguments. Without a seed it is drawn from ``generator``.
            generator: where the seed is drawn from, not together with ``seed``. None: PyTorch's default one.
            mean: whether the mean of p(x|z) is returned; False: a draw from it.

        Returns:
            [n, *event] on the device and in the dtype of the decoder's parameters.

        Raises:
            ValueError: the shape of a latent vector is not known (``latent_shape=`` of the class says it); both
                ``seed`` and ``generator``.
            TypeError: the decoder's output is neither a tensor nor a pair.
        """
        like = _first_float(self.decoder)
        if seed is None:
            seed = _draw_seed(generator, like.device)
        elif generator is not None:
            raise ValueError("pass seed or generator, not both")
        if not _closed_form(self.prior):
            z = self._prior_now().sample(n, seed=seed)
        elif self.latent_shape is None:
            raise ValueError(
                "sample() does not know the shape of a latent vector, since the encoder has no latent_shape: "
                "pass VAE(..., latent_shape=...)"
            )
        else:
            z = rsample(like.new_zeros(n, *self.latent_shape), 0.0, seed=seed)
        decoded = self.decode(z)
        if mean:
            return _mean(decoded)
        if isinstance(decoded, Tensor):
            eps = rsample(torch.zeros_like(decoded), 0.0, seed=seed, first_sample=1)
            # Φ(ε) is uniform and never 0, so that ≤ makes the probabilities 0 and 1 certain.
            return (torch.special.ndtr(eps) <= torch.sigmoid(decoded)).to(decoded.dtype)
        return rsample(*decoded, seed=seed, first_sample=1)

    @torch.no_grad()
    def log_marginal(
        self,
        x: Tensor,
        n_samples: int,
        *,
        chunk_size: int | None = None,
        seed: Seed | None = None,
        index: Index | None = None,
    ) -> Tensor:
        r"""The importance-sampled estimate of log p(x) of each datum, in nats.

        .. math:: \log \frac{1}{S} \sum_{s=1}^{S} \frac{p(x|z_s)\,p(z_s)}{q(z_s|x)}, \qquad z_s \sim q(z|x)

        Its expectation is the ELBO at S = 1 and grows with S, to log p(x) at most.

        Runs under ``no_grad`` and in chunks of samples, summed in float64: memory depends on B and
        ``chunk_size``, not on ``n_samples``. Sample s of a seed is the same noise in any chunk, so
        ``chunk_size`` changes the value by rounding alone, if the decoder treats its rows one by one (call
        ``eval()`` first where it has batch normalisation or dropout).

        Args:
            x: the data, [B, *event]: floats, uint8, which stands for x/255, or bool.
            n_samples: S.
            chunk_size: samples of each datum decoded at once, as ``chunk_size * B`` rows of z; None: as
                many as make about 2²³ elements of x.
            seed: an int, or one int64 element on x's device. None: one is drawn from PyTorch's default generator.
            index: what the encoder is called with instead of x: which data x holds. None: x.

        Returns:
            [B]; float64 for float64, else float32.

        Raises:
            ValueError: n_samples or chunk_size < 1; shapes of x, of the encoder's or of the decoder's output that
                do not fit each other; a prior whose ``log_prob`` is not one number a latent vector.
            TypeError: x is an integer tensor other than uint8; an encoder or decoder that returns something else
                than the class says.

        Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), eq. 8; Rezende, Mohamed
        and Wierstra (2014), appendix E.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        if chunk_size is None:
            chunk_size = max(1, _LOG_MARGINAL_ELEMENTS // max(1, x.numel()))
        elif chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        if seed is None:
            seed = _draw_seed(None, x.device)
        mu, logvar = self.encode(x, index=index)
        prior = self._prior_now()
        total = torch.full((x.shape[0],), -torch.inf, dtype=torch.float64, device=mu.device)
        for first in range(0, n_samples, chunk_size):
            count = min(chunk_size, n_samples - first)
            z, log_q, log_p = rsample_log_prob(
                mu, logvar, count, event_ndim=mu.ndim - 1, seed=seed, first_sample=first
            )
            log_weight = self._log_likelihood_of(x, z) + (_log_prior(prior, z, log_p) - log_q)
            total = torch.logaddexp(total, log_weight.double().logsumexp(0))
        return (total - math.log(n_samples)).to(log_weight.dtype)

    def variational_parameters(self) -> Iterator[nn.Parameter]:
        """φ: the encoder's parameters."""
        return self.encoder.parameters()

    def generative_parameters(self) -> Iterator[nn.Parameter]:
        """θ: the decoder's parameters, and the prior's own."""
        return itertools.chain(self.decoder.parameters(), self.prior.parameters())

    def extra_repr(self) -> str:
        text = f"beta={self.beta}, latent_shape={self.latent_shape}"
        if (self.objective, self.n_samples) != ("elbo", 1):
            text += f", objective={self.objective!r}, n_samples={self.n_samples}"
        return text

    def _samples(self) -> tuple[int, int]:
        """(M, K): how many bounds there are, of how many samples each."""
        if self.objective not in OBJECTIVES:
            known = ", ".join(map(repr, OBJECTIVES))
            raise ValueError(f"unknown objective {self.objective!r}; there are {known}")
        pair = self.objective == "miwae"
        numbers = self.n_samples if isinstance(self.n_samples, (tuple, list)) else (self.n_samples,)
        if len(numbers) != 1 + pair or not all(type(n) is int and n >= 1 for n in numbers):
            wanted = "a pair (M, K) of positive ints" if pair else "a positive int"
            raise ValueError(
                f"n_samples must be {wanted} for the objective {self.objective!r}, got {self.n_samples!r}"
            )
        return numbers if pair else (1, *numbers)

    def _of_samples(
        self, x: Tensor, mu: Tensor, logvar: Tensor, samples: tuple[int, int], noise: dict[str, Any]
    ) -> VAEOutput:
        """The output of an objective of several samples, drawn from ``noise``."""
        if self.objective != "elbo" and self.beta != 1:
            raise ValueError(
                f"the objective {self.objective!r} is a bound of its own: beta must be 1, got {self.beta}"
            )
        prior, event_ndim, count = self._prior_now(), mu.ndim - 1, (math.prod(samples),)
        closed = _closed_form(prior)
        kl = gaussian_kl(mu, logvar, event_ndim=event_ndim) if closed else None
        q_grad: QGrad = "path" if self.objective in ("stl", "dreg") else "total"
        z, log_q, log_p = rsample_log_prob(mu, logvar, count, event_ndim=event_ndim, q_grad=q_grad, **noise)
        shaped = z if self.objective != "miwae" else z.unflatten(0, samples)
        shaped = z[0] if self.n_samples == 1 else shaped
        # By another name, of which "dreg" changes the gradient.
        z = z.view_as(z)
        log_p = _log_prior(prior, z, log_p)
        surrogate, bound, mean = self._estimates(x, z, log_p, log_q, samples, closed)
        if kl is None:
            # What comes back to the z of "dreg" is scaled, and would be none of the KL's.
            ratio = log_p - log_q
            kl = -(ratio.detach() if self.objective == "dreg" else ratio).mean(0)
        if self.objective == "elbo":
            return VAEOutput(mean - kl, mean, kl, self.beta * kl.mean() - surrogate, shaped)
        loss = -surrogate
        if self.objective == "dreg":
            # The surrogate's gradient, and the bound's value.
            bound = bound.detach()
            loss = loss - (loss.detach() + bound.mean())
        return VAEOutput(bound, mean, kl, loss, shaped)

    def _estimates(
        self, x: Tensor, z: Tensor, log_p: Tensor, log_q: Tensor, samples: tuple[int, int], closed: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(average surrogate, bound [B], log p(x|z) averaged over the samples [B]) of by_data.Objective."""
        name = self.objective
        if by_data.by_rows(self.decoder) and (closed or name != "dreg"):
            if by_data.serves(x, z, log_p, log_q, *self.decoder.parameters()):
                own = by_data.Objective(name, samples, self.decoder, self._log_likelihood_at, _width(x, z))
                return own(x, z, *((log_p.detach(), log_q.detach()) if name == "elbo" else (log_p, log_q)))
        log_likelihood = self._log_likelihood_of(x, z)
        # A prior with parameters is met by way of z; one in closed form has none.
        through_z = (log_q, log_p) if closed else (log_q,)
        bound, surrogate = by_data.terms(name, samples, log_likelihood, log_p - log_q, z, through_z)
        return surrogate.mean(), bound, log_likelihood.mean(0)

    def _prior_now(self) -> Any:
        """The prior as one call has it: one that is made of the encoder's outputs runs the encoder once."""
        prior: Any = self.prior
        return prior.with_encoder(self.encode) if hasattr(prior, "with_encoder") else prior

    def _encoder_input(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return x
        if x.dtype not in (torch.uint8, torch.bool):
            raise TypeError(f"x must be uint8 (taken as x/255), bool or of a float dtype, got {x.dtype}")
        x_float = x.to(_first_float(self.encoder).dtype)
        return x_float / 255 if x.dtype == torch.uint8 else x_float

    def _log_likelihood_of(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) of z [S, B, *latent]: [S, B]; without a table of logits where nobody asks for one."""
        decoder = self.decoder
        if not (torch.is_grad_enabled() or tracing.traced()) and by_data.by_rows(decoder):
            return by_data.log_likelihoods(self._log_likelihood_at, x, z, _width(x, z))
        if isinstance(decoder, BernoulliMLP) and decoder._stores_no_logits() and decoder.out_shape == x.shape[1:]:
            return decoder.log_likelihood(z, x, x_scale=_x_scale(x))
        return self._log_likelihood_at(x, z)

    def _log_likelihood_at(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) of z [S, B, *latent], all at once: [S, B]."""
        decoded = self.decode(z.flatten(0, 1))
        _check_event(decoded, (z.shape[0] * z.shape[1], *x.shape[1:]))
        return _log_likelihood(_split_rows(decoded, z.shape[:2]), x)


def _width(x: Tensor, z: Tensor) -> int:
    """Bytes of a decoded datum."""
    return math.prod(x.shape[1:]) * z.element_size()


def _closed_form(prior: Any) -> bool:
    return getattr(prior, "closed_form", False)


def _log_prior(prior: Any, z: Tensor, standard: Tensor) -> Tensor:
    """log p(z) of z [S, B, *latent]: [S, B]; ``standard`` is that of N(0, I)."""
    if _closed_form(prior):
        return standard
    log_prior: Tensor = prior.log_prob(z)
    if log_prior.shape != z.shape[:2]:
        raise ValueError(
            f"the prior's log_prob must return one number a latent vector, {list(z.shape[:2])} "
            f"of z {list(z.shape)}, got {list(log_prior.shape)}"
        )
    return log_prior


def _log_likelihood(decoded: Decoded, x: Tensor) -> Tensor:
    if isinstance(decoded, Tensor):
        return bernoulli_log_prob(decoded, x, x_scale=_x_scale(x), event_ndim=x.ndim - 1)
    return gaussian_log_prob(*decoded, x, x_scale=_x_scale(x), event_ndim=x.ndim - 1)


def _x_scale(x: Tensor) -> float:
    return 1 / 255 if x.dtype == torch.uint8 else 1.0


def _mean(decoded: Decoded) -> Tensor:
    return torch.sigmoid(decoded) if isinstance(decoded, Tensor) else decoded[0]


def _split_rows(decoded: Decoded, rows: Sequence[int]) -> Decoded:
    """The leading dim seen as the dims ``rows``; a logvar without rows of its own broadcasts as it is."""
    if isinstance(decoded, Tensor):
        return decoded.reshape(*rows, *decoded.shape[1:])
    mean, logvar = decoded
    if isinstance(logvar, Tensor) and logvar.ndim == mean.ndim and logvar.shape[0] == mean.shape[0]:
        logvar = logvar.reshape(*rows, *logvar.shape[1:])
    return mean.reshape(*rows, *mean.shape[1:]), logvar


def _is_pair(output: Any) -> bool:
    """Whether it is (tensor, tensor or number): a fixed log-variance may be a number."""
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        return False
    return isinstance(output[0], Tensor) and isinstance(output[1], (Tensor, float, int))


def _describe(output: Any) -> str:
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of ({', '.join(type(item).__name__ for item in output)})"
    return type(output).__name__


def _check_logvar(logvar: Any, mean: Tensor, network: str, mean_name: str) -> None:
    if not isinstance(logvar, Tensor) or (logvar.ndim == mean.ndim and logvar.shape == mean.shape):
        return
    dims = zip(reversed(logvar.shape), reversed(mean.shape), strict=False)
    if logvar.ndim > mean.ndim or any(n not in (1, m) for n, m in dims):
        raise ValueError(
            f"the {network}'s logvar, of shape {list(logvar.shape)}, "
            f"does not broadcast to its {mean_name}, of shape {list(mean.shape)}"
        )


def _check_event(decoded: Decoded, shape: Sequence[int]) -> None:
    name, got = ("logits", decoded) if isinstance(decoded, Tensor) else ("mean", decoded[0])
    if tuple(got.shape) != tuple(shape):
        raise ValueError(f"the decoder's {name} must have x's shape, {list(shape)}, got {list(got.shape)}")


def _first_float(module: nn.Module) -> Tensor:
    """A tensor whose dtype and device are the module's."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.detach()
    return torch.empty(())


def _draw_seed(generator: torch.Generator | None, device: torch.device) -> int | Tensor:
    """A seed for calls on ``device``, from the generator given or the CPU's default one, whatever the device."""
    seed = seeds.draw(generator, torch.device("cpu") if generator is None else generator.device)
    return seed.to(device) if isinstance(seed, Tensor) else seed

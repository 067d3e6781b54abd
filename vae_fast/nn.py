"""The networks of a VAE: multilayer perceptrons as encoder and decoder, and per-datum posteriors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .ops.linear_bernoulli_log_prob import linear_bernoulli_log_prob

__all__ = ["BernoulliMLP", "GaussianMLP", "LocalGaussian"]

Shape = int | Sequence[int]


def _shape(size: Shape) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


class _MLP(nn.Module):
    """What all heads share: flatten the event dims, then (Linear, activation) for each hidden layer."""

    def __init__(
        self,
        in_features: Shape,
        out_features: Shape,
        hidden: Shape,
        activation: Callable[[], nn.Module],
        device: Any,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.in_shape = _shape(in_features)
        self.out_shape = _shape(out_features)
        widths = (prod(self.in_shape), *_shape(hidden))
        layers: list[nn.Module] = []
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width_in, width_out, device=device, dtype=dtype), activation()]
        self.hidden = nn.Sequential(*layers)
        self._head_width = widths[-1]

    def _head(self, device: Any, dtype: torch.dtype | None) -> nn.Linear:
        return nn.Linear(self._head_width, prod(self.out_shape), device=device, dtype=dtype)

    def _features(self, x: Tensor) -> Tensor:
        n = len(self.in_shape)
        if x.ndim < n or tuple(x.shape[x.ndim - n :]) != self.in_shape:
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape [..., {', '.join(map(str, self.in_shape))}], "
                f"got {list(x.shape)}"
            )
        return self.hidden(x if n == 1 else x.reshape(*x.shape[: x.ndim - n], prod(self.in_shape)))

    def _event(self, y: Tensor) -> Tensor:
        return y if len(self.out_shape) == 1 else y.reshape(*y.shape[:-1], *self.out_shape)


class GaussianMLP(_MLP):
    r"""Mean and log-variance of a diagonal Gaussian from a multilayer perceptron, as encoder or decoder.

    .. math:: h = \tanh(W_3 v + b_3), \quad \mu = W_4 h + b_4, \quad \log\sigma^2 = W_5 h + b_5

    The paper has one hidden layer of 500 tanh units on MNIST; ``hidden`` takes any number of them.

    Args:
        in_features: size of the input's last dim, or the shape of its last dims, which are flattened.
        out_features: size of the last dim of both outputs, or the shape of their last dims.
        hidden: width of each hidden layer, input to output; ``()`` leaves two linear maps of the input.
        activation: called without arguments once per hidden layer, returns a module.
        mean_activation: called without arguments, returns a module that μ goes through: ``nn.Sigmoid`` for a
            decoder of data in (0, 1), as the paper's of Frey Face. None leaves μ linear.
        device: of the parameters, as in :class:`torch.nn.Linear`, whose initialisation they have. None: PyTorch's
            default one.
        dtype: of the parameters. None: PyTorch's default one.

    Shapes: ``forward([..., *in_features])`` returns ``(mean, logvar)``, each ``[..., *out_features]``, in the
    dtype of the parameters.

    Raises:
        ValueError: the input's last dims are not ``in_features``.

    Example:
        >>> mu, logvar = vae_fast.GaussianMLP((28, 28), 20)(torch.rand(100, 28, 28))
        >>> mu.shape, logvar.shape
        (torch.Size([100, 20]), torch.Size([100, 20]))

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.2.
    """

    def __init__(
        self,
        in_features: Shape,
        out_features: Shape,
        hidden: Shape = (500,),
        activation: Callable[[], nn.Module] = nn.Tanh,
        *,
        mean_activation: Callable[[], nn.Module] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, hidden, activation, device, dtype)
        self.mean = self._head(device, dtype)
        self.logvar = self._head(device, dtype)
        self.mean_activation = None if mean_activation is None else mean_activation()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent vector when this is an encoder; :meth:`vae_fast.VAE.sample` asks for it."""
        return self.out_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, logvar) of the input ``x`` [..., *in_features], each [..., *out_features]."""
        h = self._features(x)
        mean = self._event(self.mean(h))
        if self.mean_activation is not None:
            mean = self.mean_activation(mean)
        return mean, self._event(self.logvar(h))


class BernoulliMLP(_MLP):
    r"""Logits of independent Bernoulli variables from a multilayer perceptron: a decoder of binary data.

    .. math:: l = W_2 \tanh(W_1 z + b_1) + b_2, \qquad p(x_i = 1 \mid z) = 1 / (1 + e^{-l_i})

    It stops before the sigmoid, which :func:`vae_fast.bernoulli_log_prob` applies.

    Args:
        in_features: size of the input's last dim, or the shape of its last dims, which are flattened.
        out_features: size of the output's last dim, or the shape of its last dims.
        hidden: width of each hidden layer, input to output; ``()`` leaves a linear map of the input.
        activation: called without arguments once per hidden layer, returns a module.
        device: of the parameters, as in :class:`torch.nn.Linear`, whose initialisation they have. None: PyTorch's
            default one.
        dtype: of the parameters. None: PyTorch's default one.

    Shapes: ``forward([..., *in_features])`` returns logits ``[..., *out_features]``, in the dtype of the
    parameters.

    Raises:
        ValueError: the input's last dims are not ``in_features``.

    Example:
        >>> vae_fast.BernoulliMLP(20, (28, 28))(torch.zeros(100, 20)).shape
        torch.Size([100, 28, 28])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.1.
    """

    def __init__(
        self,
        in_features: Shape,
        out_features: Shape,
        hidden: Shape = (500,),
        activation: Callable[[], nn.Module] = nn.Tanh,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, hidden, activation, device, dtype)
        self.logits = self._head(device, dtype)

    def forward(self, z: Tensor) -> Tensor:
        """Logits [..., *out_features] of the latents ``z`` [..., *in_features]."""
        return self._event(self.logits(self._features(z)))

    def log_likelihood(self, z: Tensor, x: Tensor, *, x_scale: float = 1.0) -> Tensor:
        """log p(x|z) of many z, in nats, without their logits (:func:`vae_fast.linear_bernoulli_log_prob`).

        Gradients are those of ``forward`` and ``bernoulli_log_prob``; hooks of this module and of its last layer
        are not run.

        Args:
            z: latents, [..., *data, *in_features].
            x: targets, [*data, *out_features]: floats in [0, 1], bool, or uint8.
            x_scale: multiplies x: 1/255 for bytes of 0 to 255.

        Returns:
            [..., *data]; float64 for float64 parameters, else float32.

        Raises:
            ValueError: z or x does not have the module's shapes.
            TypeError: x of int8 to int64.
        """
        n = len(self.out_shape)
        if x.ndim < n or tuple(x.shape[x.ndim - n :]) != self.out_shape:
            raise ValueError(f"x must be [*data, {', '.join(map(str, self.out_shape))}], got {list(x.shape)}")
        x = x.reshape(*x.shape[: x.ndim - n], prod(self.out_shape))
        return linear_bernoulli_log_prob(
            self._features(z), self.logits.weight, self.logits.bias, x, x_scale=x_scale
        )

    def _stores_no_logits(self) -> bool:
        """Whether ``log_likelihood`` does what ``forward`` does: nobody has changed it, or watches the logits."""
        plain = type(self).forward is BernoulliMLP.forward and type(self.logits) is nn.Linear
        hooks = (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (self, self.logits))
        return plain and not any(hooks)


class LocalGaussian(nn.Module):
    r"""The non-amortised posterior :math:`q(z_i) = N(\mu_i, \mathrm{diag}\,\sigma_i^2)`, free for each datum.

    An encoder predicts :math:`\mu_i` and :math:`\log\sigma_i^2` from :math:`x_i` with weights that all data
    share; here they are the variational parameters themselves. What an encoder loses against it is the amortisation
    gap.

    Used as ``VAE(LocalGaussian(n, latent), decoder)`` with ``vae(x, index=index)``, where ``index`` says
    which data ``x`` holds. It starts at the prior: μ = 0, log σ² = 0.

    Args:
        n_data: number of data.
        latent: size, or shape, of one latent vector.
        device: of the parameters. None: PyTorch's default one.
        dtype: of the parameters. None: PyTorch's default one.

    Shapes: ``mu`` and ``logvar`` are ``[n_data, *latent]``; ``forward(index)`` returns
    ``(mu[index], logvar[index])``, without index all of them. ``index`` is whatever indexes a tensor's first
    dim: an integer tensor, a bool mask, a slice, a list.

    Raises:
        TypeError: ``index`` is a floating-point tensor (data, most likely).

    Example:
        >>> mu, logvar = vae_fast.LocalGaussian(1000, 20)(torch.tensor([3, 5]))
        >>> mu.shape, logvar.shape
        (torch.Size([2, 20]), torch.Size([2, 20]))

    Source: Hoffman, Blei, Wang and Paisley, "Stochastic Variational Inference" (2013); the amortisation gap:
    Cremer, Li and Duvenaud, "Inference Suboptimality in Variational Autoencoders" (2018).
    """

    def __init__(self, n_data: int, latent: Shape, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        size = (n_data, *_shape(latent))
        self.mu = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))
        self.logvar = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent vector."""
        return tuple(self.mu.shape[1:])

    def forward(self, index: Tensor | slice | Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar) of the data that ``index`` names, each [n, *latent]; of all data without one."""
        if index is None:
            return self.mu, self.logvar
        if isinstance(index, Tensor) and index.is_floating_point():
            raise TypeError(
                f"LocalGaussian takes the indices of data, got a {index.dtype} tensor: "
                "inside a VAE, pass index= beside x"
            )
        return self.mu[index], self.logvar[index]

    def extra_repr(self) -> str:
        return f"n_data={self.mu.shape[0]}, latent_shape={self.latent_shape}"

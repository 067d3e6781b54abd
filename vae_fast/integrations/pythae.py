"""pythae's VAE and BetaVAE on the fused kernels: one call after the model is made.

>>> model = vf.integrations.pythae.patch(BetaVAE(config))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch.nn.functional as F
from pythae.models import VAE, BetaVAE
from pythae.models.base.base_utils import ModelOutput
from torch import Tensor

from vae_fast import seeds
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.ops.standard_normal import standard_normal

Model = TypeVar("Model", bound=VAE)


class Loss:
    """``loss_function`` of a VAE or BetaVAE: (recon_x, x, mu, log_var, z) → means of (loss, reconstruction, KL).

    It holds the model, whose β may change while it is trained; and it is copied and pickled along with it.
    """

    def __init__(self, model: VAE) -> None:
        self.model = model

    def __call__(self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Any) -> tuple[Tensor, ...]:
        return self.of(recon_x, x, gaussian_kl(mu, log_var))

    def of(self, recon_x: Tensor, x: Tensor, kl: Tensor) -> tuple[Tensor, ...]:
        """The same of a KL that is known."""
        recon_x, x = recon_x.reshape(len(x), -1), x.reshape(len(x), -1)
        if self.model.model_config.reconstruction_loss == "mse":
            # PyTorch's own: a log-density less its constant would lose the digits of a small error.
            reconstruction = 0.5 * F.mse_loss(recon_x, x, reduction="none").sum(1)
        else:
            reconstruction = bernoulli_log_prob(recon_x, x, param="probs", scale=-1.0)
        beta = self.model.beta if type(self.model).loss_function is BetaVAE.loss_function else 1.0
        return (reconstruction + beta * kl).mean(0), reconstruction.mean(0), kl.mean(0)


class Forward:
    """``forward`` of a VAE or BetaVAE, with sample and KL by one kernel. It holds the model, as ``Loss``."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    def __call__(self, inputs: Any, **kwargs: Any) -> ModelOutput:
        x = inputs["data"]
        encoded = self.model.encoder(x)
        z, kl = rsample_kl(encoded.embedding, encoded.log_covariance)
        recon_x = self.model.decoder(z)["reconstruction"]
        loss, reconstruction, kl = self.model.loss_function.of(recon_x, x, kl)
        return ModelOutput(recon_loss=reconstruction, reg_loss=kl, loss=loss, recon_x=recon_x, z=z)


def sample_gauss(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """``_sample_gauss``: (z, ε), z = mu + std·ε."""
    key = seeds.draw(None, mu.device)
    z = rsample(mu, std, param="std", seed=key)
    return z, standard_normal(mu.shape, seed=key, device=mu.device, dtype=mu.dtype)


def patch(model: Model) -> Model:
    """Gives a pythae model the fused kernels for its loss and its sampling; the same model comes back.

    For VAE, BetaVAE and what is derived from them without a loss of its own, with "mse" and "bce": the same three
    means, and their gradients; "mse" itself stays PyTorch's. A ``forward`` of your own is kept. Trainers,
    ``deepcopy`` and pickling keep it all; ``model.save`` writes weights and configurations only, as it always
    does: patch again what ``load_from_folder`` returns.

    Raises:
        TypeError: a model of another kind, whose loss is of another form.

    Source: Chadebec, Vincent and Allassonnière, "Pythae: Unifying Generative Autoencoders in Python" (2022).
    """
    # By the functions themselves: what inherits one has it, what overrides it has not.
    cls: Any = type(model)
    if getattr(cls, "loss_function", None) not in (VAE.loss_function, BetaVAE.loss_function):
        raise TypeError(
            f"{cls.__name__} has a loss of its own: patch is for pythae's VAE, BetaVAE and what inherits theirs."
            " Elsewhere use vf.rsample, vf.gaussian_kl and vf.bernoulli_log_prob in the loss itself"
        )
    model.loss_function = Loss(model)
    model._sample_gauss = sample_gauss
    if cls.forward in (VAE.forward, BetaVAE.forward):
        model.forward = Forward(model)
    return model

"""pythae's Gaussian-latent models on the fused kernels: one call after the model is made.

>>> model = vf.integrations.pythae.patch(BetaVAE(config))  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from pythae.models import (
    CIWAE,
    INFOVAE_MMD,
    IWAE,
    MIWAE,
    PIWAE,
    VAE,
    VAEGAN,
    VAMP,
    WAE_MMD,
    BaseAE,
    BetaTCVAE,
    BetaVAE,
    DisentangledBetaVAE,
)
from pythae.models.base.base_utils import ModelOutput
from torch import Tensor

from vae_fast import seeds
from vae_fast.disentanglement import log_weights
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.gaussian_mixture_log_prob import gaussian_mixture_log_prob
from vae_fast.ops.mmd import mmd
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.ops.standard_normal import standard_normal

Model = TypeVar("Model", bound=BaseAE)


class Holder:
    """What stands for a method of a model, and is copied and pickled along with it.

    It holds the model, whose β may change while it is trained.
    """

    def __init__(self, model: BaseAE) -> None:
        self.model = model


def reconstruction_loss(model: BaseAE, recon_x: Tensor, x: Tensor, samples: Sequence[int] = ()) -> Tensor:
    """−log p(x|z), of squared errors less its constant: [B, samples…]. x is broadcast over them, not repeated."""
    recon_x, x = recon_x.reshape(len(x), *samples, -1), x.reshape(len(x), *(1 for _ in samples), -1)
    if model.model_config.reconstruction_loss == "mse":
        # PyTorch's own: a log-density less its constant would lose the digits of a small error.
        return 0.5 * F.mse_loss(recon_x, x.expand_as(recon_x), reduction="none").sum(-1)
    return bernoulli_log_prob(recon_x, x, param="probs", scale=-1.0)


class Loss(Holder):
    """``loss_function`` of a VAE or BetaVAE: (recon_x, x, mu, log_var, z) → mean loss, reconstruction, KL."""

    def __call__(self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Any) -> tuple[Tensor, ...]:
        return self.of(recon_x, x, gaussian_kl(mu, log_var))

    def of(self, recon_x: Tensor, x: Tensor, kl: Tensor) -> tuple[Tensor, ...]:
        """The same of a KL that is known."""
        reconstruction = reconstruction_loss(self.model, recon_x, x)
        beta = self.model.beta if type(self.model).loss_function is BetaVAE.loss_function else 1.0
        return (reconstruction + beta * kl).mean(0), reconstruction.mean(0), kl.mean(0)


class DisentangledLoss(Holder):
    """The same of a DisentangledBetaVAE: β·|KL − C|, C growing over the epochs of its warm-up."""

    def __call__(
        self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Any, epoch: float
    ) -> tuple[Tensor, ...]:
        model = self.model
        reconstruction, kl = reconstruction_loss(model, recon_x, x), gaussian_kl(mu, log_var)
        capacity = model.C * min(epoch / (model.warmup_epoch + 1), 1)
        loss = reconstruction + model.beta * (kl - capacity).abs()
        return loss.mean(0), reconstruction.mean(0), kl.mean(0)


def weighted(log_w: Tensor) -> Tensor:
    """−Σ w̃·log w, w̃ ∝ w without a gradient, over dim 1: as in pythae, estimates of [B, estimates, samples]."""
    return -(log_w.softmax(1).detach() * log_w).sum(1)


class WeightedLoss(Holder):
    """``loss_function`` of an IWAE, MIWAE, PIWAE or CIWAE, whose terms are of [B, samples…]."""

    def __call__(self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        own = type(self.model).loss_function
        reconstruction = reconstruction_loss(self.model, recon_x, x, z.shape[1:-1])
        kl = 0.5 * (z.square() - log_var - (z - mu).square() / log_var.exp()).sum(-1)
        log_w = -(reconstruction + kl)
        if own is IWAE.loss_function:
            return weighted(log_w).mean(), reconstruction.mean(), kl.mean()
        if own is MIWAE.loss_function:
            losses = [weighted(log_w)]
        elif own is PIWAE.loss_function:  # the encoder's, and the decoder's of all samples together
            losses = [weighted(log_w), weighted(log_w.flatten(1))]
        else:
            losses = [self.model.beta * -log_w.mean(1) + (1 - self.model.beta) * weighted(log_w)]
        return *(loss.mean() for loss in losses), reconstruction.mean(0), kl.mean(0)


def own_loss(model: BaseAE, recon_x: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """What pythae's ``loss_function`` returns, of a model whose loss adds the reconstruction to the rest."""
    own: Any = type(model).loss_function
    if model.model_config.reconstruction_loss == "mse":
        return own(model, recon_x, x, *args)
    reconstruction, zero = reconstruction_loss(model, recon_x, x).mean(0), recon_x.new_zeros(len(x), 1)
    loss, _, *others = own(model, zero, zero, *args)  # as if there were no error
    return loss + reconstruction, reconstruction, *others


class OwnLoss(Holder):
    """``loss_function`` of a VAMP, and of what has methods of its own for its terms: pythae's, but for "bce"."""

    def __call__(self, recon_x: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return own_loss(self.model, recon_x, x, *args)


class VampPrior(Holder):
    """``_log_p_z`` of a VAMP: the mixture of the pseudo-inputs' posteriors, less its constant."""

    def __call__(self, z: Tensor) -> Tensor:
        model = self.model
        shape = (model.number_components, *model.model_config.input_dim)
        encoded = model.encoder(model.pseudo_inputs(model.idle_input.to(z.device)).reshape(shape))
        # In the precision that pythae takes this logarithm in.
        each = torch.log(torch.tensor(float(model.number_components), dtype=torch.float32, device=z.device))
        log_weight = -each.expand(model.number_components)
        mu, log_var = encoded.embedding, encoded.log_covariance
        constant = z.shape[-1] * 0.5 * math.log(2 * math.pi)
        log_p: Tensor = gaussian_mixture_log_prob(mu, log_var, z, log_weight=log_weight.to(z.dtype))
        return log_p + constant


class TotalCorrelationLoss(Holder):
    """``loss_function`` of a BetaTCVAE: mutual information, total correlation and the dims' KL, weighted."""

    def __call__(
        self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor, dataset_size: int
    ) -> tuple[Tensor, ...]:
        model = self.model
        log_weight = log_weights("mss" if model.use_mss else "mws", dataset_size, mu)
        joint, marginals = gaussian_mixture_log_prob(mu, log_var, z, log_weight=log_weight, per_dim=True)
        information = gaussian_log_prob(mu, log_var, z) - joint
        by_dim = marginals - gaussian_log_prob(torch.zeros_like(z), 0.0, z)
        rest = model.alpha * information + model.beta * (joint - marginals) + model.gamma * by_dim
        reconstruction = reconstruction_loss(model, recon_x, x)
        return (reconstruction + rest).mean(0), reconstruction.mean(0), rest.mean(0)


def discrepancy(model: BaseAE, z: Tensor, z_prior: Tensor) -> Tensor:
    """The MMD of an INFOVAE_MMD or a WAE_MMD; of one datum NaN, as pythae's."""
    if len(z) < 2:
        return z.sum() * torch.nan
    kernel: Any = "rbf" if model.kernel_choice == "rbf" else "imq"
    return mmd(z, z_prior, kernel=kernel, bandwidth=model.model_config.kernel_bandwidth, scales=model.scales)


class InfoLoss(Holder):
    """``loss_function`` of an INFOVAE_MMD."""

    def __call__(
        self, recon_x: Tensor, x: Tensor, z: Tensor, z_prior: Tensor, mu: Tensor, log_var: Tensor
    ) -> tuple[Tensor, ...]:
        model = self.model
        reconstruction, kl = reconstruction_loss(model, recon_x, x).mean(0), gaussian_kl(mu, log_var).mean(0)
        apart = discrepancy(model, z, z_prior)
        loss = reconstruction + (1 - model.alpha) * kl + (model.alpha + model.lbd - 1) * apart
        return loss, reconstruction, kl, apart


class WassersteinLoss(Holder):
    """``loss_function`` of a WAE_MMD: squared errors, which are PyTorch's own, and the MMD."""

    def __call__(self, recon_x: Tensor, x: Tensor, z: Tensor, z_prior: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        errors = F.mse_loss(recon_x.reshape(len(x), -1), x.reshape(len(x), -1), reduction="none").sum(-1)
        reconstruction = (model.reconstruction_loss_scale * errors).mean(0)
        apart = discrepancy(model, z, z_prior)
        return reconstruction + model.model_config.reg_weight * apart, reconstruction, apart


class GANLoss(Holder):
    """``loss_function`` of a VAEGAN: pythae's of N(0, I), with the KL added to the encoder's loss."""

    def __call__(
        self, recon_x: Tensor, x: Tensor, z: Tensor, z_prior: Tensor, mu: Tensor, log_var: Tensor
    ) -> tuple[Any, ...]:
        kl, zero = gaussian_kl(mu, log_var).mean(0), mu.new_zeros(1, 1)
        own: Any = type(self.model).loss_function
        reconstruction, encoder, *others = own(self.model, recon_x, x, z, z_prior, zero, zero)
        return reconstruction, encoder + kl, *others


class Forward(Holder):
    """``forward`` of a VAE or BetaVAE, with sample and KL by one kernel."""

    def __call__(self, inputs: Any, **kwargs: Any) -> ModelOutput:
        x = inputs["data"]
        encoded = self.model.encoder(x)
        z, kl = rsample_kl(encoded.embedding, encoded.log_covariance)
        recon_x = self.model.decoder(z)["reconstruction"]
        loss, reconstruction, kl = self.model.loss_function.of(recon_x, x, kl)
        return ModelOutput(recon_loss=reconstruction, reg_loss=kl, loss=loss, recon_x=recon_x, z=z)


def sample_gauss(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """``_sample_gauss``: (z, ε), z = mu + std·ε."""
    # As ε is wanted too, drawing it once is faster than rsample, which draws it by itself.
    eps = standard_normal(std.shape, seed=seeds.draw(None, std.device), device=std.device, dtype=std.dtype)
    return torch.addcmul(mu, std, eps), eps


# By the functions themselves: what inherits one has it, what overrides it has not.
LOSSES: dict[Any, type[Holder]] = {
    VAE.loss_function: Loss,
    BetaVAE.loss_function: Loss,
    DisentangledBetaVAE.loss_function: DisentangledLoss,
    **{cls.loss_function: WeightedLoss for cls in (IWAE, MIWAE, PIWAE, CIWAE)},
    VAMP.loss_function: OwnLoss,
    BetaTCVAE.loss_function: TotalCorrelationLoss,
    INFOVAE_MMD.loss_function: InfoLoss,
    VAEGAN.loss_function: GANLoss,
    WAE_MMD.loss_function: WassersteinLoss,
}

# What a class may have of its own for these losses, which then are pythae's.
CALLED: dict[type[Holder], tuple[str, ...]] = {
    TotalCorrelationLoss: ("_compute_log_gauss_density", "_log_importance_weight_matrix"),
    InfoLoss: ("imq_kernel", "rbf_kernel"),
    WassersteinLoss: ("imq_kernel", "rbf_kernel"),
}


def patch(model: Model) -> Model:
    """Gives a pythae model the fused kernels for its loss and its sampling; the same model comes back.

    For these, and what is derived from them without a loss of its own: the same outputs, and their gradients.

    ================================= ==============================================
    VAE, BetaVAE, DisentangledBetaVAE the sample, the KL, "bce"
    INFOVAE_MMD                       the sample, the KL, the MMD, "bce"
    IWAE, MIWAE, PIWAE, CIWAE         the sample, "bce"; x is not repeated
    VAMP                              the sample, the prior, "bce"
    BetaTCVAE                         the sample, all terms, "bce"
    VAEGAN                            the sample, the KL
    WAE_MMD                           the MMD
    ================================= ==============================================

    All else stays pythae's, "mse" among it. A ``forward`` and a ``_sample_gauss`` of your own are kept. Trainers,
    ``deepcopy`` and pickling keep it all; ``model.save`` writes weights and configurations only, as it always
    does: patch again what ``load_from_folder`` returns.

    Args:
        model: an instance of one of these classes, or of what is derived from them. It is changed in place, its
            class is not.

    Returns:
        ``model``.

    Raises:
        TypeError: a model of another kind, whose loss is of another form.

    Source: Chadebec, Vincent and Allassonnière, "Pythae: Unifying Generative Autoencoders in Python" (2022).
    """
    cls: Any = type(model)
    if getattr(cls, "loss_function", None) not in LOSSES:
        kinds = ", ".join(loss.__qualname__.partition(".")[0] for loss in LOSSES)
        raise TypeError(
            f"{cls.__name__} has a loss of its own: patch is for pythae's {kinds} and what inherits theirs."
            " Elsewhere use vf.rsample, vf.gaussian_kl and vf.bernoulli_log_prob in the loss itself"
        )
    loss = LOSSES[cls.loss_function]
    if any(not getattr(cls, name, patch).__module__.startswith("pythae.") for name in CALLED.get(loss, ())):
        loss = OwnLoss
    if (loss, cls.loss_function) == (OwnLoss, WAE_MMD.loss_function):
        return model  # it has no other term of ours
    model.loss_function = loss(model)
    if getattr(cls, "_log_p_z", None) is VAMP._log_p_z:
        model._log_p_z = VampPrior(model)
    if getattr(cls, "_sample_gauss", patch).__module__.startswith("pythae."):
        model._sample_gauss = sample_gauss
        if cls.forward in (VAE.forward, BetaVAE.forward):
            model.forward = Forward(model)
    return model

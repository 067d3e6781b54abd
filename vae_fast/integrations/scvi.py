"""scvi-tools' models of counts on the fused kernels: one call after the model is made.

>>> model = vf.integrations.scvi.patch(scvi.model.SCVI(adata))  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any, TypeVar

import torch
from scvi.distributions import Poisson, ZeroInflatedNegativeBinomial
from scvi.module import MULTIVAE, SCANVAE, TOTALVAE, VAE
from scvi.module._constants import MODULE_KEYS
from scvi.nn import Encoder
from torch import Tensor
from torch.distributions import Normal

from vae_fast.ops.negative_binomial_log_prob import negative_binomial_log_prob
from vae_fast.ops.poisson_log_prob import poisson_log_prob
from vae_fast.ops.rsample import rsample

Model = TypeVar("Model")

# What scvi adds inside its logarithms of μ, θ and θ + μ; to a Poisson's rate it adds nothing.
EPS = 1e-8
LIKELIHOODS = ("zinb", "nb", "poisson")


def log_likelihood(module: VAE, px: Any, x: Tensor) -> Tensor:
    """log p(x|z), summed over the genes, of the distribution that ``module.generative`` made.

    The mean is the distribution's, softmax and library multiplied out.
    """
    if isinstance(px, Poisson):
        if px._validate_args:  # by default it refuses what is no count
            px._validate_sample(x)
        return poisson_log_prob(px.rate, x)
    zero_logits = px.zi_logits if isinstance(px, ZeroInflatedNegativeBinomial) else None
    # px has one θ a gene broadcast; of its own shape the kernel makes no gradient of full size.
    one_a_gene = module.dispersion == "gene" and type(module).generative is VAE.generative
    return negative_binomial_log_prob(
        px.mu,
        module.px_r if one_a_gene else px.theta,
        x,
        zero_logits=zero_logits,
        theta_param="log_theta" if one_a_gene else "theta",
        eps=EPS,
    )


class Summed:
    """p(x|z) as a loss reads it: ``log_prob`` has one value a datum, [..., 1], and scvi's own sum is of that."""

    def __init__(self, module: VAE, px: Any) -> None:
        self.module, self.px = module, px

    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.module, self.px, x).unsqueeze(-1)


class Method:
    """What stands in the place of a module's method, ``own`` of its class. It is copied and pickled along."""

    own: str

    def __init__(self, module: Any) -> None:
        self.module = module

    def call_own(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(type(self.module), self.own)(self.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The own method's: training plans look there for what else a loss takes."""
        return inspect.signature(MethodType(getattr(type(self.module), self.own), self.module))


class Loss(Method):
    """``loss`` of a module: scvi's own, of a likelihood that the kernels sum."""

    own = "loss"

    def __call__(
        self, tensors: Any, inference_outputs: Any, generative_outputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        px = Summed(self.module, generative_outputs[MODULE_KEYS.PX_KEY])
        generative_outputs = {**generative_outputs, MODULE_KEYS.PX_KEY: px}
        return self.call_own(tensors, inference_outputs, generative_outputs, *args, **kwargs)


class GenesAndProteins(Method):
    """Of TOTALVI's module: genes by the kernel, proteins by scvi's own of no genes."""

    own = "get_reconstruction_loss"

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        px_dict: dict[str, Tensor],
        py_dict: dict[str, Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        zero_logits = px_dict["dropout"] if self.module.gene_likelihood == "zinb" else None
        # px_dict["r"] has one θ a gene where the dispersion is "gene": it is not broadcast.
        genes = negative_binomial_log_prob(px_dict["rate"], px_dict["r"], x, zero_logits=zero_logits, eps=EPS)
        none = {key: px_dict[key][..., :0] for key in ("rate", "r", "dropout")}
        _, proteins = self.call_own(x[..., :0], y, none, py_dict, *args, **kwargs)
        return -genes, proteins


class Expression(Method):
    """The genes of MULTIVI's module."""

    own = "get_reconstruction_loss_expression"

    def __call__(self, x: Tensor, px_rate: Tensor, px_r: Tensor, px_dropout: Tensor) -> Tensor:
        likelihood = self.module.gene_likelihood
        if likelihood == "poisson":
            px = torch.distributions.Poisson(px_rate)
            if px._validate_args:
                px._validate_sample(x)
            return -poisson_log_prob(px_rate, x)
        zero_logits = px_dropout if likelihood == "zinb" else None
        return -negative_binomial_log_prob(px_rate, px_r, x, zero_logits=zero_logits, eps=EPS)


# What is replaced, by the functions themselves: what inherits one has it, what overrides it has not.
METHODS: dict[Any, type[Method]] = {
    TOTALVAE.get_reconstruction_loss: GenesAndProteins,
    MULTIVAE.get_reconstruction_loss_expression: Expression,
    VAE.loss: Loss,
    SCANVAE.loss: Loss,
}
SERVED = "SCVI, LinearSCVI, SCANVI, TOTALVI, MULTIVI"


class Encode:
    """``forward`` of an encoder: the same posterior, its sample drawn by ``vf.rsample``."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, x: Tensor, *categories: Tensor) -> tuple[Any, ...]:
        encoder = self.encoder
        hidden = encoder.encoder(x, *categories)
        mean = encoder.mean_encoder(hidden)
        var = encoder.var_activation(encoder.var_encoder(hidden)) + encoder.var_eps
        posterior = Normal(mean, var.sqrt())
        z = encoder.z_transformation(rsample(mean, posterior.scale, param="std"))
        return (posterior, z) if encoder.return_dist else (mean, var, z)


def patch(model: Model, *, sampling: bool = False) -> Model:
    """Gives a model of scvi-tools the fused kernels for its reconstruction; the same model comes back.

    For ``scvi.model.SCVI``, ``LinearSCVI`` and ``SCANVI``, and what inherits their module's loss; gene likelihoods
    "zinb", "nb" and "poisson" with every dispersion, size factor and latent distribution. The loss is scvi's own,
    of a log-likelihood by ``vf.negative_binomial_log_prob`` or ``vf.poisson_log_prob`` with scvi's ε: the same
    values and gradients. The distribution that ``generative`` gives is scvi's: its mean, its samples.

    For ``TOTALVI`` and ``MULTIVI`` the genes' part of the reconstruction is replaced, in the dispersions that scvi
    itself runs; that of proteins and of peaks is scvi's own.

    The model's module is patched, not its class. Copies and pickles stay patched; ``model.save`` writes weights and
    registries only, as it always does: patch again what ``load`` and ``from_scvi_model`` return. Zero-inflated
    likelihoods do not warn at every step of data that are no counts; ``setup_anndata`` has.

    Args:
        model: has its module: one made without ``adata`` gets it in ``train``, too late. It is changed in place.
        sampling: draws the samples of every encoder by ``vf.rsample`` too, whose noise is the same bits on every
            device. Without it scvi's are left alone, and training follows the path that it would have taken.
            Several samples a datum (``n_samples``) are scvi's in either case, and so are TOTALVI's, whose encoder
            is another.

    Returns:
        ``model``.

    Raises:
        TypeError: a model of another kind (PEAKVI, AUTOZI, …), whose loss is of another form.
        ValueError: a model without a module, or with gene_likelihood "normal".

    Source: Gayoso et al., "A Python library for probabilistic analysis of single-cell omics data" (2022).
    """
    name = type(model).__name__
    module: Any = getattr(model, "module", None)
    if module is None and hasattr(model, "module"):
        raise ValueError(f"this {name} has no module yet: make it with adata, then patch it")
    method = next((m for f, m in METHODS.items() if getattr(type(module), m.own, None) is f), None)
    if method is None:
        raise TypeError(
            f"{name} has a loss of its own: patch is for scvi's {SERVED} and what inherits"
            " theirs. Elsewhere use vf.negative_binomial_log_prob and vf.poisson_log_prob in the loss itself"
        )
    if module.gene_likelihood not in LIKELIHOODS:
        raise ValueError(
            f'gene_likelihood is "{module.gene_likelihood}": patch has kernels for {", ".join(LIKELIHOODS)}'
        )
    setattr(module, method.own, method(module))
    if sampling:
        for encoder in module.modules():
            if type(encoder).forward is Encoder.forward:
                encoder.forward = Encode(encoder)
    return model

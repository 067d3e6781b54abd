"""Plain PyTorch, any device, any dtype: what every operator computes, forward and backward.

Each ``<op>_fwd`` and ``<op>_bwd`` takes the arguments of the raw operator of that name (schemas.py) and is
built of differentiable PyTorch operations: it can be differentiated any number of times, in forward mode,
and under vmap. Gradients have the shape and dtype of the argument; one that was not asked for comes back
as None. Arithmetic is float64 for float64 arguments and float32 for all others.

Sources: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendices B and C;
Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016), eq. 15 for free bits.
"""

from vae_fast.reference.bernoulli_log_prob import bernoulli_log_prob_bwd, bernoulli_log_prob_fwd
from vae_fast.reference.gaussian_kl import gaussian_kl_bwd, gaussian_kl_fwd
from vae_fast.reference.gaussian_log_prob import gaussian_log_prob_bwd, gaussian_log_prob_fwd
from vae_fast.reference.rsample import rsample_bwd, rsample_fwd
from vae_fast.reference.rsample_kl import rsample_kl_bwd, rsample_kl_fwd
from vae_fast.reference.standard_normal import standard_normal_fwd

__all__ = [
    "bernoulli_log_prob_bwd",
    "bernoulli_log_prob_fwd",
    "gaussian_kl_bwd",
    "gaussian_kl_fwd",
    "gaussian_log_prob_bwd",
    "gaussian_log_prob_fwd",
    "rsample_bwd",
    "rsample_fwd",
    "rsample_kl_bwd",
    "rsample_kl_fwd",
    "standard_normal_fwd",
]

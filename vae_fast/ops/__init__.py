"""The public functions: each checks its arguments, chooses a backend and stands behind one autograd.Function."""

from vae_fast import schemas as _schemas  # registers torch.ops.vae_fast
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.ops.early import early_gradients
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.ops.standard_normal import standard_normal

__all__ = [
    "bernoulli_log_prob",
    "early_gradients",
    "gaussian_kl",
    "gaussian_log_prob",
    "rsample",
    "rsample_kl",
    "standard_normal",
]
del _schemas

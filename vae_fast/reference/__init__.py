"""Plain PyTorch, any device, any dtype: what every operator computes, forward and backward.

Module <op> has ``<op>_fwd`` and ``<op>_bwd`` (python_backend.py), built of differentiable PyTorch operations: they
can be differentiated any number of times, in forward mode, and under vmap. Gradients have the shape and dtype of
the argument; one that is not wanted comes back as None. Arithmetic is float64 for float64 arguments and float32 for
all others.

Sources: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendices B and C;
Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016), eq. 15 for free bits.
"""

from vae_fast import python_backend
from vae_fast.operators import PAIRWISE

KERNELS = python_backend.kernels(__name__)
for _op in PAIRWISE:
    python_backend.add_pairwise(KERNELS, __name__, _op)
python_backend.add_common(KERNELS)
"""A function of the raw operator's arguments for every raw operator."""

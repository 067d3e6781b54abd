"""Whether Triton's interpreter runs the kernels, on a CPU, or what its code is at the end."""

import os

import torch

# Triton reads it when it is imported, and takes these words for a yes.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "y", "on")
IS_PTX = not INTERPRETED and torch.version.hip is None

"""Whether Triton's interpreter runs the kernels, on a CPU."""

import os

# Triton reads it when it is imported, and takes these words for a yes.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "y", "on")

"""Whether this Python can run what needs a CUDA GPU; if not, a line that says what is missing, and exit status 1.

python tests/needs_gpu.py "make test-gpu"
"""

import sys


def missing():
    try:
        import torch
    except ImportError:
        return "has no torch"
    if not torch.cuda.is_available():
        return f"has torch {torch.__version__}, which sees no GPU"
    for module in ("pytest", "hypothesis", "mpmath", "scipy", "pytest_benchmark"):
        try:
            __import__(module)
        except ImportError:
            return f"has no {module}"
    return ""


if __name__ == "__main__":
    if why := missing():
        sys.exit(f"{sys.argv[1]} needs a CUDA GPU and a Python for it (GPU_PYTHON=...): {sys.executable} {why}")

"""What the wheel for aarch64 has to do under emulation: load its kernels and front, draw the frozen noise, compute.

A few calls, since emulated ones take tens of times as long; `python -m vae_fast check` looks at errors.
"""

import hashlib
import platform

import torch

import vae_fast as vf

native = vf.backends()["native"]
assert native.available, native.reason
assert native.front == "compiled", native.front
print(f"on {platform.machine()}, torch {torch.__version__}: native, with its front", flush=True)

# The bits that tests/operators/test_noise.py has frozen.
GOLDEN = "63ba516cd54c0d304377b9106270b274078d61c8992a4e59d6652da6009003a6"
for backend in ("native", "reference"):
    z = vf.standard_normal((2**20,), seed=42, dtype=torch.float32, backend=backend)
    assert hashlib.sha256(z.numpy().tobytes()).hexdigest() == GOLDEN, backend
for dtype in (torch.float64, torch.bfloat16, torch.float16):
    one, other = (vf.standard_normal((3, 4097), seed=1, dtype=dtype, backend=b) for b in ("native", "reference"))
    assert torch.equal(one, other), dtype
print("the noise has its bits", flush=True)

mu = torch.randn(7, 5, requires_grad=True)
z, kl = vf.rsample_kl(mu, 0.0, seed=1)
(z.sum() + kl.sum()).backward()
torch.testing.assert_close(mu.grad, 1 + mu.detach())
drawn = [vf.rsample(torch.zeros(7, 5), 0.0, seed=1, backend=backend) for backend in ("native", "reference")]
assert torch.equal(*drawn)
print("samples and gradients are right", flush=True)

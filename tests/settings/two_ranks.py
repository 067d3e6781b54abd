"""What test_distributed.py runs on each of two ranks: python -m torch.distributed.run … two_ranks.py DIRECTORY."""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import vae_fast as vf
from helpers.calls import DENSITIES, SAMPLERS
from vae_fast.cli.errors import CommandError
from vae_fast.cli.ranks import Ranks

LATENT = 4
BACKENDS = [name for name, b in vf.backends().items() if name == "reference" or "cpu" in b.devices]


def check_close(ours, theirs):
    """Float32 sums of up to 100 terms in another order: to 1e-6 of the largest entry."""
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6 * theirs.abs().max().item())


def run_readme(path):
    """The README's script, in this process; its model is compared with one that saw whole batches."""
    script: dict = {"vf": vf}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), script)
    torch.manual_seed(0)
    vae = script["build"]()
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
    for step, x in enumerate(script["batches"]):
        optimizer.zero_grad()
        vae(x, seed=step).loss.backward()
        optimizer.step()
    for ours, theirs in zip(script["model"].parameters(), vae.parameters(), strict=True):
        check_close(ours, theirs)
        check_close(ours.grad, theirs.grad)


class Decoder(nn.Module):
    """A mean, and its own log σ² for each feature: FSDP would free that at the decoder's end, if it were a unit."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(LATENT, 9)
        self.logvar = nn.Parameter(torch.zeros(9))

    def forward(self, z):
        return self.mean(z), self.logvar


def by_ddp(vae, mesh):
    return DistributedDataParallel(vae)


def by_fsdp(*units):
    """FSDP2 of these submodules, "" being the whole."""

    def shard(vae, mesh):
        for name in units:
            fully_shard(vae.get_submodule(name), mesh=mesh)
        return vae

    return shard


def compare(build, parallel, rank, mesh):
    """Three steps on 5 and 6 data against three of one process on all 11, on every backend; activations plain."""
    x = torch.rand(11, 9, generator=torch.Generator().manual_seed(1))
    share = range(5) if rank == 0 else range(5, 11)
    for name in BACKENDS:
        with vf.use_backend(name):
            whole = build()
            ours = parallel(build(), mesh)
            optimizers = [torch.optim.SGD(vae.parameters(), lr=0.1) for vae in (whole, ours)]
            for step in range(3):
                outs = [whole(x, seed=step)]
                outs.append(ours(x[share.start : share.stop], seed=step, offset=share.start * LATENT))
                assert type(outs[1].z) is torch.Tensor
                check_close(outs[1].elbo, outs[0].elbo[share.start : share.stop])
                losses = [outs[0].loss, outs[1].loss * len(share) * 2 / len(x)]
                for optimizer, loss in zip(optimizers, losses, strict=True):
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            for p, q in zip(ours.parameters(), whole.parameters(), strict=True):
                check_close(p.full_tensor() if isinstance(p, DTensor) else p, q)
                check_close(p.grad.full_tensor() if isinstance(p, DTensor) else p.grad, q.grad)


def mlp():
    torch.manual_seed(0)
    return vf.VAE(vf.GaussianMLP(9, LATENT, 16), vf.BernoulliMLP(LATENT, 9, 16))


def with_own_logvar():
    torch.manual_seed(0)
    return vf.VAE(vf.GaussianMLP(9, LATENT, 16), Decoder())


def check_densities(mesh):
    """Split over the data, over the event, unevenly, or not at all: values and gradients of the whole tensors."""
    for call in DENSITIES:
        for shape in ((6, 5), (5, 4)):
            # Slopes of counts cancel, more than float32 leaves of the largest entry.
            tensors = call.draw(shape, torch.float64 if call.counted else torch.float32)
            for placement in (Shard(0), Shard(1), Replicate()):
                split = [distribute_tensor(t.detach().clone(), mesh, [placement]).requires_grad_() for t in tensors]
                for reduction in ("none", "sum", "mean"):
                    ours, theirs = (call(*ts, reduction=reduction)[0] for ts in (split, tensors))
                    check_close(ours.full_tensor(), theirs)
                    grads = [
                        torch.autograd.grad(o.sum(), call.wanted(ts))
                        for o, ts in ((ours, split), (theirs, tensors))
                    ]
                    for a, b in zip(*grads, strict=True):
                        check_close(a.full_tensor(), b)


def check_samples(mesh):
    for call in SAMPLERS:
        split = [distribute_tensor(t.detach(), mesh, [Shard(0)]) for t in call.draw((6, 5))]
        message = raised(TypeError, lambda call=call, split=split: call(*split))
        assert "to_local()" in message and "offset=" in message


def check_agreement(rank):
    ranks = Ranks(rank, 2)
    ranks.agree({"lr": 0.1}, "data")
    assert "do not see the same run" in raised(CommandError, lambda: ranks.agree({"lr": 0.1}, f"data of {rank}"))


def raised(kind, function):
    """The message of the error that the call must raise."""
    try:
        function()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def main():
    torch.set_num_threads(1)
    directory = Path(sys.argv[1])
    outcome = {}

    def check(name, function):
        try:
            function()
            outcome[name] = ""
        except Exception:
            outcome[name] = traceback.format_exc()

    check("the_readme_script", lambda: run_readme(directory / "readme.py"))
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    check("ddp", lambda: compare(mlp, by_ddp, rank, mesh))
    check("fully_shard", lambda: compare(mlp, by_fsdp("encoder", "decoder", ""), rank, mesh))
    check("fully_shard_of_a_parameter", lambda: compare(with_own_logvar, by_fsdp("encoder", ""), rank, mesh))
    torch.manual_seed(0)
    check("densities_of_dtensors", lambda: check_densities(mesh))
    check("samples_of_dtensors", lambda: check_samples(mesh))
    check("disagreeing_ranks", lambda: check_agreement(rank))
    (directory / f"{rank}.json").write_text(json.dumps(outcome), encoding="utf-8")
    # Together, and without the interpreter's own end: gloo's threads may abort where the other rank is gone.
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main()

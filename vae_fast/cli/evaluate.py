"""`evaluate`: judge a checkpoint on its test data, print a table, leave evaluation.json beside it."""

from __future__ import annotations

import argparse
import json
import math
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vae_fast as vf
from vae_fast.cli import checkpoint as ckpt
from vae_fast.cli import measures
from vae_fast.cli.atomic import write_atomic
from vae_fast.cli.data import is_file, read_data
from vae_fast.cli.errors import CommandError, require
from vae_fast.cli.measures import Mean
from vae_fast.cli.model import build_vae, check_backend, resolve_device
from vae_fast.cli.progress import progress
from vae_fast.cli.record import Record
from vae_fast.cli.targets import check_range, make_targets
from vae_fast.cli.tensors import unpack_model


def run(args: argparse.Namespace) -> int:
    """The `evaluate` command."""
    require("tqdm")
    path = Path(args.checkpoint)
    if os.path.isdir(path):
        path = path / ckpt.CHECKPOINT
    saved = ckpt.load_checkpoint(path)
    check_backend(args.backend)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device or "auto")
    config = saved.record.config
    vae = build_vae(config, saved.record.data.d)
    unpack_model(saved.tensors, vae)
    vae.to(device).eval()
    # What the tables say is the evidence lower bound and log p(x), whatever the run was trained on.
    vae.objective, vae.n_samples = "elbo", 1
    x, which, trained_on = _choose_data(args.data, saved.record)
    if args.limit is not None and args.limit < len(x):
        # Evenly spread, since data often come sorted by class.
        x = x[torch.arange(args.limit) * len(x) // args.limit]
    x = make_targets(x, config.binarize, args.seed, "evaluate").to(device)
    with vf.use_backend(args.backend) if args.backend else nullcontext():
        result = {
            "checkpoint": {"epoch": saved.record.epoch, "config": config.to_json()},
            "data": which,
            "n_data": len(x),
            "training_data": trained_on,
            "seed": args.seed,
        } | _measure(vae, x, args)
    _print_table(result, args)
    target = path.with_name("evaluation.json")
    write_atomic(target, (json.dumps(_finite_or_none(result), indent=1, allow_nan=False) + "\n").encode())
    print(f"in {target}")
    return 0


def _finite_or_none(content: Any) -> Any:
    """JSON knows no NaN, such as the standard error of one datum, and no infinity."""
    if isinstance(content, dict):
        return {name: _finite_or_none(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_finite_or_none(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _choose_data(spec: str | None, saved: Record) -> tuple[Tensor, str, bool]:
    """The data to judge by, what they are called, and whether the model was trained on them."""
    config = saved.config
    if spec is None and is_file(config.data):
        raise CommandError(
            f"the run was trained with --data {config.data}: add that, "
            "for no file is opened because a checkpoint names it"
        )
    spec = config.data if spec is None else spec
    source = read_data(spec)
    same = source.sha256 == saved.data.sha256
    if spec == config.data and not same:
        raise CommandError(f"{spec} has changed since the run was trained on it")
    data = source.split(config.test_size if same else 0)
    if data.d != saved.data.d:
        raise CommandError(f"{spec} has {data.d} numbers a datum, the model takes {saved.data.d}")
    x, which = (data.train, "all of") if data.test is None else (data.test, "test data of")
    if config.likelihood == "bernoulli":
        check_range(x, spec)
    if same and data.test is None:
        return x, f"TRAINING data of {spec}", True
    return x, f"{which} {spec}", False


def _measure(vae: vf.VAE, x: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    steps = 3 if args.gap_steps else 2
    with progress(f"1/{steps} ELBO", len(x) * args.elbo_samples) as bar:
        elbo, log_likelihood, kl = measures.elbo_terms(vae, x, args.elbo_samples, args.seed, tick=bar.update)
    mu, logvar = measures.posteriors(vae, x)
    active = vf.active_units(mu)
    result = {
        "elbo_samples": args.elbo_samples,
        "elbo": asdict(Mean.of(elbo)),
        "log_likelihood": asdict(Mean.of(log_likelihood)),
        "kl": asdict(Mean.of(kl)),
        "active_units": int(active.number),
        "posterior_mean_variance": active.variance.tolist(),
        "kl_per_dim": vf.kl_per_dim(mu, logvar).tolist(),
    }
    if args.gap_steps:
        with progress("2/3 amortisation gap", len(x) * (args.gap_steps + args.elbo_samples)) as bar:
            local = measures.local_elbo(vae, x, args.gap_steps, args.elbo_samples, args.seed, tick=bar.update)
        result |= {
            "gap_steps": args.gap_steps,
            "local_elbo": asdict(Mean.of(local)),
            "amortisation_gap": asdict(Mean.of(local - elbo)),
        }
    with progress(f"{steps}/{steps} log p(x)", len(x)) as bar:
        marginal = measures.log_marginals(vae, x, args.n_samples, args.seed, tick=bar.update)
    return result | {"n_samples": args.n_samples, "log_marginal": asdict(Mean.of(marginal))}


def _print_table(result: dict[str, Any], args: argparse.Namespace) -> None:
    if result["training_data"]:
        print("note: the run held no test data back: these figures are of its TRAINING data")
    print(f"{result['n_data']:,} data, {result['data']}, weights of epoch {result['checkpoint']['epoch']}")
    rows = [
        ("ELBO", result["elbo"], f"{args.elbo_samples} draws of z a datum"),
        ("  log p(x|z)", result["log_likelihood"], ""),
        ("  KL(q(z|x), p(z))", result["kl"], ""),
        ("log p(x)", result["log_marginal"], f"{args.n_samples:,} importance samples a datum"),
    ]
    if args.gap_steps:
        rows[3:3] = [
            (
                "ELBO, q per datum",
                result["local_elbo"],
                f"mu, log sigma^2 optimised, {args.gap_steps} Adam steps",
            ),
            ("  amortisation gap", result["amortisation_gap"], "what the encoder loses against that"),
        ]
    print(f"{'':20}{'nats':>10}  {'std. err.':>9}")
    for name, value, comment in rows:
        print(f"{name:20}{value['mean']:10.3f}  {value['stderr']:9.3f}  {comment}".rstrip())
    n = len(result["kl_per_dim"])
    print(f"{'active units':20}{result['active_units']:>6} of {n}  (variance of the posterior mean > 0.01)")
    print("KL per latent dim, largest first:")
    ordered = [f"{value:7.3f}" for value in sorted(result["kl_per_dim"], reverse=True)]
    for start in range(0, n, 10):
        print("  " + "".join(ordered[start : start + 10]))

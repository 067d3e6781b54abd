"""The options of the command line; a wrong one is an error of one line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from vae_fast.cli.config import ACTIVATIONS, BINARIZE, LIKELIHOODS, OPTIMIZERS
from vae_fast.cli.errors import CommandError


class Parser(argparse.ArgumentParser):
    """Raises CommandError instead of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    """`python -m vae_fast`: info, check, train, evaluate."""
    parser = Parser(
        prog="vae_fast",
        description="Train and judge variational auto-encoders built on vae_fast's fused operations.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | check | train | evaluate")
    _add_info(commands)
    _add_check(commands)
    _add_train(commands)
    _add_evaluate(commands)
    return parser


def _add_info(commands: argparse._SubParsersAction) -> None:
    text = "versions, devices, threads, and which backends work here, or why not"
    info = commands.add_parser("info", help=text, description=f"Print {text}.", allow_abbrev=False)
    info.add_argument("--json", action="store_true", help="as JSON")


def _add_check(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser(
        "check",
        help="values and gradients of every operator and backend against float64, on this machine",
        description="Check values and gradients of every operator on every backend available here against float64, "
        "and print their worst errors beside those of the usual PyTorch formulas. Exit status 1: something is "
        "wrong; the smallest failing case found is then printed, with the command line that runs it alone. "
        "The options that name something leave out all others.",
        allow_abbrev=False,
    )
    check.add_argument("--op", help="standard_normal, rsample, rsample_kl, gaussian_kl, ..")
    check.add_argument("--backend", help="auto, reference, native or triton (default all there are)")
    check.add_argument("--device", help="cpu, cuda, cuda:1, .. or auto (default all there are)")
    check.add_argument("--dtype", help="float32, float64, bfloat16 or float16")
    check.add_argument("--shape", metavar="AxBxC", help="of the operands; 'scalar' for no dims")
    check.add_argument("--layout", help="contiguous, transposed, packed, expanded, step, channels_last, ..")
    check.add_argument("--inputs", help="ordinary or extreme")
    check.add_argument("--options", help="plain, or words such as prior,weight,sum")
    check.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="of operands and noise (default 0)")
    check.add_argument("--json", action="store_true", help="as JSON")
    check.add_argument(
        "--thorough",
        action="store_true",
        help="also derivatives against differences, every float32 through the formulas of one argument, and random "
        "cases: hours",
    )
    check.add_argument(
        "--cases",
        type=_whole(0),
        default=1_000_000,
        metavar="N",
        help="random cases of --thorough (default 1000000)",
    )
    check.add_argument(
        "--every",
        type=_whole(0),
        default=1,
        metavar="N",
        help="take each Nth float32 in --thorough; 0: none (default 1)",
    )


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train a VAE; leaves checkpoint, metrics, summary and plots in --out",
        description="Train a VAE. A run killed at any moment goes on with --resume and ends with the same "
        "bits as one that was not (on the same device, threads, ranks and versions). Under torchrun each rank "
        "takes its share of every batch, and of its noise: one process's results, to summation order.",
        allow_abbrev=False,
    )
    data = train.add_argument_group("data")
    data.add_argument("--data", help="mnist5k, digits, idx:DIR or npz:FILE (default mnist5k)")
    data.add_argument(
        "--test-size",
        type=_whole(0),
        metavar="N",
        help="test data held out of sets without a test split; 0: train on all (default a fifth)",
    )
    data.add_argument(
        "--binarize",
        choices=BINARIZE,
        help="targets: as they are, x > 1/2, or Bernoulli(x) redrawn every epoch (default none)",
    )
    model = train.add_argument_group("model")
    model.add_argument("--likelihood", choices=LIKELIHOODS, help="p(x|z) (default bernoulli)")
    model.add_argument("--hidden", type=_widths, metavar="N,..", help="hidden layers of the encoder (default 500)")
    model.add_argument("--latent", type=_whole(1), metavar="N", help="latent dims (default 20)")
    model.add_argument("--activation", choices=ACTIVATIONS, help="of the hidden layers (default tanh)")
    optimiser = train.add_argument_group("optimisation")
    optimiser.add_argument("--optimizer", choices=OPTIMIZERS, help="(default adam)")
    optimiser.add_argument("--lr", type=_number(above=0), help="learning rate (default 1e-3)")
    optimiser.add_argument("--epochs", type=_whole(1), metavar="N", help="(default 30)")
    optimiser.add_argument("--batch-size", type=_whole(1), metavar="N", help="(default 100)")
    optimiser.add_argument("--beta", type=_number(least=0), help="weight of the KL term (default 1)")
    optimiser.add_argument(
        "--warmup",
        type=_whole(0),
        metavar="N",
        help="epochs over which beta rises linearly to --beta (default 0)",
    )
    optimiser.add_argument("--seed", type=_whole(0), metavar="N", help="decides everything random (default 0)")
    run = train.add_argument_group("run")
    run.add_argument("--out", required=True, metavar="DIR", help="where the run lives; made if missing")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, if one is there; options not given are those it was started with",
    )
    run.add_argument("--no-plots", dest="plots", action="store_false", help="leave no pictures")
    _add_where(run)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="test ELBO, log p(x), active units, KL per dim, and what amortisation costs",
        description="Judge a trained VAE on its test data; writes evaluation.json beside the checkpoint.",
        allow_abbrev=False,
    )
    evaluate.add_argument("checkpoint", help="a run's directory, or its checkpoint.json")
    evaluate.add_argument("--data", help="other data of the same shape (default those of the run)")
    evaluate.add_argument("--limit", type=_whole(1), metavar="N", help="use N data only, evenly spread")
    evaluate.add_argument(
        "--n-samples",
        type=_whole(1),
        default=5000,
        metavar="S",
        help="importance samples of log p(x) (default 5000)",
    )
    evaluate.add_argument(
        "--elbo-samples",
        type=_whole(1),
        default=100,
        metavar="S",
        help="draws a datum for the ELBOs (default 100)",
    )
    evaluate.add_argument(
        "--gap-steps",
        type=_whole(0),
        default=500,
        metavar="N",
        help="Adam steps for each datum's own mu and log sigma^2; 0: skip the amortisation gap (default 500)",
    )
    evaluate.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="of the noise (default 0)")
    _add_where(evaluate)


def _add_where(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, .. or auto (default auto: a GPU if there is one)")
    parser.add_argument("--backend", help="auto, reference, native or triton")
    parser.add_argument("--threads", type=_whole(1), metavar="N", help="CPU threads (default PyTorch's)")


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        # PyTorch's sizes and seeds are 64-bit; checkpoints number their epochs.
        if not least <= value < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return parse


def _number(above: float | None = None, least: float | None = None) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if (
            not math.isfinite(value)
            or (above is not None and value <= above)
            or (least is not None and value < least)
        ):
            bound = f"above {above:g}" if above is not None else f"of at least {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number {bound}")
        return value

    return parse


def _widths(text: str) -> tuple[int, ...]:
    """`500,250` → (500, 250); `none` → (), a linear model."""
    if text == "none":
        return ()
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if not all(0 < width < 2**31 for width in widths):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layer widths such as 500 or 500,250 (or none)")
    return widths

"""The options of the command line; a wrong one is an error of one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vae_fast.bounds import OBJECTIVES
from vae_fast.cli import config
from vae_fast.cli.domains import Whole
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
    check.add_argument("--options", help="plain, or words such as prior,weight,sum; an unknown one has them named")
    check.add_argument(
        "--seed", type=Whole(0).parse, default=0, metavar="N", help="of operands and noise (default 0)"
    )
    check.add_argument("--json", action="store_true", help="as JSON")
    check.add_argument(
        "--thorough",
        action="store_true",
        help="also derivatives against differences, every float32 through the formulas of one argument, and random "
        "cases: hours",
    )
    check.add_argument(
        "--cases",
        type=Whole(0).parse,
        default=1_000_000,
        metavar="N",
        help="random cases of --thorough (default 1000000)",
    )
    check.add_argument(
        "--every",
        type=Whole(0).parse,
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
    train.add_argument(
        "--config",
        metavar="FILE",
        help="TOML with options by their names (latent = 2): data, model, optimisation, device, backend, threads; "
        "the command line wins. A run leaves its own as config.toml",
    )
    data = train.add_argument_group("data")
    data.add_argument("--data", help="mnist5k, digits, idx:DIR or npz:FILE (default mnist5k)")
    data.add_argument(
        "--test-size",
        type=config.TEST_SIZE.parse,
        metavar="N",
        help="test data held out of sets without a test split; 0: train on all (default a fifth)",
    )
    data.add_argument(
        "--binarize",
        choices=config.BINARIZE,
        help="targets: as they are, x > 1/2, or Bernoulli(x) redrawn every epoch (default none)",
    )
    model = train.add_argument_group("model")
    model.add_argument("--likelihood", choices=config.LIKELIHOODS, help="p(x|z) (default bernoulli)")
    model.add_argument(
        "--hidden", type=config.HIDDEN.parse, metavar="N,..", help="hidden layers of the encoder (default 500)"
    )
    model.add_argument("--latent", type=config.LATENT.parse, metavar="N", help="latent dims (default 20)")
    model.add_argument("--activation", choices=config.ACTIVATIONS, help="of the hidden layers (default tanh)")
    model.add_argument(
        "--mean-activation",
        choices=config.MEAN_ACTIVATIONS,
        help="of a Gaussian p(x|z)'s mean; sigmoid for data in (0, 1) (default none)",
    )
    optimiser = train.add_argument_group("optimisation")
    optimiser.add_argument("--optimizer", choices=config.OPTIMIZERS, help="(default adam)")
    optimiser.add_argument("--lr", type=config.LR.parse, help="learning rate (default 1e-3)")
    optimiser.add_argument("--epochs", type=config.EPOCHS.parse, metavar="N", help="(default 30)")
    optimiser.add_argument("--batch-size", type=config.BATCH_SIZE.parse, metavar="N", help="(default 100)")
    optimiser.add_argument("--beta", type=config.BETA.parse, help="weight of the KL term (default 1)")
    optimiser.add_argument(
        "--warmup",
        type=config.WARMUP.parse,
        metavar="N",
        help="epochs over which beta rises linearly to --beta (default 0)",
    )
    optimiser.add_argument(
        "--objective", choices=OBJECTIVES, help="the bound, and the estimator of its gradient (default elbo)"
    )
    optimiser.add_argument(
        "--samples",
        type=config.SAMPLES.parse,
        metavar="K",
        help="samples of each datum; MxK of miwae: so many bounds of so many (default 1)",
    )
    optimiser.add_argument(
        "--seed", type=config.SEED.parse, metavar="N", help="decides everything random (default 0)"
    )
    run = train.add_argument_group("run")
    run.add_argument("--out", required=True, metavar="DIR", help="where the run lives; made if missing")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, if one is there; options not given are those it was started with, but "
        "files of --data are always said",
    )
    run.add_argument(
        "--tensorboard", action="store_true", help="leave each epoch's figures for TensorBoard in DIR/tensorboard"
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
    evaluate.add_argument(
        "--data", help="other data of the same shape (default those of the run; files are always said)"
    )
    evaluate.add_argument("--limit", type=Whole(1).parse, metavar="N", help="use N data only, evenly spread")
    evaluate.add_argument(
        "--n-samples",
        type=Whole(1).parse,
        default=5000,
        metavar="S",
        help="importance samples of log p(x) (default 5000)",
    )
    evaluate.add_argument(
        "--elbo-samples",
        type=Whole(1).parse,
        default=100,
        metavar="S",
        help="draws a datum for the ELBOs (default 100)",
    )
    evaluate.add_argument(
        "--gap-steps",
        type=Whole(0).parse,
        default=500,
        metavar="N",
        help="Adam steps for each datum's own mu and log sigma^2; 0: skip the amortisation gap (default 500)",
    )
    evaluate.add_argument("--seed", type=Whole(0).parse, default=0, metavar="N", help="of the noise (default 0)")
    _add_where(evaluate)


def _add_where(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, .. or auto (default auto: a GPU if there is one)")
    parser.add_argument("--backend", help="auto, reference, native or triton")
    parser.add_argument("--threads", type=config.THREADS.parse, metavar="N", help="CPU threads (default PyTorch's)")

"""What defines a training run bit for bit, its defaults, and what a resumed run may change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from vae_fast.bounds import OBJECTIVES
from vae_fast.cli.domains import Choice, Number, Samples, Text, Whole, Widths
from vae_fast.cli.errors import CommandError

LIKELIHOODS = ("bernoulli", "gaussian")
BINARIZE = ("none", "threshold", "dynamic")
OPTIMIZERS = ("adam", "adagrad")
ACTIVATIONS = ("tanh", "relu", "elu", "gelu", "silu", "softplus", "sigmoid", "leaky_relu")
MEAN_ACTIVATIONS = ("none", "sigmoid")

# Also what is computed of them is bounded: a checkpoint's JSON has a row an epoch.
LATENT, LR, EPOCHS, BATCH_SIZE = Whole(1, 2**31 - 1), Number(above=0), Whole(1, 10**6), Whole(1)
BETA, WARMUP, SEED, TEST_SIZE, HIDDEN = Number(least=0), Whole(0), Whole(0), Whole(0), Widths()
SAMPLES = Samples()
# OpenMP crashes where it is asked for a hundred thousand.
THREADS = Whole(1, 1024)


@dataclass(frozen=True)
class TrainConfig:
    """The options of `train` that the result depends on. With the device they fix every bit of it.

    test_size is as given on the command line: None is the default share.
    """

    data: str = "mnist5k"
    likelihood: str = "bernoulli"
    binarize: str = "none"
    hidden: tuple[int, ...] = (500,)
    latent: int = 20
    activation: str = "tanh"
    mean_activation: str = "none"
    optimizer: str = "adam"
    lr: float = 1e-3
    epochs: int = 30
    batch_size: int = 100
    beta: float = 1.0
    warmup: int = 0
    objective: str = "elbo"
    samples: int | tuple[int, int] = 1
    seed: int = 0
    test_size: int | None = None

    def __post_init__(self) -> None:
        if self.binarize != "none" and self.likelihood != "bernoulli":
            raise CommandError(f"--binarize {self.binarize} needs --likelihood bernoulli")
        if self.mean_activation != "none" and self.likelihood != "gaussian":
            raise CommandError(f"--mean-activation {self.mean_activation} needs --likelihood gaussian")
        if self.objective != "elbo" and (self.beta != 1 or self.warmup):
            raise CommandError(f"--objective {self.objective} has no --beta or --warmup: it is a bound of its own")
        if isinstance(self.samples, tuple) != (self.objective == "miwae"):
            wanted = "a pair such as 5x10" if self.objective == "miwae" else "one number"
            raise CommandError(f"--objective {self.objective} takes {wanted} for --samples")

    def beta_of(self, epoch: int) -> float:
        """β in an epoch (the first is 1): rises linearly, to reach its value in epoch `warmup`."""
        return self.beta * min(1.0, epoch / self.warmup) if self.warmup else self.beta

    def to_json(self) -> dict[str, Any]:
        samples = list(self.samples) if isinstance(self.samples, tuple) else self.samples
        return asdict(self) | {"hidden": list(self.hidden), "samples": samples}


OPTIONS = tuple(field.name for field in fields(TrainConfig))
DOMAINS: dict[str, Choice | Number | Samples | Text | Whole | Widths] = {
    "data": Text(5000),
    "likelihood": Choice(LIKELIHOODS),
    "binarize": Choice(BINARIZE),
    "hidden": HIDDEN,
    "latent": LATENT,
    "activation": Choice(ACTIVATIONS),
    "mean_activation": Choice(MEAN_ACTIVATIONS),
    "optimizer": Choice(OPTIMIZERS),
    "lr": LR,
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "beta": BETA,
    "warmup": WARMUP,
    "objective": Choice(OBJECTIVES),
    "samples": SAMPLES,
    "seed": SEED,
    "test_size": TEST_SIZE,
}


# What checkpoints from before an option lack, and how they were trained.
_ADDED = {"mean_activation": "none", "objective": "elbo", "samples": 1}


def config_from_json(content: Any) -> TrainConfig:
    """The config a checkpoint holds. ValueError if it is not one."""
    if isinstance(content, dict):
        content = _ADDED | content
    if not isinstance(content, dict) or set(content) != set(OPTIONS):
        raise ValueError("its config does not have the options of this version of vae_fast")
    options: dict[str, Any] = {}
    for name, domain in DOMAINS.items():
        try:
            absent = name == "test_size" and content[name] is None
            options[name] = None if absent else domain.check(content[name])
        except ValueError as error:
            raise ValueError(f"its config has a {name} that cannot be: {error}") from error
    try:
        return TrainConfig(**options)
    except CommandError as error:
        raise ValueError(f"its config cannot be: {error}") from error


def resumed_config(saved: TrainConfig, given: dict[str, Any], epoch: int, where: str) -> TrainConfig:
    """The config a run goes on with: the saved one, with more epochs if the command line says so.

    given: the options that stand on the command line. Raises CommandError where they contradict the run.
    """
    for name, value in given.items():
        before = getattr(saved, name)
        if name != "epochs" and value != before:
            raise CommandError(f"--resume: the run in {where} has {_flag(name, before)}, not {_flag(name, value)}")
    epochs = given.get("epochs", saved.epochs)
    if epochs < epoch:
        raise CommandError(f"--resume: the run in {where} is at epoch {epoch} already, beyond --epochs {epochs}")
    return TrainConfig(**(asdict(saved) | {"epochs": epochs}))


def _flag(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        value = ("x" if name == "samples" else ",").join(map(str, value)) or "none"
    return f"--{name.replace('_', '-')} {'default' if value is None else value}"

"""What a training run tells: metrics.csv, summary.json, and the lines on the screen."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, fields

from vae_fast.cli.config import TrainConfig
from vae_fast.cli.data import Data

History = list[list[float | None]]


@dataclass(frozen=True)
class EpochMetrics:
    """One row of metrics.csv: means per datum in nats. elbo is with β = 1 whatever β the loss has.

    The training figures are running means over the epoch, while the weights change; the test figures are
    those of the weights at its end, with the same noise every epoch, and None without test data.
    """

    epoch: int
    beta: float
    elbo: float
    log_likelihood: float
    kl: float
    test_elbo: float | None = None
    test_log_likelihood: float | None = None
    test_kl: float | None = None


COLUMNS = tuple(field.name for field in fields(EpochMetrics))


def metrics_csv(history: History) -> bytes:
    """The whole of metrics.csv; numbers in the shortest form that reads back to the same float."""
    rows = [["" if value is None else repr(value) for value in row] for row in history]
    return "".join(",".join(row) + "\n" for row in [list(COLUMNS), *rows]).encode()


def history_row(metrics: EpochMetrics) -> list[float | None]:
    return list(astuple(metrics))


def bound_name(objective: str) -> str:
    """What the numbers are called that a run is after."""
    return "ELBO" if objective in ("elbo", "stl") else "IWAE bound"


def epoch_line(metrics: EpochMetrics, config: TrainConfig) -> str:
    """One epoch on the screen."""
    bound, epochs = bound_name(config.objective), config.epochs
    line = (
        f"epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}  train {bound} {metrics.elbo:9.3f}"
        f"  (log p(x|z) {metrics.log_likelihood:9.3f}, KL {metrics.kl:7.3f})"
    )
    if metrics.test_elbo is not None:
        line += f"  test {bound} {metrics.test_elbo:9.3f}"
    return line if metrics.beta == 1 else f"{line}  β {metrics.beta:g}"


def run_lines(config: TrainConfig, data: Data, device: str, n_parameters: int) -> list[str]:
    """What is about to be trained on what."""
    shape = "x".join(map(str, data.event_shape))
    held_out = "no test data" if data.test is None else f"{len(data.test):,} test"
    target = {
        "none": "as they are",
        "threshold": "x > 1/2",
        "dynamic": "redrawn from Bernoulli(x) every epoch",
    }
    mean = "" if config.mean_activation == "none" else f" with {config.mean_activation} mean"
    plain = (config.objective, config.samples) == ("elbo", 1)
    samples = "x".join(map(str, config.samples)) if isinstance(config.samples, tuple) else config.samples
    layers = [data.d, *config.hidden, config.latent, *config.hidden[::-1], data.d]
    return [
        f"data   {data.spec}: {len(data.train):,} training data of {shape}, {held_out}; "
        f"targets {target[config.binarize]}",
        f"model  {'-'.join(map(str, layers))}, {config.activation}, {config.likelihood} likelihood{mean}, "
        f"{n_parameters:,} parameters, on {device}",
        *([] if plain else [f"bound  {config.objective}, {samples} samples of each datum"]),
    ]


def summary(config: TrainConfig, data: Data, history: History, n_parameters: int) -> dict:
    """What summary.json holds. No wall times: the same run gives the same bytes."""
    rows = [EpochMetrics(*row) for row in history]  # type: ignore[arg-type]
    tested = [row for row in rows if row.test_elbo is not None]
    best = max(tested, key=lambda row: row.test_elbo or 0.0) if tested else None
    return {
        "train_elbo": rows[-1].elbo if rows else None,
        "last_epoch": asdict(rows[-1]) if rows else None,
        "best_test_epoch": asdict(best) if best else None,
        "n_train": len(data.train),
        "n_test": 0 if data.test is None else len(data.test),
        "event_shape": list(data.event_shape),
        "n_parameters": n_parameters,
        "config": config.to_json(),
    }


def summary_json(content: dict) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def closing_lines(content: dict, out: str, files: list[str]) -> list[str]:
    """The last lines on the screen."""
    last, best = content["last_epoch"], content["best_test_epoch"]
    bound = bound_name(content["config"]["objective"])
    lines = []
    if last is not None:
        lines.append(
            f"train {bound}  {last['elbo']:.3f} nats  (running mean of epoch {last['epoch']}: "
            f"log p(x|z) {last['log_likelihood']:.3f}, KL {last['kl']:.3f})"
        )
        if best is not None:
            lines.append(
                f"test {bound}   {last['test_elbo']:.3f} nats  "
                f"(best {best['test_elbo']:.3f} in epoch {best['epoch']})"
            )
    return [*lines, f"in {out}: {', '.join(files)}"]

"""The pictures of docs/figures: what makes them, what they show, and the numbers that pages have of them."""

import importlib
import re
import sys

import pytest
import torch

import vae_fast as vf
from helpers import pages

if not (pages.ROOT / "tools").is_dir() or not (pages.ROOT / "benchmarks").is_dir():
    pytest.skip("needs the source tree: tools or benchmarks is missing", allow_module_level=True)
sys.path.insert(0, str(pages.ROOT))

from tools.figures import drawing, posteriors, speed

FIGURES = importlib.import_module("tools.figures.__main__").FIGURES
FOLDER = pages.ROOT / "docs" / "figures"


def texts(path):
    """All that is written in a picture."""
    return re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(encoding="utf-8"), re.S)


def test_every_picture_has_a_page_and_what_makes_it():
    shown = {name for page in pages.PAGES for name in re.findall(r"\(figures/(\w+)\.svg\)", pages.text(page))}
    assert shown == set(FIGURES) == {path.stem for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", FIGURES)
def test_is_made(name, tmp_path):
    """What is written in it, axes and bars included, is what the committed one has; and it is small."""
    with drawing.look():
        FIGURES[name](tmp_path / f"{name}.svg")
    committed = FOLDER / f"{name}.svg"
    assert texts(tmp_path / f"{name}.svg") == texts(committed)
    assert committed.stat().st_size < 60_000


def test_bars_are_of_the_committed_results():
    """Ratios of medians that the page's tables have."""
    row = re.search(r"\| bernoulli_log_prob \| 4096×3072 \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", benchmarks())
    eager, compiled, ours = (float(cell.replace(",", "")) for cell in row.groups())
    cases = speed.figure_of(
        speed.CPU, "median_us", ("4096x128", "4096x128", "4096x3072", "4096x3072"), ("compile", "native")
    )
    assert dict(cases)["bernoulli_log_prob\n4096×3072"] == pytest.approx([eager / compiled, eager / ours], rel=1e-3)
    row = re.search(r"\| rsample_kl, forward \| 100×20 \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \| ", benchmarks())
    gains = dict(speed.small_calls())["rsample_kl 100x20 forward"]
    assert gains[0] == float(row[1]) / float(row[2])
    assert len(speed.small_calls()) == 8 and len(speed.of_pairs()) == 5 and len(speed.of_scvi()) == 6


def benchmarks():
    return pages.text(pages.page("benchmarks"))


def test_the_figures_of_one_digit():
    found, said = posteriors.numbers()
    text = " ".join(pages.text(pages.page("variational_parameters")).split())
    nats = {name: f"{value:.2f}".replace("-", "−") for name, value in said.items()}
    assert "is {log p(x)} nats, the ELBO at the best Gaussian {local}, and".format(**nats) in text
    assert "at the encoder's {amortised}. The first difference, {approximation gap} nats".format(**nats) in text
    assert "second, {amortisation gap} nats".format(**nats) in text
    assert "over the twelve digits it is {mean amortisation gap} on average".format(**nats) in text
    assert (found.elbo_local > found.elbo_amortised).all()


def test_quadrature_is_the_expectation():
    """The bound of a picture, against that of many samples: six of their standard errors."""
    vae, x = posteriors.trained()[-1], posteriors.digits()[:3]
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        z = vf.rsample(mu, logvar, (20_000,), seed=1)
        log_likelihood = vae.decoder.log_likelihood(z, x)
        got = posteriors.elbo(vae, x, mu, logvar)
        want = log_likelihood.mean(0) - vf.gaussian_kl(mu, logvar)
    error = log_likelihood.std(0) / len(z) ** 0.5
    assert ((got - want).abs() < 6 * error).all()

"""The README and the site: every block of Python that needs no library runs, and figures are what happens."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vae_fast as vf
from helpers import pages
from vae_fast.cli.config_file import read_config
from vae_fast.cli.main import main
from vae_fast.cli.parser import build_parser

BENCHMARKS = pages.page("benchmarks")
# Those with code that needs nothing but what is here.
RUN = [page for page in pages.PAGES if any(not pages.elsewhere(block) for block in pages.blocks(page))]


@pytest.mark.parametrize("page", RUN, ids=pages.name)
def test_python_blocks_run(page):
    """Each page by itself, in order; tests/integrations and test_distributed.py run what is not run here."""
    namespace: dict = {}
    for block in pages.blocks(page):
        if not pages.elsewhere(block):
            exec(compile(block, str(page), "exec"), namespace)


def test_the_pages_that_run():
    assert len(RUN) == 20 and pages.README in RUN


def the_block_with(text):
    """What the README's block that holds a text leaves."""
    (block,) = (block for page in pages.PAGES for block in pages.blocks(page) if text in block)
    leaves = {name: torch.randn(100, 20, requires_grad=True) for name in ("mu", "logvar", "prior_mu")}
    namespace = {"torch": torch, "vf": vf, **leaves}
    exec(compile(block, "a page", "exec"), namespace)
    return namespace


def test_kl_balancing():
    """The divergence itself; the prior's gradient times alpha, the posterior's times the rest."""
    names = the_block_with("alpha * kl_of_prior")
    kl = vf.gaussian_kl(names["mu"], names["logvar"], names["prior_mu"], names["prior_logvar"])
    torch.testing.assert_close(names["kl"], kl)
    for operand, share in (("mu", 0.2), ("logvar", 0.2), ("prior_mu", 0.8)):
        got, whole = (torch.autograd.grad(k.sum(), names[operand], retain_graph=True)[0] for k in (names["kl"], kl))
        torch.testing.assert_close(got, share * whole)


def test_the_clamped_variance():
    names = the_block_with('bounds_grad="pass"')
    loss = torch.nn.GaussianNLLLoss(full=True, eps=1e-6)(names["mean"], names["y"], names["var"])
    torch.testing.assert_close(names["loss"], loss)


def test_commands_are_those_of_the_command_line(tmp_path):
    """All can be parsed; those that train run, for one epoch, on data of our own."""
    blocks = [block for page in pages.PAGES for block in pages.blocks(page, "sh")]
    prefix = ["python", "-m", "vae_fast"]
    commands = [
        shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", "").splitlines()
    ]
    commands = [command[3:] for command in commands if command[:3] == prefix]
    assert len(commands) >= 8
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((20, 6)))
    here = ["--data", f"npz:{tmp_path / 'data.npz'}", "--epochs", "1", "--threads", "1", "--no-plots"]
    threads = torch.get_num_threads()
    for i, command in enumerate(commands):
        build_parser().parse_args(command)
        if command[0] == "train":
            assert main([*command, *here, "--out", str(tmp_path / str(i))]) == 0
    torch.set_num_threads(threads)


def test_files_of_options_are_those_of_train(tmp_path):
    (block,) = (block for page in pages.PAGES for block in pages.blocks(page, "toml"))
    (tmp_path / "config.toml").write_text(block)
    assert read_config(tmp_path / "config.toml")["hidden"] == (500, 250)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_linked_files_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", pages.text(page)):
        assert (page.parent / target).is_file(), target


def test_the_readme_is_short():
    assert len(pages.text(pages.README).splitlines()) <= 200


def test_the_table_of_tails():
    text = pages.text(pages.README)
    logits = torch.tensor([-15.0, 17.0], requires_grad=True)
    targets = torch.tensor([0.0, 1.0])
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    losses.sum().backward()
    assert losses[0] == 0 and logits.grad[1] == 0
    logits.grad = None
    log_p = vf.bernoulli_log_prob(logits, targets, event_ndim=0)
    log_p.sum().backward()
    assert f"| {-log_p[0].item():.2e} |".replace("e-07", "e-7") in text
    assert f"| −{logits.grad[1].item():.1e} |".replace("e-08", "e-8") in text
    logvar = torch.tensor([1e-3])
    common = -0.5 * (1 + logvar - logvar.exp())
    truth = 0.5 * (torch.expm1(logvar.double()) - logvar.double())
    assert f"{100 * abs(common.item() / truth.item() - 1):.1f} % off" in text


def results(text, which):
    """Of the results that the README links, in order, the CPU's and the GPU's: medians by row, and conditions."""
    names = re.findall(r"\]\((\.\./benchmarks/results/[^)]+/results)\.csv\)", text)
    assert len(names) == 2
    path = BENCHMARKS.parent / names[which]
    with open(f"{path}.csv", newline="", encoding="utf-8") as file:
        medians = {(r["group"], r["provider"]): float(r["median_us"]) for r in csv.DictReader(file)}
    return medians, json.loads(path.with_name("conditions.json").read_text(encoding="utf-8"))


def test_speed_figures_are_a_committed_results_files():
    """Every row of the README's table of times, against the results file it names."""
    text = pages.text(BENCHMARKS)
    medians, content = results(text, 0)
    rows = re.findall(r"^\| ([a-z_]+) \| (\d+)×(\d+) \| ([\d ,.]+) \| ([\d ,.]+) \| ([\d ,.]+) \|$", text, re.M)
    assert len(rows) == 12
    for op, n, m, *figures in rows:
        group = f"{op} {n}x{m} float32 both"
        assert figures == [f"{medians[group, p]:,.0f}" for p in ("eager", "compile", "native")], group
    conditions = content["conditions"]
    assert f"`{content['command']}`, {conditions['date'][:10]}, {conditions['device']}" in text
    assert f"torch {conditions['versions']['torch'].partition('+')[0]}, {conditions['threads']} threads" in text
    gains = re.findall(r"^\| ([^|]+) \| ([\d.]+) % \| (-?[\d.]+) % \|$", text, re.M)
    assert len(gains) == 4
    for model, share, saved in gains:
        step, ours = (medians[f"training step of {model}", p] for p in ("eager", "native"))
        assert share == f"{100 * medians[f'bound of {model}', 'eager'] / step:.1f}"
        assert saved == f"{100 * (1 - ours / step):.1f}"


def test_the_readme_s_table_of_what_it_pays_for():
    text, (medians, _) = pages.text(pages.README), results(pages.text(BENCHMARKS), 0)
    rows = re.findall(r"^\| `(\w+)` (\d+)×(\d+), µs \| ([\d,]+) \| ([\d,]+) \|$", text, re.M)
    assert len(rows) == 4
    for op, n, m, *figures in rows:
        assert figures == [f"{medians[f'{op} {n}x{m} float32 both', p]:,.0f}" for p in ("eager", "native")], op
    folder = pages.ROOT / "benchmarks" / "results"
    counts = pages.text(folder / "amd-epyc-avx512-2-threads/scvi.txt")
    published, ours = re.search(r"^ *8,000 +zinb.*$", counts, re.M).group().split()[3:5]
    assert f"zero-inflated, two threads, ms | {float(published):.0f} | {float(ours):.0f} |" in text
    page = pages.text(pages.page("in_your_code/scvi"))
    for genes, likelihood, *ms_and_mib in re.findall(
        r"^\| ([\d,]+) genes, (\w+) \|" + r" ([\d.]+) \|" * 4, page, re.M
    ):
        row = re.search(rf"^ *{genes} +{likelihood} .*$", counts, re.M).group().split()
        assert ms_and_mib == [*row[3:5], *row[6:8]]
    for likelihood, *ms in re.findall(r"^\| log-likelihood alone, (\w+) \|" + r" ([\d.]+) \|" * 3, page, re.M):
        assert ms == re.search(rf"^ *{likelihood} +[\d. ]+$", counts, re.M).group().split()[1:4]
    many = pages.text(folder / "amd-epyc-avx512-2-threads/iwae.txt")
    rows = {name: re.search(rf"^ *{name} +(.+)$", many, re.M).group(1).split() for name in ("eager", "iwae")}
    assert f"the bound of 50 samples, 784-500-20, ms | {rows['eager'][0]} | {rows['iwae'][0]} |" in text
    assert f"and its peak memory, MiB | {rows['eager'][2]} | {rows['iwae'][2]} |" in text
    said = f"took {rows['iwae'][1]} times less time than the usual formulas and {rows['iwae'][3]} of their memory"
    assert said in " ".join(pages.text(pages.page("models")).split())
    paired = pages.text(folder / "amd-epyc-avx512-2-threads/calls.txt")
    saved = [re.search(rf"^ *{way} +\d+ +-([\d.]+)", paired, re.M) for way in ("vae_fast", "no loss terms")]
    ours, all_ = (f"{float(found.group(1)):.1f}" for found in saved)
    assert f"{ours} % less time of the {all_} % that no loss at all" in " ".join(text.split())


def test_what_pairs_take():
    held = pages.text(pages.ROOT / "benchmarks/results/amd-epyc-avx512-2-threads/pairs.txt")
    rows = []
    for block in held.strip().split("\n\n"):
        what, _, *ways = block.splitlines()
        found = {words[0]: words for words in map(str.split, ways) if words}
        if "vae_fast" in found:
            times = [found[way][1] for way in ("eager", "torch.compile", "vae_fast")]
            rows.append(f"| {what} | {' | '.join((*times, found['eager'][3], found['vae_fast'][3]))} |")
    text = pages.text(pages.page("pairs"))
    assert len(rows) == 5 and "\n".join(rows) in text


def test_what_more_samples_do():
    held = pages.text(pages.ROOT / "benchmarks/results/amd-epyc-avx512-2-threads/mnist5k.txt")
    rows = re.findall(r"^(?:elbo|iwae) +\d+ +(-[\d.]+) +(-[\d.]+) ", held, re.M)
    text = pages.text(pages.page("models"))
    assert re.findall(r"^\| the .* \| (-[\d.]+) \| (-[\d.]+) \|$", text, re.M) == [(p, elbo) for elbo, p in rows]
    assert len(rows) == 3 and sorted(rows, key=lambda row: float(row[1])) == rows


def test_the_figures_of_a_gpu_too():
    text = pages.text(BENCHMARKS)
    medians, content = results(text, 1)
    rows = re.findall(r"^\| ([a-z_]+) \| (\d+)×(\d+)" + r" \| ([\d.]+)" * 4 + r" \|$", text, re.M)
    assert len(rows) == 8
    providers = ("eager", "compile", "native", "triton")
    for op, n, m, *figures in rows:
        assert figures == [f"{medians[f'{op} {n}x{m} float32 both graph', p]:.1f}" for p in providers]
    called = {p: medians["bernoulli_log_prob 4096x3072 float32 both", p] for p in providers}
    sentence = "takes {native:.0f} µs with native, {eager:.0f} eager, {compile:.0f} compiled and {triton:.0f} with"
    assert sentence.format(**called) in text.replace("\n", " ")
    conditions = content["conditions"]
    versions = conditions["versions"]
    device = conditions["device"].partition(",")[0]
    assert f"`{content['command']}`, {conditions['date'][:10]}, {device}" in text
    assert f"torch {versions['torch'].partition('+')[0]}, triton {versions['triton']}" in text


def test_call_figures_are_a_committed_results_files():
    """The table of small calls: eager, in Python and vae_fast in a loop, eager and vae_fast in a step."""
    text = pages.text(BENCHMARKS)
    (name,) = set(re.findall(r"\]\((\.\./benchmarks/results/[^)]+1-threads/calls\.txt)\)", text))
    blocks = {}
    for line in (BENCHMARKS.parent / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("    ") and blocks:
            numbers = re.findall(r"\d+\.\d+", line)
            blocks[list(blocks)[-1]].append((numbers[0], numbers[3]) if len(numbers) == 6 else None)
        else:
            blocks[line] = []
    rows = re.findall(
        r"^\| (\w+)(.*) \| (\d+)×(\d+) \| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE
    )
    assert len(rows) >= 6
    for op, direction, rows_, columns, *found in rows:
        way = direction.removeprefix(", ") if direction.startswith(", ") else "forward"
        eager, in_python, ours = blocks[f"{op} {rows_}x{columns} {way}"]
        assert found == [eager[0], in_python[0], ours[0], eager[1], ours[1]], op

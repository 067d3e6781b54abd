"""Threads and processes: how many there are, and which one calls, never changes a bit."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import vae_fast as vf
from helpers.calls import BERNOULLI, CALLS, bits, same_bits
from helpers.marks import each_backend, each_call, each_density, each_sampler

pytestmark = each_backend

# PyTorch splits a loop over threads from 32768 elements on: well above it, and not a multiple of anything.
LARGE = (131, 307)


@pytest.fixture
def threads():
    """torch.set_num_threads, undone afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class TestNumThreads:
    """The same inputs give the same bits for any thread count."""

    def test_noise(self, threads):
        drawn = []
        for n in (1, 2, 8):
            threads(n)
            drawn.append((vf.standard_normal(LARGE, seed=3), vf.standard_normal((7,), seed=3, offset=2**40)))
        assert all(same_bits(d, drawn[0]) for d in drawn)

    @each_sampler
    def test_samples(self, call, threads):
        mu, logvar = call.draw(LARGE)
        found = []
        for n in (1, 2, 8):
            threads(n)
            found.append(call.with_grads(mu, logvar, sample_shape=(2,)))
        assert all(same_bits(f, found[0]) for f in found)

    @each_density
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    def test_densities(self, call, reduction, threads):
        tensors = call.draw(LARGE)
        found = []
        for n in (1, 2, 8):
            threads(n)
            found.append(call.with_grads(*tensors, reduction=reduction))
        assert all(same_bits(f, found[0]) for f in found)

    @each_density
    def test_one_large_datum(self, call, threads):
        tensors = call.draw(LARGE)
        found = []
        for n in (1, 2, 3):
            threads(n)
            found.append(call.with_grads(*tensors, event_ndim=2))
        assert all(same_bits(f, found[0]) for f in found)

    @each_density
    def test_gradients_summed_over_data(self, call, threads):
        """Of an operand per feature, per datum, and 0-d: sums over what it was broadcast to."""
        for shape in ((LARGE[1],), (LARGE[0], 1), ()):
            tensors = call.draw(LARGE)
            tensors[0] = call.draw(shape)[0]
            found = []
            for n in (1, 2, 3):
                threads(n)
                found.append(call.with_grads(*tensors))
            assert all(same_bits(f, found[0]) for f in found), f"operand of shape {shape}"

    @each_call
    def test_run_to_run(self, call):
        tensors = call.draw(LARGE)
        first = call.with_grads(*tensors)
        assert all(same_bits(call.with_grads(*tensors), first) for _ in range(3))


class TestManyAtOnce:
    def test_same_bits_as_one_thread(self):
        """Every operator, forward and backward, on eight threads at once, small and large."""
        work = [(call, call.draw(shape)) for call in CALLS for shape in ((5, 7), LARGE)]
        expected = [call.with_grads(*tensors) for call, tensors in work]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(4):
                found = list(pool.map(lambda job: job[0].with_grads(*job[1]), work))
                assert all(same_bits(f, e) for f, e in zip(found, expected, strict=True))

    @each_call
    def test_backward_on_another_thread(self, call):
        tensors = call.draw((5, 7))
        wanted = call.wanted(tensors)
        expected = call.with_grads(*tensors)[-len(wanted) :]
        outs = call(*tensors)
        ones = [torch.ones_like(o) for o in outs]
        with ThreadPoolExecutor(1) as pool:
            grads = pool.submit(torch.autograd.grad, outs, wanted, ones).result()
        assert same_bits(grads, expected)

    @each_sampler
    def test_seeds_drawn_at_once_are_distinct(self, call):
        mu = torch.zeros(3, 4)
        with ThreadPoolExecutor(8) as pool:
            draws = list(pool.map(lambda _: call(mu, mu, seed=None)[0], range(100)))
        assert len({bits(z).cpu().numpy().tobytes() for z in draws}) == 100


# In an interpreter of its own: a child also inherits the locks of whatever other threads the test run has started.
FORK = """
import multiprocessing, sys
import torch
from helpers.calls import BERNOULLI, CALLS

def results(work, num_threads, pipe):
    if num_threads:
        torch.set_num_threads(num_threads)
    pipe.send([[v.numpy() for v in call.with_grads(*tensors)] for call, tensors in work])
    pipe.close()

if __name__ == "__main__":
    *shape, num_threads = map(int, sys.argv[1:])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    BERNOULLI.with_grads(*BERNOULLI.draw((131, 307)))
    work = [(call, call.draw(tuple(shape))) for call in CALLS]
    expected = [call.with_grads(*tensors) for call, tensors in work]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=results, args=(work, num_threads, sender), daemon=True)
    child.start()
    sender.close()
    if not receiver.poll(60):
        child.kill()
        sys.exit("the child hangs")
    for f, e in zip(receiver.recv(), expected, strict=True):
        torch.testing.assert_close([torch.from_numpy(v) for v in f], list(e), rtol=1e-6, atol=1e-5)
    child.join(10)
"""


FORK_PIXELS = """
import os, signal
import torch
import vae_fast as vf
from helpers.calls import BERNOULLI

def graded():
    torch.manual_seed(0)
    operands = torch.randn(2, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4).requires_grad_(), torch.zeros(2, 3)
    vf.logistic_mixture_log_prob(*operands).sum().backward()

torch.set_num_threads(2)
BERNOULLI.with_grads(*BERNOULLI.draw((131, 307)))
graded()
child = os.fork()
if child == 0:
    signal.alarm(30)
    graded()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
"""


class ElboDataset(torch.utils.data.Dataset):
    """Data whose items are computed with the operators, in the loader's forked workers."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        z = vf.rsample(self.x[i], 0.0, seed=i)
        return vf.bernoulli_log_prob(z, self.x[i])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestFork:
    """A child forked after the parent has run operators, on PyTorch's threads too."""

    @pytest.fixture(autouse=True)
    def on_the_cpu(self, backend):
        if torch.get_default_device().type != "cpu":
            pytest.skip("CUDA does not survive a fork")
        BERNOULLI.with_grads(*BERNOULLI.draw(LARGE))

    @pytest.mark.parametrize(("shape", "num_threads"), [((5, 7), 0), (LARGE, 1)])
    def test_child(self, shape, num_threads, backend):
        """Large inputs with one thread, as DataLoader's workers have: PyTorch's own pool is not inherited."""
        self.run(backend, FORK, *map(str, (*shape, num_threads)))

    def test_child_with_pixels(self, backend):
        """Of PyTorch's functions some wait for its threads whatever the size: softmax, logsigmoid."""
        self.run(backend, FORK_PIXELS)

    def run(self, backend, code, *arguments):
        tests = Path(__file__).parents[1]
        environment = os.environ | {
            "VAE_FAST_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        }
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def test_data_loader(self):
        x = torch.rand(6, 50)
        data = ElboDataset(x)
        loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")
        loaded = torch.cat(list(loader))
        assert same_bits([loaded], [torch.stack([data[i] for i in range(6)])])

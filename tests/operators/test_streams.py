"""``stream``: 2³² streams of noise of one seed, which have no normal in common."""

import pytest
import torch

import vae_fast as vf
from helpers.calls import same_bits
from helpers.marks import each_backend, each_sampler
from vae_fast import noise
from vae_fast.distributions import DiagonalNormal

pytestmark = each_backend

WORDS = 2**32
STREAMS = (0, 1, 3, 2**31 - 1, 2**31, WORDS - 1)


def defined(shape, stream, sample, offset=0, seed=5):
    """By the counter word that noise.py has for a sample: stream·2³² + sample."""
    word = (stream * WORDS + sample + 2**63) % 2**64 - 2**63
    return noise.normals((), shape, seed, None, offset, word, torch.empty(0).device)


@each_sampler
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("first", [0, 2, WORDS - 3])
@pytest.mark.parametrize("offset", [0, 6])
def test_counter_words(call, stream, first, offset):
    mu = torch.zeros(7, 3)
    place = {"seed": 5, "stream": stream, "first_sample": first, "offset": offset}
    z, *_ = call(mu, 0.0, 3, **place)
    want = [defined(mu.shape, stream, first + k, offset) for k in range(3)]
    assert same_bits([z], [torch.stack(want)])
    tensor, *_ = call(mu, 0.0, 3, **place | {"seed": torch.tensor([5])})
    assert same_bits([tensor], [z])


@pytest.mark.parametrize("stream", STREAMS)
def test_by_itself(stream):
    for sample in (0, 9, WORDS - 1):
        place = {"stream": stream, "sample": sample, "offset": 2}
        got = [vf.standard_normal((9,), seed=seed, **place) for seed in (5, torch.tensor(5))]
        assert same_bits(got, [defined((9,), stream, sample, 2)] * 2)


@each_sampler
def test_the_first_is_what_there_was(call):
    tensors = call.draw((4, 3))
    place = {"offset": 3, "first_sample": 2, "sample_shape": (2,)}
    assert same_bits(call.with_grads(*tensors, **place, stream=0), call.with_grads(*tensors, **place))


@each_sampler
def test_the_backward_pass_draws_the_same(call):
    mu, logvar = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    z, *_ = call(mu, logvar, 2, stream=WORDS - 1, first_sample=WORDS - 2)
    (dlogvar,) = torch.autograd.grad(z.sum(), logvar)
    torch.testing.assert_close(dlogvar, 0.5 * z.detach().sum(0))


@each_sampler
def test_they_never_meet(call):
    """A stream's last samples and the next one's first are different noise, and no two correlate."""
    mu = torch.zeros(4000)
    places = [(s, f) for s in (0, 1, 2**31, WORDS - 1) for f in (0, WORDS - 1)]
    drawn = torch.stack([call(mu, 0.0, stream=s, first_sample=f)[0] for s, f in places])
    # 6 standard errors of the correlation of 4000 pairs.
    off = torch.corrcoef(drawn) - torch.eye(len(places))
    assert bool((off.abs() < 6 / 4000**0.5).all())


@each_sampler
@pytest.mark.parametrize("wrong", [-1, WORDS, WORDS + 1, 2**64, 2**64 + 1, -(2**64)])
def test_out_of_range(call, wrong):
    mu = torch.zeros(3)
    for seed in (5, torch.tensor(5)):
        with pytest.raises(ValueError, match="stream must be from 0 to"):
            call(mu, mu, seed=seed, stream=wrong)
    with pytest.raises(ValueError, match="stream must be from 0 to"):
        vf.standard_normal((3,), seed=5, stream=wrong)


@each_sampler
@pytest.mark.parametrize(
    ("first", "samples"), [(WORDS, ()), (WORDS - 1, 2), (WORDS - 5, (2, 3)), (-1, ()), (-2, 4)]
)
@pytest.mark.parametrize("stream", [0, 1, WORDS - 1])
def test_samples_that_run_over(call, first, samples, stream):
    """Into the next stream."""
    mu = torch.zeros(3)
    for seed in (5, torch.tensor(5)):
        with pytest.raises(ValueError, match="samples must have numbers from 0 to"):
            call(mu, mu, samples, seed=seed, first_sample=first, stream=stream)


@pytest.mark.parametrize("wrong", [-1, WORDS, 2**64])
def test_a_sample_out_of_range(wrong):
    with pytest.raises(ValueError, match="samples must have numbers from 0 to"):
        vf.standard_normal((3,), seed=5, sample=wrong)


@each_sampler
def test_of_no_seed(call):
    """Of the seed that is drawn."""
    mu = torch.zeros(5, 3)
    torch.manual_seed(3)
    first, *_ = call(mu, mu, seed=None)
    torch.manual_seed(3)
    second, *_ = call(mu, mu, seed=None, stream=1)
    torch.manual_seed(3)
    assert torch.equal(call(mu, mu, seed=None, stream=1)[0], second) and not torch.equal(first, second)


@each_sampler
def test_compiled(call):
    torch._dynamo.reset()
    mu, logvar = torch.randn(5, 3), torch.randn(5, 3)
    compiled = torch.compile(lambda m, v: call(m, v, 2, stream=WORDS - 1), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(mu, logvar), call(mu, logvar, 2, stream=WORDS - 1))


def test_drop_ins():
    mu, logvar = torch.randn(5, 3), torch.randn(5, 3)
    want = vf.rsample(mu, logvar, seed=3, stream=2**31)
    assert torch.equal(DiagonalNormal(mu, logvar, param="logvar").rsample(seed=3, stream=2**31), want)
    for requires_grad in (False, True):
        packed = torch.cat([mu, logvar], 1).requires_grad_(requires_grad)
        q = vf.DiagonalGaussian(packed, logvar_bounds=None)
        assert torch.equal(q.sample(seed=3, stream=2**31), want)
        assert torch.equal(q.rsample_kl(seed=3, stream=2**31)[0], want)

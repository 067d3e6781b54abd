"""Where the noise's seed comes from: the argument, a generator, the default generator; and who repeats it."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import vae_fast as vf
from helpers.calls import bits, same_bits
from helpers.marks import each_sampler
from vae_fast import seeds


@pytest.fixture
def mu():
    return torch.zeros(3, 4)


def noise(seed):
    return vf.standard_normal((3, 4), seed=seed, dtype=torch.float32)


class TestInteger:
    @each_sampler
    @pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**63 - 1])
    def test_modulo_2_to_64(self, call, seed, mu):
        z = call(mu, mu, seed=seed)[0]
        for turns in (-3, -1, 1, 2, 2**70):
            assert torch.equal(call(mu, mu, seed=seed + turns * 2**64)[0], z)

    @each_sampler
    def test_64_bits_count(self, call, mu):
        """Every bit of the seed changes the noise, the sign and the high word too."""
        seen = {
            bits(call(mu, mu, seed=seed)[0]).numpy().tobytes() for seed in (0, -1, *(1 << k for k in range(64)))
        }
        assert len(seen) == 66

    @pytest.mark.parametrize("value", [5, -7, 2**63 + 5, 2**64 - 1, -(2**63), 2**200 + 3, -(2**64) - 2])
    def test_wrap(self, value):
        wrapped = seeds.wrap(value)
        assert -(2**63) <= wrapped < 2**63
        assert (wrapped - value) % 2**64 == 0

    @each_sampler
    @pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.uint64, np.array])
    def test_numpy_integers(self, call, kind, mu):
        assert torch.equal(call(mu, mu, seed=kind(77))[0], noise(77))

    def test_numpy_beyond_int64(self, mu):
        assert torch.equal(vf.rsample(mu, mu, seed=np.uint64(2**64 - 2)), noise(-2))

    def test_a_bool_is_an_int(self, mu):
        """As for torch.manual_seed."""
        assert torch.equal(vf.rsample(mu, mu, seed=True), noise(1))

    def test_offset_wraps_too(self, mu):
        for turns in (-1, 1):
            far = vf.rsample(mu, mu, seed=3, offset=9 + turns * 2**64, first_sample=5)
            assert torch.equal(far, vf.rsample(mu, mu, seed=3, offset=9, first_sample=5))

    @each_sampler
    @pytest.mark.parametrize("number", [-1, 2**32 - 1, 2**32, 2**64 + 5, -(2**64)])
    def test_samples_do_not_wrap(self, call, number, mu):
        """Their numbers, beyond 2³², would be those of another stream."""
        with pytest.raises(ValueError, match="samples must have numbers from 0 to"):
            call(mu, mu, (2,), seed=3, first_sample=number)

    @each_sampler
    @pytest.mark.parametrize("seed", [1.0, "1", 1j, (1,), np.float64(1.0), np.ones(2, dtype=int)], ids=repr)
    def test_not_an_integer(self, call, seed, mu):
        with pytest.raises(TypeError, match="seed must be an integer, got " + type(seed).__name__):
            call(mu, mu, seed=seed)

    def test_standard_normal_has_no_default(self):
        with pytest.raises(TypeError, match="seed"):
            vf.standard_normal((3,), seed=None)
        with pytest.raises(TypeError, match="seed"):
            vf.standard_normal((3,))


class TestTwoLatents:
    @each_sampler
    def test_one_seed_is_one_noise(self, call):
        """And what there is instead: a stream of its own, a first_sample, or another seed."""
        mu = torch.zeros(200, 50)
        first = call(mu, mu, (2,), seed=5)[0]
        assert torch.equal(call(mu, mu, (2,), seed=5)[0], first)
        for options in ({"seed": 5, "stream": 1}, {"seed": 5, "first_sample": 2}, {"seed": 6}):
            second = call(mu, mu, (2,), **options)[0]
            # 6 standard errors of the correlation of 20,000 pairs.
            assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 6 / 20_000**0.5


class TestTensor:
    @each_sampler
    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    @pytest.mark.parametrize("seed", [3, -1, 2**63 - 1])
    def test_is_the_int(self, call, shape, seed, mu):
        assert torch.equal(call(mu, mu, seed=torch.full(shape, seed))[0], noise(seed))

    def test_standard_normal(self):
        assert torch.equal(noise(torch.tensor([5])), noise(5))

    @each_sampler
    @pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32, torch.float64, torch.bool], ids=str)
    def test_dtype(self, call, dtype, mu):
        with pytest.raises(TypeError, match=f"seed must be an int or an int64 tensor, got {dtype}"):
            call(mu, mu, seed=torch.ones(1, dtype=dtype))

    @each_sampler
    @pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
    def test_one_element(self, call, shape, mu):
        with pytest.raises(ValueError, match="seed must hold one element") as caught:
            call(mu, mu, seed=torch.ones(shape, dtype=torch.int64))
        assert str(shape) in str(caught.value)

    @each_sampler
    def test_device(self, call, mu):
        with pytest.raises(ValueError, match="seed is on meta.*cpu"):
            call(mu, mu, seed=torch.tensor([1], device="meta"))
        with pytest.raises(ValueError, match="seed is on cpu.*meta"):
            call(mu.to("meta"), mu.to("meta"), seed=torch.tensor([1]))

    @each_sampler
    def test_backward_regenerates_from_it(self, call, mu):
        logvar = mu.clone().requires_grad_()
        z = call(mu, logvar, seed=torch.tensor([9]))[0]
        (dlogvar,) = torch.autograd.grad(z.sum(), logvar)
        torch.testing.assert_close(dlogvar, 0.5 * noise(9))

    @each_sampler
    def test_changed_between_forward_and_backward(self, call, mu):
        """A backward from another seed would be wrong: autograd says so, as for any saved tensor."""
        seed = torch.tensor([9])
        logvar = mu.clone().requires_grad_()
        z = call(mu, logvar, seed=seed)[0]
        seed.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.sum().backward()


class TestGenerator:
    @each_sampler
    def test_reproducible(self, call, mu):
        first, second = torch.Generator(), torch.Generator()
        first.manual_seed(5), second.manual_seed(5)
        draws = [call(mu, mu, seed=None, generator=first)[0] for _ in range(3)]
        again = [call(mu, mu, seed=None, generator=second)[0] for _ in range(3)]
        assert same_bits(draws, again)
        assert len({bits(d).numpy().tobytes() for d in draws}) == 3
        second.manual_seed(6)
        assert not torch.equal(call(mu, mu, seed=None, generator=second)[0], draws[0])

    @each_sampler
    def test_its_state_is_all_there_is(self, call, mu):
        generator = torch.Generator()
        state = generator.get_state()
        z = call(mu, mu, seed=None, generator=generator)[0]
        generator.set_state(state)
        assert torch.equal(call(mu, mu, seed=None, generator=generator)[0], z)

    @each_sampler
    def test_leaves_the_default_one_alone(self, call, mu):
        state = torch.get_rng_state()
        call(mu, mu, seed=None, generator=torch.Generator())
        assert torch.equal(torch.get_rng_state(), state)

    @each_sampler
    def test_with_a_seed(self, call, mu):
        with pytest.raises(ValueError, match="seed or generator"):
            call(mu, mu, seed=1, generator=torch.Generator())

    @each_sampler
    def test_of_another_device(self, call, mu):
        with pytest.raises(ValueError, match="generator is for cpu.*meta"):
            call(mu.to("meta"), mu.to("meta"), seed=None, generator=torch.Generator())

    @each_sampler
    def test_under_a_transform(self, call, mu):
        """torch.func.grad draws from the generator given, and as eager code does."""

        def dlogvar(generator):
            return torch.func.grad(lambda lv: call(mu, lv, seed=None, generator=generator)[0].sum())(mu)

        state = torch.get_rng_state()
        first = dlogvar(torch.Generator().manual_seed(1))
        assert torch.equal(dlogvar(torch.Generator().manual_seed(1)), first)
        assert not torch.equal(dlogvar(torch.Generator().manual_seed(2)), first)
        assert torch.equal(torch.get_rng_state(), state)


class TestDefaultGenerator:
    @each_sampler
    def test_manual_seed_governs(self, call, mu):
        torch.manual_seed(11)
        draws = [call(mu, mu, seed=None)[0] for _ in range(3)]
        torch.manual_seed(11)
        assert same_bits([call(mu, mu, seed=None)[0] for _ in range(3)], draws)
        torch.manual_seed(12)
        assert not torch.equal(call(mu, mu, seed=None)[0], draws[0])
        assert len({bits(d).numpy().tobytes() for d in draws}) == 3

    @each_sampler
    def test_a_draw_takes_as_much_as_one_number(self, call):
        """Whatever the size: what is drawn next does not depend on the batch."""
        left = []
        for n in (1, 1000):
            torch.manual_seed(11)
            call(torch.zeros(n, 4), 0.0, seed=None)
            left.append(torch.rand(5))
        assert torch.equal(*left)

    @each_sampler
    def test_a_seed_draws_nothing(self, call, mu):
        for seed in (3, torch.tensor([3])):
            state = torch.get_rng_state()
            logvar = mu.clone().requires_grad_()
            call(mu, logvar, seed=seed)[0].sum().backward()
            assert torch.equal(torch.get_rng_state(), state)

    @each_sampler
    def test_backward_draws_nothing(self, call, mu):
        logvar = mu.clone().requires_grad_()
        z = call(mu, logvar, seed=None)[0]
        state = torch.get_rng_state()
        z.sum().backward()
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(logvar.grad, 0.5 * z.detach(), rtol=1e-6, atol=0)

    def test_densities_draw_nothing(self, mu):
        state = torch.get_rng_state()
        vf.gaussian_kl(mu, mu), vf.gaussian_log_prob(mu, mu, mu), vf.bernoulli_log_prob(mu, mu)
        assert torch.equal(torch.get_rng_state(), state)

    @each_sampler
    def test_one_call_of_both_kinds_draws_alike(self, call, mu):
        """The same default generator gives rsample and rsample_kl the same z."""
        torch.manual_seed(4)
        z = call(mu, mu, seed=None)[0]
        torch.manual_seed(4)
        assert torch.equal(vf.rsample(mu, mu), z)

    @each_sampler
    @pytest.mark.parametrize("start", range(8))
    def test_transforms_draw_as_eager_code_does(self, call, start, mu):
        """torch.func.grad of a loss under one manual_seed is its backward under the same."""
        torch.manual_seed(start)
        logvar = mu.clone().requires_grad_()
        call(mu, logvar, seed=None)[0].sum().backward()
        torch.manual_seed(start)
        dlogvar = torch.func.grad(lambda lv: call(mu, lv, seed=None)[0].sum())(mu)
        torch.testing.assert_close(dlogvar, logvar.grad)


class TestVmap:
    @each_sampler
    def test_randomness(self, call, mu):
        def draw(row):
            return call(row, row, seed=None)[0]

        with pytest.raises(RuntimeError, match="randomness"):
            torch.func.vmap(draw)(mu)
        same = torch.func.vmap(draw, randomness="same")(mu)
        assert all(torch.equal(row, same[0]) for row in same)
        different = torch.func.vmap(draw, randomness="different")(mu)
        assert len({bits(row).numpy().tobytes() for row in different}) == 3

    @each_sampler
    def test_manual_seed_governs(self, call, mu):
        for randomness in ("same", "different"):
            draw = torch.func.vmap(lambda row: call(row, row, seed=None)[0], randomness=randomness)
            torch.manual_seed(3)
            first = draw(mu)
            assert not torch.equal(draw(mu), first)
            torch.manual_seed(3)
            assert torch.equal(draw(mu), first)

    @each_sampler
    def test_a_seed_for_all_and_one_for_each(self, call, mu):
        rows = torch.func.vmap(lambda row: call(row, row, seed=5)[0])(mu)
        assert torch.equal(rows, vf.standard_normal((4,), seed=5).expand(3, 4))
        rows = torch.func.vmap(lambda row, seed: call(row, row, seed=seed)[0])(mu, torch.tensor([5, 6, 7]))
        assert torch.equal(rows, torch.stack([vf.standard_normal((4,), seed=s) for s in (5, 6, 7)]))


class TestCheckpoint:
    """torch.utils.checkpoint runs the forward again in the backward: it must draw the same noise."""

    @each_sampler
    @pytest.mark.parametrize("use_reentrant", [True, False])
    @pytest.mark.parametrize("seed", [None, 7])
    def test_recomputation(self, call, use_reentrant, seed, mu):
        drawn = []

        def block(mu, logvar):
            z = call(mu, logvar, seed=seed)[0]
            drawn.append(z.detach())
            return (z * z).sum()

        def run(through):
            torch.manual_seed(8)
            operands = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
            loss = through(operands)
            loss.backward()
            return loss.detach(), *(o.grad for o in operands)

        plain = run(lambda operands: block(*operands))
        drawn.clear()
        ours = run(lambda operands: checkpoint(block, *operands, use_reentrant=use_reentrant))
        assert len(drawn) == 2 and torch.equal(*drawn)
        assert same_bits(ours, plain)


class FakeGenerator:
    """What the CUDA path reads and moves of a generator."""

    def __init__(self, seed, offset=0):
        self.seed, self.offset = seed, offset

    def initial_seed(self):
        return self.seed

    def get_offset(self):
        return self.offset

    def set_offset(self, offset):
        self.offset = offset


class TestCudaSeed:
    """The host-side derivation of a seed from a CUDA generator's state, without a GPU."""

    @pytest.fixture(autouse=True)
    def not_capturing(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    @staticmethod
    def draw(generator):
        seed, tensor = seeds._from_cuda(torch.device("cuda", 0), generator)
        assert tensor is None and type(seed) is int and -(2**63) <= seed < 2**63
        return seed

    def test_advances_as_one_kernel_would(self):
        """By a multiple of 4, as PyTorch demands of a Philox offset."""
        generator = FakeGenerator(1, offset=8)
        for expected in (12, 16, 20):
            self.draw(generator)
            assert generator.offset == expected

    def test_is_a_function_of_the_state(self):
        first, second = FakeGenerator(3), FakeGenerator(3)
        draws = [self.draw(first) for _ in range(5)]
        assert [self.draw(second) for _ in range(5)] == draws
        second.set_offset(8)
        assert self.draw(second) == draws[2]

    def test_distinct(self):
        """Neighbouring seeds and offsets, the largest seed too: all unlike, in both words of the key."""
        draws = []
        for start in (*range(50), 2**31, 2**32, 2**63, 2**64 - 1):
            generator = FakeGenerator(start)
            draws += [self.draw(generator) for _ in range(50)]
        assert len(set(draws)) == len(draws) == 2700
        low = np.array(draws, dtype=np.int64).view(np.uint32).reshape(-1, 2)
        # 2700 draws of 2³² values: 10⁻³ chance that any two low words are equal, were they random.
        assert len(set(low[:, 0])) == len(set(low[:, 1])) == 2700

    def test_neighbours_share_no_bits(self):
        """Half of the 64 bits differ on average: within 6 standard errors of 32 over 999 pairs."""
        generator = FakeGenerator(0)
        draws = [self.draw(generator) for _ in range(1000)]
        flips = [bin((a ^ b) & (2**64 - 1)).count("1") for a, b in zip(draws, draws[1:], strict=False)]
        assert abs(np.mean(flips) - 32) < 6 * 4 / np.sqrt(999)

    def test_a_huge_offset(self):
        assert self.draw(FakeGenerator(2**64 - 1, offset=2**62)) != self.draw(FakeGenerator(2**64 - 1))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_a_gpu(self, monkeypatch):
        monkeypatch.undo()
        generator = torch.Generator("cuda").manual_seed(5)
        mu = torch.zeros(3, 4, device="cuda")
        z = vf.rsample(mu, mu, generator=generator)
        assert generator.get_offset() == 4
        assert not torch.equal(vf.rsample(mu, mu, generator=generator), z)
        assert torch.equal(vf.rsample(mu, mu, generator=generator.manual_seed(5)), z)
        torch.cuda.manual_seed(5)
        assert torch.equal(vf.rsample(mu, mu), z)
        with pytest.raises(ValueError, match="generator is for cpu"):
            vf.rsample(mu, mu, generator=torch.Generator())

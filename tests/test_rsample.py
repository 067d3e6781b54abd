"""rsample: against truth, its seeds and addressing, and all its options."""

import math

import accuracy
import behaviour
import pytest
import torch
import torch._dynamo.testing
from accuracy import backend, float32_patterns, ulp, units, wide  # noqa: F401
from behaviour import with_grads
from torch.testing import assert_close

import vae_fast as vf
from vae_fast.sigma import SigmaForm

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")


class TestAccuracy:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_sigma_of_the_reference(self, dtype):
        """exp(½lv) ≤ 2 ULP, no worse than PyTorch's own exp(½lv)."""
        lv = float32_patterns(1 << 19) if dtype == torch.float32 else accuracy.everywhere(4000, dtype)
        value = accuracy.exp(wide(lv) / 2)
        errors = ulp(SigmaForm().sigma(lv), value)
        accuracy.assert_within(2, errors, lv)
        accuracy.assert_no_worse(errors, ulp(torch.exp(0.5 * lv), value), dtype, lv)

    @pytest.mark.parametrize("spread", [3.0, None], ids=["ordinary", "wide"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_z(self, dtype, spread):
        """z ≤ 2ε(|μ| + |σε|), dlogvar ≤ 3ε|½σε| given ε; no worse than PyTorch. σ itself is finite."""
        n, slack = (1500, 1.25) if dtype == torch.float64 else (50_000, 1.05)
        logs = {torch.float64: 1400, torch.float16: 20}.get(dtype, 170)
        if spread:
            mu, lv = ((spread * torch.randn(n, dtype=torch.float64)).to(dtype) for _ in range(2))
        else:
            mu = accuracy.everywhere(n, dtype)[:n]
            mu = mu[torch.randperm(n)]
            lv = accuracy.magnitudes(n, dtype, 1e-6, logs)
        mu[::9] = 0
        eps = vf.standard_normal((n,), seed=7, dtype=torch.float64)
        z, dmu, dlv = with_grads(lambda m, v: vf.rsample(m, v, seed=7), mu, lv)
        assert (dmu == 1).all()
        e = wide(eps if dtype == torch.float64 else eps.float())
        step = accuracy.exp(wide(lv) / 2) * e
        value, terms = wide(mu) + step, abs(wide(mu)) + abs(step)
        errors = accuracy.error(z, value, units(terms, dtype))
        accuracy.assert_within(2, errors, mu, lv, eps)
        theirs = accuracy.error(mu + torch.exp(0.5 * lv) * eps.to(dtype), value, units(terms, dtype))
        accuracy.assert_no_worse(errors, theirs, dtype, mu, lv, eps, slack=slack)
        accuracy.assert_within(3, accuracy.error(dlv, step / 2, units(abs(step / 2), dtype)), mu, lv, eps)

    def test_sum_of_gradients_over_samples(self):
        n = 5000
        mu, lv = torch.randn(10), torch.randn(10)
        _, dmu, dlv = with_grads(lambda m, v: vf.rsample(m, v, n, seed=1), mu, lv)
        assert (dmu == n).all()
        eps = torch.stack([vf.standard_normal((10,), seed=1, sample=s, dtype=torch.float64) for s in range(50)])
        assert_close(vf.rsample(torch.zeros(10), 0.0, 50, seed=1).double(), eps)
        each = vf.rsample(torch.zeros(10, dtype=torch.float64), 0.0, n, seed=1) * torch.exp(lv.double() / 2) / 2
        bound = (accuracy.rows_bound(n) + 3 * torch.finfo(torch.float32).eps) * each.abs().sum(0)
        assert ((dlv.double() - each.sum(0)).abs() <= bound).all()

    @pytest.mark.parametrize("param", PARAMS)
    def test_param_is_what_it_says(self, param):
        mu, r = inputs(param)
        noise = vf.standard_normal(mu.shape, seed=5, dtype=mu.dtype)
        for eps in (0.0, 0.3):
            sigma = {
                "logvar": lambda r, eps=eps: torch.exp(r / 2) + eps,
                "logstd": lambda r, eps=eps: torch.exp(r) + eps,
                "std": lambda r, eps=eps: r + eps,
                "var": lambda r, eps=eps: torch.sqrt(r + eps),
                "softplus": lambda r, eps=eps: torch.log(1 + torch.exp(r)) + eps,
            }[param]
            options = {"seed": 5, "param": param, "param_eps": eps, "bounds": (0.4, 1.1)}
            got = with_grads(lambda m, r, o=options: vf.rsample(m, r, **o), mu, r)
            assert_close(got, with_grads(lambda m, r, s=sigma: m + s(r.clamp(0.4, 1.1)) * noise, mu, r))


class TestSeeds:
    def sample(self, *args, **options):
        return vf.rsample(torch.zeros(6, 5), torch.zeros(6, 5), *args, **options)

    def test_is_the_documented_noise(self):
        assert torch.equal(self.sample(seed=3), vf.standard_normal((6, 5), seed=3))
        z = self.sample((2, 3), seed=3, offset=11, first_sample=4)
        each = [vf.standard_normal((6, 5), seed=3, offset=11, sample=4 + s) for s in range(6)]
        assert torch.equal(z, torch.stack(each).reshape(2, 3, 6, 5))

    @pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1, 12345678901234567])
    def test_int_modulo_2_64_and_tensor(self, seed):
        z = self.sample(seed=seed)
        assert torch.equal(z, self.sample(seed=seed + 2**64)) and torch.equal(z, self.sample(seed=seed - 2**64))
        signed = (seed + 2**63) % 2**64 - 2**63
        for shape in ((), (1,), (1, 1)):
            assert torch.equal(z, self.sample(seed=torch.full(shape, signed, dtype=torch.int64)))

    def test_generator_and_default_generator_govern(self):
        device = self.sample(seed=0).device
        generator = torch.Generator(device).manual_seed(5)
        first, second = self.sample(generator=generator), self.sample(generator=generator)
        assert not torch.equal(first, second)
        generator.manual_seed(5)
        assert torch.equal(first, self.sample(generator=generator))
        torch.manual_seed(9)
        a, b = self.sample(), self.sample()
        torch.manual_seed(9)
        assert torch.equal(a, self.sample()) and torch.equal(b, self.sample()) and not torch.equal(a, b)
        # A given seed leaves the generator where it was.
        state = torch.get_rng_state()
        self.sample(seed=1)
        assert torch.equal(state, torch.get_rng_state())

    def test_shards_and_chunks_are_parts_of_the_whole(self):
        mu, lv = torch.randn(7, 5), torch.randn(7, 5)
        whole = vf.rsample(mu, lv, 6, seed=2)
        shards = [vf.rsample(mu[i:j], lv[i:j], 6, seed=2, offset=5 * i) for i, j in ((0, 1), (1, 4), (4, 7))]
        assert torch.equal(whole, torch.cat(shards, 1))
        chunks = [vf.rsample(mu, lv, n, seed=2, first_sample=first) for first, n in ((0, 1), (1, 3), (4, 2))]
        assert torch.equal(whole, torch.cat(chunks))
        assert torch.equal(whole[:2], vf.rsample(mu, lv, 2, seed=2))

    @pytest.mark.parametrize("given", ["seed", "tensor", "generator", "default"])
    def test_backward_draws_the_same_noise(self, given):
        options = {
            "seed": {"seed": 4},
            "tensor": {"seed": torch.tensor([4])},
            "generator": {"generator": torch.Generator(torch.zeros(()).device)},
            "default": {},
        }[given]
        mu = torch.zeros(64, 3, dtype=torch.float64, requires_grad=True)
        lv = torch.zeros(64, 3, dtype=torch.float64, requires_grad=True)
        z = vf.rsample(mu, lv, (2,), offset=3, first_sample=1, **options)
        vf.rsample(mu, lv)
        g = torch.randn_like(z)
        (dlv,) = torch.autograd.grad(z, lv, g)
        assert_close(dlv, (0.5 * g * z.detach()).sum(0))

    def test_noise_is_not_saved(self):
        mu, lv = torch.randn(50, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
        saved = []

        def pack(t):
            saved.append(t)
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            z = vf.rsample(mu, lv, (3,), seed=torch.tensor([1]))
        assert sorted(t.numel() for t in saved) == [1, 200, 200]
        assert {t.data_ptr() for t in saved if t.numel() > 1} == {mu.data_ptr(), lv.data_ptr()}
        z.sum().backward()

    def test_dtypes_share_the_noise(self):
        z = self.sample(seed=3)
        assert torch.equal(vf.rsample(*(torch.zeros(6, 5, dtype=torch.float64),) * 2, seed=3), z.double())
        for dtype in (torch.bfloat16, torch.float16):
            assert torch.equal(vf.rsample(*(torch.zeros(6, 5, dtype=dtype),) * 2, seed=3), z.to(dtype))


CASES = {
    "one": lambda m, v: vf.rsample(m, v, seed=1),
    "samples": lambda m, v: vf.rsample(m, v, (2, 2), seed=1, offset=3, first_sample=2),
    "bounds": lambda m, v: vf.rsample(m, v, seed=1, bounds=(-0.5, 0.7)),
    **{p: lambda m, r, p=p: vf.rsample(m, r, seed=1, param=p) for p in PARAMS},
    **{p + "_eps": lambda m, r, p=p: vf.rsample(m, r, 2, seed=1, param=p, param_eps=0.2) for p in PARAMS},
}


def inputs(case, dtype=torch.float64, shape=(4, 2, 3)):
    mu, r = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    return mu.to(dtype), (0.3 + r.abs() if case.startswith(("std", "var")) else r).to(dtype)


@pytest.mark.parametrize("case", CASES)
class TestDerivatives:
    def test_numerical(self, case):
        behaviour.check_derivatives(CASES[case], *inputs(case, shape=(1, 1, 2)))

    def test_transforms(self, case):
        behaviour.check_transforms(CASES[case], *inputs(case, shape=(3, 2, 3)))


def test_randomness_of_vmap():
    mu = torch.zeros(3, 4)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda m: vf.rsample(m, 0.0))(mu)
    z = torch.vmap(lambda m: vf.rsample(m, 0.0), randomness="different")(mu)
    assert not torch.equal(z[0], z[1])
    z = torch.vmap(lambda m: vf.rsample(m, 0.0), randomness="same")(mu)
    assert torch.equal(z[0], z[1])


class TestOptions:
    def test_shapes(self):
        for mu, lv, samples, out in (
            ((5, 3), (5, 3), (), (5, 3)),
            ((5, 3), (3,), 2, (2, 5, 3)),
            ((3,), (5, 1), (2, 0), (2, 0, 5, 3)),
            ((), (), (4,), (4,)),
            ((0, 3), (3,), 2, (2, 0, 3)),
        ):
            assert vf.rsample(torch.zeros(mu), torch.zeros(lv), samples, seed=0).shape == out

    def test_gradients_have_their_arguments_shape(self):
        full = (5, 2, 3)
        for small in ((3,), (5, 1, 1), (), (2, 1)):
            behaviour.check_shape_of_gradient(CASES["samples"], (full, small), full)
            behaviour.check_shape_of_gradient(CASES["samples"], (small, full), full)

    def test_number_for_logvar(self):
        mu, _ = inputs("one")
        assert_close(vf.rsample(mu, -0.4, seed=1), vf.rsample(mu, torch.full_like(mu, -0.4), seed=1))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("other", DTYPES, ids=str)
    def test_dtypes(self, dtype, other):
        mu, lv = inputs("one", dtype)
        promoted = torch.promote_types(dtype, other)
        z, dmu, dlv = with_grads(CASES["one"], mu, lv.to(other))
        assert (z.dtype, dmu.dtype, dlv.dtype) == (promoted, dtype, other)
        assert torch.equal(z, CASES["one"](mu.to(promoted), lv.to(other).to(promoted)))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("case", ["one", "samples", "softplus_eps"])
    def test_half(self, dtype, case):
        behaviour.check_half(CASES[case], dtype, *inputs(case, dtype))


class TestLayouts:
    @pytest.mark.parametrize("case", ["one", "samples"])
    def test_inputs(self, case):
        behaviour.check_layouts(CASES[case], *inputs(case, torch.float32, (4, 3, 5, 3)))

    @pytest.mark.parametrize("dim", [0, 1, 2])
    def test_expanded(self, dim):
        behaviour.check_expanded(CASES["samples"], *inputs("samples", torch.float32), dim=dim)

    @pytest.mark.parametrize("case", ["one", "samples"])
    def test_upstreams(self, case):
        behaviour.check_upstreams(CASES[case], *inputs(case, torch.float32))


class TestCompiled:
    def test_compiled(self):
        behaviour.check_compiled(CASES["samples"], *inputs("samples", torch.float32, (8, 4, 3)), batches=3)

    def test_noise_keeps_its_bits(self):
        """A compiler may fuse multiply-adds; inductor must not reach into the noise."""
        zeros = torch.zeros(500, 3)
        compiled = torch.compile(lambda m, v: vf.rsample(m, v, seed=6), fullgraph=True, dynamic=False)
        assert torch.equal(compiled(zeros, zeros), vf.rsample(zeros, zeros, seed=6))

    def test_noise_is_opaque_to_compilers(self):
        """None of its integer arithmetic is in the graph, so nothing of it can be fused."""
        recorder = torch._dynamo.testing.AotEagerAndRecordGraphs()
        torch._dynamo.reset()
        torch.compile(lambda m, v: vf.rsample(m, v, seed=6), fullgraph=True, backend=recorder)(*inputs("one"))
        code = "".join(graph.code for graph in recorder.fw_graphs)
        assert "torch.ops.vae_fast" in code and "bitwise" not in code and "shift" not in code

    def test_other_seeds_do_not_recompile(self):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        mu, lv = torch.randn(4, 3), torch.randn(4, 3)
        compiled = torch.compile(
            lambda s, o: vf.rsample(mu, lv, seed=s, offset=o), fullgraph=True, backend="aot_eager", dynamic=True
        )
        for seed, offset in ((1000, 64), (2001, 128), (-3, 640), (2**40, 2**41)):
            assert torch.equal(compiled(seed, offset), vf.rsample(mu, lv, seed=seed, offset=offset))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        by_tensor = torch.compile(lambda s: vf.rsample(mu, lv, seed=s), fullgraph=True, backend="aot_eager")
        for seed in (1, 2, 3):
            assert torch.equal(by_tensor(torch.tensor([seed])), vf.rsample(mu, lv, seed=seed))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1

    def test_default_generator_is_fresh_in_every_call(self):
        zeros = torch.zeros(4, 3)
        compiled = torch.compile(lambda m, v: vf.rsample(m, v), fullgraph=True, backend="aot_eager")
        torch.manual_seed(0)
        first, second = compiled(zeros, zeros), compiled(zeros, zeros)
        torch.manual_seed(0)
        assert torch.equal(first, compiled(zeros, zeros)) and not torch.equal(first, second)

    def test_exported(self):
        behaviour.check_exported(CASES["samples"], *inputs("samples", torch.float32))


class TestSumsOverSamples:
    """A gradient is the sum over all samples, which may cancel, or hold what is not finite.

    Of many samples, which a GPU sums in groups, those that cancel are in one.
    """

    @pytest.mark.parametrize("samples", (6, 200))
    @pytest.mark.parametrize("by_noise", (False, True))
    def test_what_cancels(self, samples, by_noise, backend):  # noqa: F811
        """Exactly, but for its last rounding: kernels keep what float32 loses. The reference adds in float32."""
        mu, logvar = torch.zeros(2, 8, requires_grad=True), torch.zeros(2, 8, requires_grad=True)
        z = vf.rsample(mu, logvar, samples, seed=7)
        eps, dz = z.detach(), torch.randn(samples, 2, 8)
        dz[0] = 3e8
        dz[2] = -dz[0] * eps[0] / eps[2] if by_noise else -dz[0]
        got = torch.autograd.grad(z, (mu, logvar), dz)[by_noise].double()
        # A product is rounded before it is added.
        terms = (0.5 * (dz * eps) if by_noise else dz).double()
        lost = 1e-7 * (1 + math.log2(samples)) * terms.abs().sum(0).max() if backend == "reference" else 1e-5
        assert_close(got, terms.sum(0), rtol=2**-22, atol=float(lost))

    @pytest.mark.parametrize("value", (torch.inf, -torch.inf, torch.nan))
    def test_what_is_not_finite(self, value):
        mu, logvar = torch.zeros(2, 8, requires_grad=True), torch.zeros(2, 8, requires_grad=True)
        z = vf.rsample(mu, logvar, 6, seed=7)
        eps, dz = z.detach(), torch.randn(6, 2, 8)
        dz[3] = value
        dmu, dlogvar = torch.autograd.grad(z, (mu, logvar), dz)
        assert_close(dmu, dz.sum(0), equal_nan=True)
        assert_close(dlogvar, 0.5 * (dz * eps).sum(0), equal_nan=True)

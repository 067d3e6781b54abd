"""DiagonalGaussian against the formulas of latent diffusion, written out; and its gradient, in one buffer."""

import copy
import math
import pickle

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import check_compiled
from helpers.marks import each_backend

pytestmark = each_backend

# Float64 against float64: a few roundings a term, sums of at most 500.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
SHAPES = {
    "image": ((3, 8, 5, 6), 1),
    "video": ((2, 6, 3, 4, 5), 1),
    "tokens": ((3, 7, 10), -1),
    "flat": ((4, 6), 1),
}


class Packed:
    """What users of latent diffusion compute, on the noise it is given: log σ² is clamped to [−30, 20]."""

    def __init__(self, moments, dim):
        self.mean, logvar = moments.chunk(2, dim)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.std, self.var = torch.exp(0.5 * self.logvar), torch.exp(self.logvar)

    def sample(self, eps):
        return self.mean + self.std * eps

    def kl(self, other, dims):
        if other is None:
            return 0.5 * torch.sum(self.mean**2 + self.var - 1.0 - self.logvar, dim=dims)
        square = (self.mean - other.mean) ** 2 / other.var
        return 0.5 * torch.sum(square + self.var / other.var - 1.0 - self.logvar + other.logvar, dim=dims)

    def nll(self, x, dims):
        return 0.5 * torch.sum(math.log(2 * math.pi) + self.logvar + (x - self.mean) ** 2 / self.var, dim=dims)


def moments_of(shape, dtype=torch.float64, seed=0):
    """Some of the log σ² are outside the bounds."""
    generator = torch.Generator("cpu").manual_seed(seed)
    moments = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    moments.view(-1)[-3:] = torch.tensor([-40.0, 25.0, 19.0], dtype=torch.float64, device="cpu")
    return moments.to(torch.get_default_device(), dtype).requires_grad_()


def noise(z, seed):
    return vf.standard_normal(z.shape, seed=seed, dtype=z.dtype)


def compare(ours, theirs, *leaves):
    """Two results and their gradients, for one random upstream."""
    assert_close(ours, theirs, **EXACT)
    upstream = torch.randn_like(theirs)
    wanted = torch.autograd.grad(theirs, leaves, upstream, retain_graph=True)
    for got, want in zip(torch.autograd.grad(ours, leaves, upstream, retain_graph=True), wanted, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert_close(got, want, **EXACT)


@pytest.fixture(params=SHAPES)
def case(request):
    shape, dim = SHAPES[request.param]
    moments = moments_of(shape)
    return moments, dim, list(range(1, len(shape)))


class TestFormulas:
    def test_attributes(self, case):
        moments, dim, _ = case
        ours, theirs = vf.DiagonalGaussian(moments, dim), Packed(moments, dim)
        for name in ("mean", "logvar", "std", "var"):
            compare(getattr(ours, name), getattr(theirs, name), moments)
        assert ours.mode().data_ptr() == moments.data_ptr() and ours.parameters is moments

    def test_sample(self, case):
        moments, dim, _ = case
        z = vf.DiagonalGaussian(moments, dim).sample(seed=3)
        compare(z, Packed(moments, dim).sample(noise(z, 3)), moments)

    def test_kl(self, case):
        moments, dim, dims = case
        compare(vf.DiagonalGaussian(moments, dim).kl(), Packed(moments, dim).kl(None, dims), moments)

    def test_rsample_kl(self, case):
        moments, dim, dims = case
        z, kl = vf.DiagonalGaussian(moments, dim).rsample_kl(seed=3)
        theirs = Packed(moments, dim)
        z_, kl_ = theirs.sample(noise(z, 3)), theirs.kl(None, dims)
        compare(z, z_, moments)
        compare(kl, kl_, moments)
        z, kl = vf.DiagonalGaussian(moments, dim).rsample_kl(seed=3)
        up = torch.randn_like(z)
        want = torch.autograd.grad((z_, kl_), moments, (up, torch.ones_like(kl_)))
        assert_close(torch.autograd.grad((z, kl), moments, (up, torch.ones_like(kl))), want, **EXACT)

    def test_kl_to_another(self, case):
        moments, dim, dims = case
        # Its log σ² stays small: beside e^50, a ratio of two variances, nothing else of a sum would be seen.
        other = moments_of(moments.shape, seed=1).detach().clamp(-3, 3).requires_grad_()
        ours = vf.DiagonalGaussian(moments, dim).kl(vf.DiagonalGaussian(other, dim))
        theirs = Packed(moments, dim).kl(Packed(other, dim), dims)
        assert_close(ours, theirs, **EXACT)
        up = torch.ones_like(ours)
        wanted = torch.autograd.grad(theirs, (moments, other), up, retain_graph=True)
        assert_close(torch.autograd.grad(ours, (moments, other), up), wanted, **EXACT)

    def test_nll(self, case):
        moments, dim, dims = case
        # Divided by e^−30 a square would be all of the sum.
        moments = moments.detach().clamp(-4, 25).requires_grad_()
        x = torch.randn_like(moments.chunk(2, dim)[0], requires_grad=True)
        compare(vf.DiagonalGaussian(moments, dim).nll(x), Packed(moments, dim).nll(x, dims), moments, x)
        dims = dims[:1]
        compare(vf.DiagonalGaussian(moments, dim).nll(x, dims), Packed(moments, dim).nll(x, dims), moments, x)

    @pytest.mark.parametrize("sum_dims", [[1, 2, 3], (-1,), 1, (2, 4), (0, 1, 2, 3, 4), ()])
    def test_sum_dims(self, sum_dims):
        moments, other = moments_of((2, 6, 3, 4, 5)), moments_of((2, 6, 3, 4, 5), seed=1)
        other = other.detach().clamp(-3, 3).requires_grad_()
        ours, dims = vf.DiagonalGaussian(moments, sum_dims=sum_dims), sum_dims
        summed = dims if dims != () else None
        theirs, prior = Packed(moments, 1), Packed(other, 1)

        def total(term):
            return term if summed is None else term.sum(summed)

        compare(ours.kl(), total(0.5 * (theirs.mean**2 + theirs.var - 1 - theirs.logvar)), moments)
        z, kl = ours.rsample_kl(seed=5)
        assert_close(z, theirs.sample(noise(z, 5)), **EXACT)
        compare(kl, ours.kl(), moments)
        if summed is not None:
            compare(ours.kl(vf.DiagonalGaussian(other)), theirs.kl(prior, dims), moments, other)

    def test_bounds(self):
        moments, other = moments_of((3, 8, 5, 6)), moments_of((3, 8, 5, 6), seed=1)
        free = vf.DiagonalGaussian(moments, logvar_bounds=None)
        assert torch.equal(free.logvar, moments[:, 4:])
        mu, logvar = moments.chunk(2, 1)
        compare(free.kl(), vf.gaussian_kl(mu, logvar, event_ndim=3), moments)
        narrow = vf.DiagonalGaussian(other, logvar_bounds=(-1.0, 1.0))
        wanted = vf.gaussian_kl(mu, logvar, other[:, :4], other[:, 4:].clamp(-1, 1), event_ndim=3)
        compare(free.kl(narrow), wanted, moments, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype):
    """Everything has the moments' dtype but sums, which are float32; values are those of the widened moments."""
    moments = moments_of((3, 8, 5, 6), torch.float32).detach().clamp(-8, 8).to(dtype).requires_grad_()
    q, wide = vf.DiagonalGaussian(moments), vf.DiagonalGaussian(moments.detach().float())
    z, kl = q.rsample_kl(seed=2)
    assert {t.dtype for t in (z, q.mean, q.std, q.var, q.logvar, q.sample(seed=1), q.mode())} == {dtype}
    assert kl.dtype == q.kl().dtype == q.nll(z).dtype == torch.float32
    assert torch.equal(z, wide.sample(seed=2).to(dtype))
    assert torch.equal(kl, wide.kl()) and torch.equal(q.kl(), kl)
    (grad,) = torch.autograd.grad(z.float().sum() + kl.sum(), moments)
    assert grad.dtype == dtype and grad.shape == moments.shape


def test_layouts(backend):
    """Moments of any strides give what contiguous ones give, and a gradient in their own layout."""
    base = moments_of((3, 8, 5, 6))
    z, kl = vf.DiagonalGaussian(base).rsample_kl(seed=2)
    up = torch.randn_like(z)
    (want,) = torch.autograd.grad((z, kl), base, (up, torch.ones_like(kl)))
    for change in (
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0],
        lambda t: torch.cat([torch.full_like(t[..., :3], torch.nan), t], -1)[..., 3:],
    ):
        moments = change(base.detach()).requires_grad_()
        q = vf.DiagonalGaussian(moments)
        z_, kl_ = q.rsample_kl(seed=2)
        (got,) = torch.autograd.grad((z_, kl_), moments, (up, torch.ones_like(kl)))
        assert_close((z_, kl_, got), (z, kl, want), **EXACT)
        assert backend == "reference" or got.stride() == torch.empty_like(moments).stride()
        x = torch.randn_like(base[:, :4])
        assert_close(q.nll(x), vf.DiagonalGaussian(base).nll(x), **EXACT)
    last = base.detach().movedim(1, -1).contiguous().requires_grad_()
    z_, kl_ = vf.DiagonalGaussian(last, dim=-1).rsample_kl(seed=2)
    assert z_.shape == (3, 5, 6, 4)
    assert_close(kl_, kl, **EXACT)


def test_deterministic():
    moments = moments_of((3, 8, 5, 6))
    q = vf.DiagonalGaussian(moments, deterministic=True)
    assert torch.equal(q.sample(), q.mean) and q.sample().data_ptr() != moments.data_ptr()
    assert torch.equal(q.rsample_kl()[0], q.mean)
    for zero in (q.kl(), q.nll(q.mean), q.rsample_kl()[1], q.std, q.var):
        assert not zero.any()
    assert q.kl().shape == q.nll(q.mean).shape == (1,) and q.std.shape == q.mean.shape
    with pytest.raises(ValueError, match="infinite"):
        vf.DiagonalGaussian(moments).kl(q)


class TestNoise:
    def test_generator(self):
        q = vf.DiagonalGaussian(moments_of((3, 8, 5, 6), torch.float32))

        def drawn():
            return torch.Generator("cpu").manual_seed(4)

        first = q.sample(drawn())
        assert torch.equal(q.sample(generator=drawn()), first)
        assert torch.equal(q.rsample_kl(drawn())[0], first) and torch.equal(q.sample([drawn()]), first)
        generator = drawn()
        assert torch.equal(q.sample(generator), first) and not torch.equal(q.sample(generator), first)
        assert not torch.equal(q.sample(), q.sample())
        # Statistics of 180 normals, by the seed above: the mean is off by 0.075 at one standard deviation.
        eps = ((first - q.mean) / q.std).detach()
        assert abs(eps.mean()) < 0.3 and abs(eps.std() - 1) < 0.2

    def test_one_generator_a_datum(self):
        moments = moments_of((3, 8, 5, 6))
        q = vf.DiagonalGaussian(moments)

        def generators(seeds):
            return [torch.Generator("cpu").manual_seed(s) for s in seeds]

        z = q.sample(generators([1, 2, 3]))
        alone = vf.DiagonalGaussian(moments[1:2]).sample(torch.Generator("cpu").manual_seed(2))
        assert torch.equal(z[1:2], alone)
        other = q.sample(generators([1, 5, 3]))
        assert torch.equal(other[::2], z[::2]) and not torch.equal(other[1], z[1])
        up = torch.randn_like(z)
        eps = ((z - q.mean) / q.std).detach()
        want = torch.autograd.grad(Packed(moments, 1).sample(eps), moments, up)
        # ε was found by a division.
        assert_close(torch.autograd.grad(z, moments, up), want, rtol=1e-8, atol=1e-8)
        with pytest.raises(ValueError, match="2 generators for 3 data"):
            q.sample(generators([1, 2]))
        for other in ({"seed": 1}, {"noise": torch.zeros_like(z)}):
            with pytest.raises(ValueError, match="seed or generator, not both, or noise alone"):
                q.sample(generators([1, 2, 3]), **other)
        with pytest.raises(ValueError, match="seed or generator"):
            q.sample(generators([1])[0], seed=1)


def test_pickle_and_deepcopy():
    moments = moments_of((3, 8, 5, 6)).detach()
    q = vf.DiagonalGaussian(moments, sum_dims=(1, 2), logvar_bounds=(-5, 5))
    for again in (pickle.loads(pickle.dumps(q)), copy.deepcopy(q)):
        assert again.parameters is not moments
        assert torch.equal(again.kl(), q.kl()) and torch.equal(again.sample(seed=1), q.sample(seed=1))


def test_derivatives():
    """Second derivatives, and transforms, by the reference formulas."""
    moments = moments_of((2, 4, 3)).detach().clamp(-2, 2).requires_grad_()

    def f(m):
        q = vf.DiagonalGaussian(m)
        return *q.rsample_kl(seed=1), q.sample(seed=2), q.kl(), q.nll(torch.ones_like(q.mean))

    assert torch.autograd.gradcheck(f, moments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, moments)

    def loss(m):
        z, kl = vf.DiagonalGaussian(m).rsample_kl(seed=1)
        return (z**2).sum() + kl.sum()

    assert_close(torch.func.grad(loss)(moments), torch.autograd.grad(loss(moments), moments)[0])


def test_compiled():
    moments = moments_of((3, 8, 5, 6), torch.float32).detach()

    def f(m):
        q = vf.DiagonalGaussian(m)
        return (*q.rsample_kl(seed=1), q.sample(seed=2), q.kl(), q.nll(torch.ones_like(q.mean)))

    check_compiled(f, moments)


class TestErrors:
    def test_moments(self):
        with pytest.raises(TypeError, match="moments must be a dense tensor of a floating dtype, got list"):
            vf.DiagonalGaussian([1.0])
        with pytest.raises(ValueError, match=r"moments of shape \(2, 3, 4\) cannot be halved along dim 1"):
            vf.DiagonalGaussian(torch.zeros(2, 3, 4))
        with pytest.raises(ValueError, match=r"dim=3 does not fit moments of shape \(2, 4, 4\)"):
            vf.DiagonalGaussian(torch.zeros(2, 4, 4), dim=3)
        with pytest.raises(ValueError, match="sum_dims"):
            vf.DiagonalGaussian(torch.zeros(2, 4, 4), sum_dims=(1, -2))
        with pytest.raises(ValueError, match="dims=5"):
            vf.DiagonalGaussian(torch.zeros(2, 4)).nll(torch.zeros(2, 2), dims=5)

    def test_a_named_backend_never_falls_back(self, monkeypatch):
        q = vf.DiagonalGaussian(torch.zeros(2, 4, requires_grad=True), backend="missing")
        for call in (q.sample, q.kl, q.rsample_kl, lambda: q.nll(q.mean)):
            with pytest.raises(ValueError, match="unknown backend 'missing'"):
                call()

    def test_empty(self):
        moments = torch.zeros(0, 4, 3, requires_grad=True)
        z, kl = vf.DiagonalGaussian(moments).rsample_kl()
        assert z.shape == (0, 2, 3) and kl.shape == (0,)
        with pytest.raises(ValueError, match="0 generators for 0 data"):
            vf.DiagonalGaussian(moments).sample([])
        assert torch.autograd.grad(z.sum() + kl.sum(), moments)[0].shape == moments.shape

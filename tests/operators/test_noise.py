"""The noise: the bits it is frozen to, its error, its addressing, and its statistics."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

import vae_fast as vf
from helpers.raw_calls import served
from vae_fast import noise

WORD = 0xFFFFFFFF


def normals(shape, seed, offset=0, sample_shape=(), first_sample=0):
    return noise.normals(sample_shape, shape, seed, None, offset, first_sample, "cpu")


def bits(z):
    return z.contiguous().view(torch.int32)


def digest(z):
    return hashlib.sha256(bits(z).numpy().astype("<i4").tobytes()).hexdigest()


class TestFrozen:
    """These values may change only with a major version: results published with a seed depend on them."""

    @pytest.mark.parametrize(
        ("counter", "key", "output"),
        [
            ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
            ((WORD,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
            (
                (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                0x299F31D0A4093822,
                (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
            ),
        ],
    )
    def test_philox_known_answers(self, counter, key, output):
        """The published test vectors of Philox4x32-10."""
        words = [torch.tensor([c]) for c in counter]
        assert [int(w) for w in noise.philox4x32(words, key)] == list(output)

    @pytest.mark.parametrize(
        ("seed", "offset", "sample", "golden"),
        [
            (0, 0, 0, "bfa16c49 3efe6d7d 3e828296 bf3da835 bdcc040d be5c86da bf595b5c bdcb8f14"),
            (0x123456789ABCDEF, 2**32 - 3, 7, "be5bad33 c00ee905 be86edc3 bfb2b9ba "
             "3f3a5bc2 bf223745 bed9c2b7 3e344bae"),
            (-1, 2**63 - 2, 2**32 + 5, "beb3bfd9 3fde2046 bf2f1374 bcafb7f2 be9bca0f 3ec12e77 bf7c1e97 bf5b3dba"),
        ],
    )  # fmt: skip
    def test_golden_bits(self, seed, offset, sample, golden):
        place = {"offset": offset, "sample": sample % 2**32, "stream": sample // 2**32}
        z = vf.standard_normal((8,), seed=seed, **place, dtype=torch.float32)
        assert " ".join(f"{v & WORD:08x}" for v in bits(z).tolist()) == golden

    def test_golden_digests(self):
        assert digest(normals((2**20,), 42)) == "63ba516cd54c0d304377b9106270b274078d61c8992a4e59d6652da6009003a6"
        assert (
            digest(normals((2**18 + 1,), 2**40 + 1, offset=5, sample_shape=(3,), first_sample=9))
            == "3ab04e2567370225b9cde6a6771c6f703719db38a4f3696e4954b1c3761d310a"
        )

    def test_golden_ends(self):
        """The words at which the logarithm and the angle begin and end."""
        words = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
        radii = [1087926343, 1087581516, 1066841439, 1066841439, 931135488]
        assert bits(noise.radius(words)).tolist() == radii
        cos, sin = noise.cos_sin(words)
        assert bits(cos).tolist() == [1065353215, 1065353215, 864026624, 864026624, 1065353215]
        assert bits(sin).tolist() == [801705947, 815188964, 1065353216, -1082130432, -1345777701]


def exact(x, y):
    """r, r cos θ and r sin θ in float64, whose error is below 1e-14; the latter with the sign by y's last bit."""
    x, y = ((w - (w >> 31 << 32)).numpy() for w in (x, y))
    q = (x + 0.5) * 2.0**-32
    with np.errstate(invalid="ignore"):
        r = np.sqrt(-2.0 * np.where(q > 0, np.log(q), np.log1p(q)))
    # Near either end from there, so that the argument of the sine is as good as exact.
    rest = math.pi * ((2.0**31 - np.abs(y + 0.5)) * 2.0**-32)
    angle = math.pi * ((y + 0.5) * 2.0**-32)
    sign = 1 - 2 * (y & 1)
    return r, sign * r * np.where(rest < 1, np.sin(rest), np.cos(angle)), sign * r * np.sin(angle)


def words(n):
    """Words of every size: uniform, and close to the ends and to every power of two from either end."""
    near = torch.cat([torch.arange(-512, 512) + 2**k for k in range(10, 33)])
    ends = torch.cat([near, WORD - near, torch.arange(4096)])
    return torch.cat([ends[(ends >= 0) & (ends <= WORD)], torch.randint(0, 2**32, (n,))])


class TestAccuracy:
    def test_within_its_bound_of_the_exact_normal(self):
        x = words(1 << 20)
        y = words(1 << 20)[torch.randperm(len(x))]
        r, z0, z1 = exact(x, y)
        radius, sign = noise.radius(x), 1 - 2 * (y & 1)
        cos, sin = noise.cos_sin(y)
        bound = 3.5e-7 * np.maximum(1.0, r)
        for ours, truth in ((radius, r), (sign * radius * cos, z0), (sign * radius * sin, z1)):
            assert (np.abs(ours.double().numpy() - truth) <= bound).all()

    def test_counters_make_such_normals(self):
        counter = torch.arange(1000)
        zero = torch.zeros_like(counter)
        four = [w for w in noise.philox4x32((counter, zero, zero + 3, zero), 5)]
        z = normals((4000,), 5, sample_shape=(1,), first_sample=3).double().view(-1, 4).numpy()
        for lane in (0, 2):
            r, *pair = exact(*four[lane : lane + 2])
            for k in range(2):
                assert (np.abs(z[:, lane + k] - pair[k]) <= 3.5e-7 * np.maximum(1.0, r)).all()

    def test_largest_value(self):
        extreme = noise.radius(torch.tensor([0])).item()
        assert 6.7637 < extreme < 6.7638
        assert extreme == pytest.approx(math.sqrt(2 * 33 * math.log(2)), rel=1e-6)

    def test_no_subnormals(self):
        """Flush-to-zero changes nothing, and no normal is 0, NaN or infinite."""
        z = normals((1 << 16,), 3)
        assert bool((z.abs() > torch.finfo(torch.float32).tiny).all()) and bool(z.isfinite().all())
        if torch.set_flush_denormal(True):
            try:
                assert torch.equal(bits(normals((1 << 16,), 3)), bits(z))
            finally:
                torch.set_flush_denormal(False)


class TestAddressing:
    @pytest.mark.parametrize("start", [0, 2**31 - 8, 2**32 - 8, 2**34 - 8, 2**63 - 8, 2**64 - 8, -8])
    def test_offsets_and_lengths(self, start):
        """Every offset mod 4 and length 0 to 9 is a window of the same sequence, across every boundary."""
        whole = normals((32,), 11, offset=start)
        for shift in range(9):
            for length in range(10):
                part = vf.standard_normal((length,), seed=11, offset=start + shift, dtype=torch.float32)
                assert torch.equal(part, whole[shift : shift + length])

    def test_a_shape_is_its_elements_in_c_order(self):
        assert torch.equal(normals((3, 5, 7), 1), normals((105,), 1).view(3, 5, 7))

    @pytest.mark.parametrize("first", [0, 2**32 - 2, 2**63 - 2, 2**64 - 2])
    def test_samples(self, first):
        whole = normals((7,), 5, offset=3, sample_shape=(2, 3), first_sample=first).reshape(6, 7)
        for k in range(6):
            number = (first + k + 2**63) % 2**64 - 2**63
            place = {"sample_shape": (), "shape": (7,), "seed": 5, "offset": 3, "first_sample": number}
            device = torch.get_default_device()
            assert torch.equal(whole[k], served("standard_normal_fwd", **place, dtype=torch.float32, device=device))
        assert len({digest(row) for row in whole}) == 6

    def test_blocks_leave_no_seam(self, monkeypatch):
        whole = normals((1000,), 5, offset=2, sample_shape=(9,))
        for block in (7, 64, 255, 10**6):
            monkeypatch.setattr(noise, "_BLOCK", block)
            assert torch.equal(normals((1000,), 5, offset=2, sample_shape=(9,)), whole)

    def test_seed_tensor_is_the_int(self):
        for seed in (0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF):
            tensor = torch.tensor([seed])
            assert torch.equal(noise.normals((), (9,), 0, tensor, 1, 2, "cpu"), normals((9,), seed, 1, (), 2))

    def test_dtypes(self):
        z = vf.standard_normal((1000,), seed=1, dtype=torch.float32)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            assert torch.equal(vf.standard_normal((1000,), seed=1, dtype=dtype), z.to(dtype))

    def test_empty(self):
        assert vf.standard_normal((0, 3), seed=1).shape == (0, 3)
        assert normals((3,), 1, sample_shape=(0,)).shape == (0, 3)


# Chance that one such check fails for a perfect generator; the seeds are fixed, so it was drawn once.
FAILURE_RATE = 1e-8
SIGMAS = stats.norm.isf(FAILURE_RATE / 2)


def check_moments(name, values, mean, std):
    """The mean of many values against its expectation, by its standard error."""
    score = (float(values.mean()) - mean) / (std / math.sqrt(values.numel()))
    assert abs(score) < SIGMAS, f"{name}: {score:.2f} standard errors off"


def check_pairs(name, a, b):
    """Correlations of two sequences, of their squares, and a χ² of their joint quantiles on 16 × 16 cells."""
    a, b = a.double(), b.double()
    check_moments(f"{name}: product", a * b, 0.0, 1.0)
    check_moments(f"{name}: product of squares", (a * a - 1) * (b * b - 1) / 2, 0.0, 1.0)
    edges = torch.tensor(stats.norm.ppf(np.arange(1, 16) / 16))
    cell = torch.bucketize(a, edges) * 16 + torch.bucketize(b, edges)
    counts = torch.bincount(cell, minlength=256).numpy()
    p = stats.chisquare(counts).pvalue
    assert p > FAILURE_RATE, f"{name}: χ² p-value {p:.3g}"


def check_distribution(z):
    """Mean, variance, skewness, kurtosis, and a χ² over bins that reach into both tails."""
    z = z.double()
    check_moments("mean", z, 0.0, 1.0)
    check_moments("variance", z * z, 1.0, math.sqrt(2))
    check_moments("skewness", z**3, 0.0, math.sqrt(15))
    check_moments("kurtosis", z**4, 3.0, math.sqrt(96))
    edges = np.concatenate([-np.arange(5.0, 3.0, -0.25), np.arange(-3.0, 3.01, 0.1), np.arange(3.25, 5.01, 0.25)])
    # A tail bin that expects fewer than 40 would not be χ²: leave out the edges beyond.
    edges = edges[stats.norm.sf(np.abs(edges)) * z.numel() >= 40]
    expected = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]))) * z.numel()
    counts = torch.bincount(torch.bucketize(z, torch.tensor(edges)), minlength=len(edges) + 1).numpy()
    p = stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue
    assert p > FAILURE_RATE, f"bins: χ² p-value {p:.3g}"


def check_independent(name, a, b, cells):
    """A χ² of pairs of cells, of [0, cells[0]) and [0, cells[1]), against all of them being as likely."""
    counts = torch.bincount(a * cells[1] + b, minlength=cells[0] * cells[1]).numpy()
    p = stats.chisquare(counts).pvalue
    assert p > FAILURE_RATE, f"{name}: χ² p-value {p:.3g}"


def check_polar(name, first, second, *others):
    """A pair's sign, which is its angle's last bit too, beside its angle, its radius, and the signs of ``others``.

    The cosine is positive: the first one's sign is the sign, and what is left is uniform: the angle on half a turn,
    and exp(−r²/2) on (0, 1).
    """
    a, b = first.double(), second.double()
    sign = (a < 0).long()
    angle = (torch.atan(b / a) / math.pi + 0.5).mul(64).long().clamp(max=63)
    radius = torch.exp(-(a * a + b * b) / 2).mul(64).long().clamp(max=63)
    check_moments(f"{name}: sign", 2.0 * sign - 1, 0.0, 1.0)
    check_independent(f"{name}: sign and angle", sign, angle, (2, 64))
    check_independent(f"{name}: sign and radius", sign, radius, (2, 64))
    check_independent(f"{name}: angle and radius", angle, radius, (64, 64))
    check_independent(f"{name}: sign and the sign of the pair's second", sign, (b < 0).long(), (2, 2))
    for k, other in enumerate(others):
        check_independent(f"{name}: sign and sign {k}", sign, (other < 0).long(), (2, 2))


def check_all(n_blocks, block, offset):
    """Over n_blocks · block normals: the distribution; lanes, counters, seeds and samples as neighbours.

    5 checks of the distribution, 3 each of 7 pairs of sequences, 13 of two pairs' signs, angles and radii: 39, each
    of which fails a perfect generator with FAILURE_RATE.
    """
    for i in range(n_blocks):
        z = normals((block,), 2026, offset=offset + i * block)
        check_distribution(z)
        lanes = z.view(-1, 4)
        for a in range(3):
            check_pairs(f"lanes {a} and {a + 1}", lanes[:, a], lanes[:, a + 1])
        check_pairs("lanes 0 and 3", lanes[:, 0], lanes[:, 3])
        check_polar("lanes 0 and 1", lanes[:, 0], lanes[:, 1], lanes[:, 2])
        check_polar("lanes 2 and 3", lanes[:-1, 2], lanes[:-1, 3], lanes[1:, 0], lanes[1:, 2])
        check_pairs("neighbouring counters", lanes[:-1].flatten(), lanes[1:].flatten())
        check_pairs("neighbouring seeds", z, normals((block,), 2027, offset=offset + i * block))
        nearby = normals((block,), 2026, offset=offset + i * block, sample_shape=(1,), first_sample=1)
        check_pairs("neighbouring samples", z, nearby.flatten())


class TestStatistics:
    def test_a_million(self):
        check_all(1, 1 << 20, 0)

    @pytest.mark.slow
    def test_a_hundred_million(self):
        """Ten blocks of 10⁷, each checked: 390 checks of failure rate 1e-8 each, 4e-6 in all."""
        check_all(10, 10**7, 0)

    @pytest.mark.slow
    def test_a_hundred_million_pooled(self):
        check_distribution(torch.cat([normals((10**7,), 77, offset=i * 10**7) for i in range(10)]))

    def test_the_checks_can_fail(self):
        z = normals((1 << 20,), 1)
        with pytest.raises(AssertionError, match="mean"):
            check_distribution(z + 0.01)
        with pytest.raises(AssertionError, match="variance"):
            check_distribution(z * 1.01)
        with pytest.raises(AssertionError, match="bins"):
            check_distribution(torch.where(z.abs() > 3.4, 3.4 * z.sign(), z))
        with pytest.raises(AssertionError, match="product:"):
            check_pairs("correlated", z, 0.1 * z + 0.99**0.5 * normals((1 << 20,), 2))
        with pytest.raises(AssertionError, match="product of squares"):
            check_pairs("dependent", z, z.abs() * normals((1 << 20,), 2).sign())
        a, b = z.view(2, -1)
        with pytest.raises(AssertionError, match="sign and angle"):
            check_polar("turned", torch.where(b.abs() > 2, a.abs() * b.sign(), a), b)
        with pytest.raises(AssertionError, match="angle and radius"):
            # Of some, small ones to one side of the half turn, large ones to the other.
            away = torch.where(a * a + b * b < 2 * math.log(2), 1.0, -1.0)
            check_polar("sorted", a, torch.where(normals((1 << 19,), 3) > 1, away * b.abs() * a.sign(), b))
        with pytest.raises(AssertionError, match="sign and sign 0"):
            check_polar("alike", a, b, torch.where(normals((1 << 19,), 3) > 2, a, normals((1 << 19,), 4)))

"""The noise of csrc word by word: the bits of noise.py on every instruction set, and the error's bound.

With -m large over all 2³² words of either kind, in tens of minutes: to be run again whenever a coefficient changes.
That is where the two ways of a fused multiply-add, by an instruction and by float64, are shown to give the same
bits.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from instruction_sets import SETS, compiled, needed

from vae_fast import noise

pytestmark = needed
# As csrc/noise.h has them: of a normal over max(1, r), of r over max(1, r), of cos θ and sin θ.
BOUND, RADIUS, ANGLE = 3.5e-7, 1.5e-7, 1.8e-7
# The radius's error that leaves the angle's alone: it takes the product's rounding away.
NO_RADIUS = -(2.0**-24)
BLOCK = 1 << 20


class Library:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def __call__(self, name, *arguments):
        as_c = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        getattr(self.library, name)(*as_c)

    def radius(self, words):
        r = np.empty(len(words), np.float32)
        self("noise_radius", words, r, ctypes.c_int64(len(words)))
        return r

    def cos_sin(self, words):
        cos, sin = np.empty(len(words), np.float32), np.empty(len(words), np.float32)
        self("noise_cos_sin", words, cos, sin, ctypes.c_int64(len(words)))
        return cos, sin

    def radius_error(self, words, r):
        worst = np.empty(3)
        self("noise_radius_error", words, r, ctypes.c_int64(len(words)), worst)
        return worst

    def angle_error(self, words, cos, sin, of_radius):
        worst = np.empty(3)
        self("noise_angle_error", words, cos, sin, ctypes.c_int64(len(words)), ctypes.c_double(of_radius), worst)
        return worst


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    return {isa: Library(compiled("noise", isa, folder)) for isa in SETS}


def block(first, n=BLOCK):
    """Words from ``first`` on, modulo 2³²."""
    return (np.arange(first, first + n, dtype=np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def same(a, b):
    return np.array_equal(a.view(np.int32), b.view(np.int32))


def check_sets(libraries, words):
    """All sets' bits, which are those of the first."""
    first, *others = libraries.values()
    r, (cos, sin) = first.radius(words), first.cos_sin(words)
    for other in others:
        assert same(r, other.radius(words)), words[0]
        assert all(map(same, (cos, sin), other.cos_sin(words))), words[0]
    return r, cos, sin


def check_definition(words, r, cos, sin):
    """noise.py's own."""
    as_words = torch.from_numpy(words.view(np.uint32).astype(np.int64))
    assert same(r, noise.radius(as_words).numpy())
    assert all(map(same, (cos, sin), (t.numpy() for t in noise.cos_sin(as_words))))


# Around every power of two from either end of the words, taken with a sign or without.
ENDS = sorted({sign * 2**k for k in range(33) for sign in (1, -1)} | {0})


def test_bits(libraries):
    words = np.concatenate([block(end - 512, 1024) for end in ENDS])
    random = np.random.default_rng(0).integers(-(2**31), 2**31, BLOCK, dtype=np.int32)
    for some in (words, random):
        r, cos, sin = check_sets(libraries, some)
        check_definition(some, r, cos, sin)
        for library in libraries.values():
            one = [np.empty(len(some), np.float32) for _ in range(3)]
            library("noise_one_by_one", some, *one, ctypes.c_int64(len(some)))
            assert all(map(same, one, (r, cos, sin)))


def test_bound(libraries):
    library = next(iter(libraries.values()))
    words = np.concatenate([block(end - 512, 1024) for end in ENDS])
    worst = library.radius_error(words, library.radius(words))
    assert worst[0] <= RADIUS and worst[2] == np.float32(noise.radius(torch.tensor([0])).item())
    assert library.angle_error(words, *library.cos_sin(words), worst[0])[0] <= BOUND
    assert library.angle_error(words, *library.cos_sin(words), NO_RADIUS)[0] <= ANGLE


def test_a_wrong_bit_is_seen(libraries):
    """The checks can fail: a coefficient's last bit changes the bits, and a larger change breaks the bound."""
    library = next(iter(libraries.values()))
    words = block(12345)
    r = library.radius(words)
    assert not same(r, np.nextafter(r, np.float32(0)))
    assert library.radius_error(words, r * np.float32(1 + 4e-7))[0] > BOUND
    cos, sin = library.cos_sin(words)
    assert library.angle_error(words, cos + np.float32(4e-7), sin, 0.0)[0] > BOUND


@pytest.mark.large
@pytest.mark.timeout(3600)
class TestEveryWord:
    def over_all(self, function):
        """``function`` of every block of words, its results stacked; every C call lets other threads run."""
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(lambda k: function(block(k * BLOCK)), range(2**32 // BLOCK))))

    def test_fused_by_an_instruction_or_by_float64(self, libraries):
        if len(libraries) == 1:
            pytest.skip("this processor has one of the two ways only")

        def differ(words):
            check_sets(libraries, words)
            return 0

        self.over_all(differ)

    def test_definition(self, libraries):
        """One word in sixteen, in runs of 2¹⁶."""
        library = next(iter(libraries.values()))
        for k in range(2**32 // BLOCK):
            words = block(k * BLOCK + k % 16 * (BLOCK // 16), BLOCK // 16)
            check_definition(words, library.radius(words), *library.cos_sin(words))

    def test_bound(self, libraries):
        """For every pair of words: of the radius's error and the angle's together."""
        library = list(libraries.values())[-1]
        radii = self.over_all(lambda words: library.radius_error(words, library.radius(words)))
        of_radius, smallest, largest = radii[:, 0].max(), radii[:, 1].min(), radii[:, 2].max()
        angles = self.over_all(lambda words: library.angle_error(words, *library.cos_sin(words), of_radius))
        alone = self.over_all(lambda words: library.angle_error(words, *library.cos_sin(words), NO_RADIUS))
        print(f"radius within {of_radius:.3g}, normals within {angles[:, 0].max():.3g}, |ε| <= {largest:.6f}")
        assert angles[:, 0].max() <= BOUND and of_radius <= RADIUS and alone[:, 0].max() <= ANGLE
        # Nothing is 0, subnormal or infinite.
        assert smallest >= 2.0**-17 and angles[:, 1:].min() > 2.0**-33 and largest < 6.7638

"""The noise ε in Triton: the integers and the float32 operations of vae_fast/noise.py, in its order, so with its
bits.

Every +, −, × and √ is rounded once: the kernels are compiled without contraction, and √ is ``sqrt_rn``.
"""

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, key):
    """Philox4x32-10 (Salmon et al. 2011) of a counter of four uint32 words under a 64-bit key."""
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        m0 = tl.full(c0.shape, 0xD2511F53, tl.uint32)
        m1 = tl.full(c0.shape, 0xCD9E8D57, tl.uint32)
        high0, low0 = tl.umulhi(c0, m0), c0 * m0
        high1, low1 = tl.umulhi(c2, m1), c2 * m1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += tl.full((), 0x9E3779B9, tl.uint32)
        k1 += tl.full((), 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def _radius(x):
    """sqrt(−2 ln((x + ½) 2⁻³²)) of 32-bit words in int32."""
    # x < 0: the word is in the upper half. ~x is its distance from the top, so both ends of (0, 1) keep their
    # digits.
    upper = x < 0
    q = (tl.where(upper, ~x, x).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    fraction = tl.where(upper, 1.0 - q, q)
    # fraction = 2ᵏ·mantissa, the mantissa between √½ and √2; k·2²³ is the difference of their bits.
    bits = fraction.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) & -0x800000
    mantissa = (bits - exponent).to(tl.float32, bitcast=True)
    t = tl.where(exponent == 0, -q, mantissa - 1.0)
    tail = t * -0.17400802671909332 + 0.2853386402130127
    tail = tail * t + -0.2982901632785797
    tail = tail * t + 0.33155304193496704
    tail = tail * t + -0.399262011051178
    tail = tail * t + 0.5000267028808594
    tail = tail * t + -0.6666781902313232
    inner = t * (t * tail + 1.0) - 2.0
    # −2⁻²³·2 ln 2.
    return tl.sqrt_rn(exponent.to(tl.float32) * -1.6525916635146132e-07 + t * inner)


@triton.jit
def _change_sign(a, sign):
    """a, or −a where ``sign`` is negative."""
    return (a.to(tl.int32, bitcast=True) ^ (sign & -0x80000000)).to(tl.float32, bitcast=True)


@triton.jit
def _cos_sin(x):
    """cos and sin of 2π (x + ½) 2⁻³² of 32-bit words in int32."""
    # The two upper bits of x + 2²⁹ are the quarter, the others the angle in it.
    turned = x + 0x20000000
    w = (((turned & 0x3FFFFFFF) - 0x20000000).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    u = w * w
    s = u * -76.82975769042969 + 81.62667083740234
    s = s * u + -41.34186935424805
    s = w * (s * u + 6.2831854820251465)
    c = u * -83.67292785644531 + 64.92339324951172
    c = u * (c * u + -19.739168167114258) + 1.0
    odd = (turned & 0x40000000) != 0
    # Negative: the cosine in quarters 1 and 2, the sine in 2 and 3.
    return _change_sign(tl.where(odd, s, c), turned + 0x40000000), _change_sign(tl.where(odd, c, s), turned)


@triton.jit
def _pair(x0, x1):
    r = _radius(x0.to(tl.int32, bitcast=True))
    cos, sin = _cos_sin(x1.to(tl.int32, bitcast=True))
    return r * cos, r * sin


@triton.jit
def _four(counter, sample, key):
    """The four normals of each counter."""
    zero = counter * 0
    x0, x1, x2, x3 = philox4x32(
        counter.to(tl.uint32),
        ((counter >> 32) & 0x3FFFFFFF).to(tl.uint32),
        (zero + sample).to(tl.uint32),
        ((zero + sample) >> 32).to(tl.uint32),
        key,
    )
    z0, z1 = _pair(x0, x1)
    z2, z3 = _pair(x2, x3)
    return z0, z1, z2, z3


@triton.jit
def normals(index, sample, key, BLOCK: tl.constexpr, LANES: tl.constexpr):
    """Normals [rows, BLOCK] of a sample, from lane 0 of ``index``'s [rows, 1] counter on. All three hold 64 bits.

    A thread gets LANES neighbouring ones, 4 or 8: as many as one access takes of the dtype they go with.
    """
    each: tl.constexpr = LANES // 4
    counter = (index >> 2) + tl.arange(0, BLOCK // LANES)[None, :] * each
    z0, z1, z2, z3 = _four(counter, sample, key)
    if LANES == 4:
        lanes = tl.join(tl.join(z0, z2), tl.join(z1, z3))
    else:
        z4, z5, z6, z7 = _four(counter + 1, sample, key)
        even = tl.join(tl.join(z0, z4), tl.join(z2, z6))
        lanes = tl.join(even, tl.join(tl.join(z1, z5), tl.join(z3, z7)))
    return tl.reshape(lanes, (index.shape[0], BLOCK))

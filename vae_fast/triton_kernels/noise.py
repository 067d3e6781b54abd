"""The noise ε in Triton: the integers and the float32 operations of vae_fast/noise.py, in its order, so with its
bits.

Every +, −, ×, fma and √ is rounded once: the kernels are compiled without contraction, and fused where ``fused``
says so.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import fused
from vae_fast.triton_kernels.interpreter import IS_PTX

# What one counter gives, 2² normals: for launchers, and for kernels.
NORMALS = 4
NORMALS_OF_COUNTER = tl.constexpr(NORMALS)
LOG_NORMALS = tl.constexpr(2)
_PTX = tl.constexpr(IS_PTX)


@triton.jit
def philox4x32(c0, c1, c2, c3, key):
    """Philox4x32-10 (Salmon et al. 2011) of a counter of four uint32 words under a 64-bit key."""
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        # One product of 64 bits: umulhi and * would be two.
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (p1 >> 32).to(tl.uint32) ^ c1 ^ k0,
            p1.to(tl.uint32),
            (p0 >> 32).to(tl.uint32) ^ c3 ^ k1,
            p0.to(tl.uint32),
        )
        k0 += tl.full((), 0x9E3779B9, tl.uint32)
        k1 += tl.full((), 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def _horner(x, coefficients):
    """Σ c[k]·xᵏ."""
    n: tl.constexpr = len(coefficients)
    value = tl.full((), coefficients[n - 1], tl.float32)
    for k in tl.static_range(1, n):
        value = fused(value, x, tl.full((), coefficients[n - 1 - k], tl.float32))
    return value


@triton.jit
def _root(a):
    """√a, correctly rounded, of an ordinary number: what it compiles to, less the question whether it is one."""
    if _PTX:
        y = tl.inline_asm_elementwise("rsqrt.approx.ftz.f32 $0, $1;", "=f,f", [a], tl.float32, is_pure=True, pack=1)
        g, half = a * y, y * 0.5
        return tl.fma(tl.fma(-g, g, a), half, g)
    else:
        return tl.sqrt_rn(a)


@triton.jit
def _signed_unit(x):
    """(x + ½) 2⁻³² of words in int32: in (−½, ½)."""
    # 2⁻³² and 2⁻³³.
    return fused(
        x.to(tl.float32),
        tl.full((), 2.3283064365386963e-10, tl.float32),
        tl.full((), 1.1641532182693481e-10, tl.float32),
    )


@triton.jit
def radius(x):
    """r of words in int32."""
    q = _signed_unit(x)
    lower = q >= 0.0
    # Below ½, u = q = 2ᵏ·mantissa, the mantissa in [½, 1); from ½ on u is 1 + q, and k = 0. k is the exponent's
    # field, as the last bits of 2²³, less what it has for 1.
    bits = q.to(tl.int32, bitcast=True)
    k = ((bits >> 23) + 0x4B000000).to(tl.float32, bitcast=True) - 8388734.0
    mantissa = ((bits & 0x007FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    t = tl.where(lower, mantissa - 1.0, q)
    square = t * _horner(
        t,
        (
            -2.0,
            0.99999022483825684,
            -0.66727113723754883,
            0.48728305101394653,
            -0.52785891294479370,
            -0.36338910460472107,
            -2.4199140071868896,
            -3.2812252044677734,
            -2.8297011852264404,
        ),
    )
    # −2 ln 2.
    less = fused(k, tl.full((), -1.3862943649291992, tl.float32), square)
    return _root(tl.where(lower, less, square))


@triton.jit
def cos_sin(y):
    """cos θ and sin θ of words in int32."""
    w = _signed_unit(y)
    u = w * w
    cos = _horner(
        u, (0.99999994039535522, -4.9347920417785645, 4.0583992004394531, -1.3318091630935669, 0.21956668794155121)
    )
    sin = _horner(
        u, (3.1415927410125732, -5.1677150726318359, 2.5501449108123779, -0.59863293170928955, 0.078240960836410522)
    )
    return cos, w * sin


@triton.jit
def _pair(x, y):
    x, y = x.to(tl.int32, bitcast=True), y.to(tl.int32, bitcast=True)
    cos, sin = cos_sin(y)
    # The last bit of y is r's sign.
    r = (radius(x).to(tl.int32, bitcast=True) + (y << 31)).to(tl.float32, bitcast=True)
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

    A thread gets LANES neighbouring ones, of one counter or of two: as many as one access takes of the dtype they
    go with.
    """
    each: tl.constexpr = LANES // NORMALS_OF_COUNTER
    counter = (index >> LOG_NORMALS) + tl.arange(0, BLOCK // LANES)[None, :] * each
    z0, z1, z2, z3 = _four(counter, sample, key)
    if LANES == NORMALS_OF_COUNTER:
        lanes = tl.join(tl.join(z0, z2), tl.join(z1, z3))
    else:
        z4, z5, z6, z7 = _four(counter + 1, sample, key)
        even = tl.join(tl.join(z0, z4), tl.join(z2, z6))
        lanes = tl.join(even, tl.join(tl.join(z1, z5), tl.join(z3, z7)))
    return tl.reshape(lanes, (index.shape[0], BLOCK))

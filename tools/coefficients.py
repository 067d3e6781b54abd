"""Every polynomial of the formulas and of the noise: coefficients made anew, errors, and what the sources have.

    python tools/coefficients.py            a table; exit status 1 where a source has other coefficients
    python tools/coefficients.py exp32 cos  the coefficients of these

Needs mpmath alone. A polynomial is made in one of three ways:

minimax     Remez's exchange on a grid, of the unweighted error, in 40 digits; each coefficient rounded to nearest.
in turn     From the constant term on, a coefficient is rounded and those after it are fitted again to what is left,
            by least squares in Chebyshev's measure: so they make up for its rounding.
certified   Handed down: no algorithm here gives these bits. vae_fast/noise.py is the definition; the error is
            measured, and stands beside the least that a polynomial of this degree can have.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mpmath

mp = mpmath.mp.clone()
mp.dps = 40

ROOT = Path(__file__).resolve().parent.parent
FLOAT32, FLOAT64 = 24, 53
# Intervals of the grid for each unknown of the exchange. Another number moves the extrema found, and so last bits.
DENSITY = 40

Real = mpmath.mpf
Function = Callable[[Real], Real]


def rounded(x: Real | str, digits: int) -> Real:
    """To so many binary digits, ties to even; no number here is near the ends of its format."""
    with mp.workprec(digits):
        return +mp.mpf(x)


def evaluate(coefficients: Sequence[Real], x: Real) -> Real:
    return mp.polyval(list(reversed(coefficients)), x)


def chebyshev_grid(low: Real, high: Real, intervals: int) -> list[Real]:
    """The extrema of a Chebyshev polynomial of degree ``intervals``, ends included."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * k / intervals) for k in range(intervals + 1)]


def minimax(
    function: Function, low: Real, high: Real, count: int, weight: Function = lambda x: mp.one
) -> tuple[list[Real], Real]:
    """The ``count`` coefficients with the least largest |weight·error| on a grid, and that error (Remez)."""
    size = count + 1
    grid = [x for x in chebyshev_grid(low, high, DENSITY * size) if weight(x) != 0]
    values, weights = [function(x) for x in grid], [weight(x) for x in grid]
    at = [round(k * (len(grid) - 1) / count) for k in range(size)]
    while True:
        # Errors of one size ±E/weight, of alternating sign, at the reference points.
        rows = [[*(grid[i] ** k for k in range(count)), (-1) ** n / weights[i]] for n, i in enumerate(at)]
        *coefficients, error = mp.lu_solve(mp.matrix(rows), mp.matrix([values[i] for i in at]))
        errors = [w * (evaluate(coefficients, x) - v) for x, v, w in zip(grid, values, weights, strict=True)]
        # The largest error of each sign in turn is the next reference.
        extrema: list[int] = []
        for i, e in enumerate(errors):
            if not extrema or (e > 0) != (errors[extrema[-1]] > 0):
                extrema.append(i)
            elif abs(e) > abs(errors[extrema[-1]]):
                extrema[-1] = i
        while len(extrema) > size:
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        if extrema == at:
            return coefficients, abs(error)
        at = extrema


def in_turn(function: Function, low: Real, high: Real, count: int, digits: int) -> list[Real]:
    """Coefficients rounded one after the other, the rest fitted again to what is left."""
    nodes = 2 * count
    points = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * nodes)) for k in range(nodes)]
    left = [function(x) for x in points]
    fixed: list[Real] = []
    for first in range(count):
        rows = mp.matrix([[x**k for k in range(first, count)] for x in points])
        fixed.append(rounded(mp.lu_solve(rows, mp.matrix(left))[0], digits))
        left = [v - fixed[-1] * x**first for v, x in zip(left, points, strict=True)]
    return fixed


# ---- what stands in the sources


@dataclass(frozen=True)
class Place:
    """The nth polynomial in a function of a file, or in a constant. ``first``: c[0] stands apart, by that name."""

    path: str
    name: str
    nth: int = 0
    first: bool = False

    def numbers(self) -> list[str]:
        text = (ROOT / self.path).read_text("utf-8")
        start = re.search(rf"^(VF_INLINE .*\b|def ){self.name}\(|^{self.name} = ", text, re.MULTILINE)
        if start is None:
            raise LookupError(f"{self.path} has no {self.name}")
        body = re.split(r"\n\n(?=\S)", text[start.start() :], maxsplit=1)[0]
        number = r"-?\d+\.\d+(?:e-?\d+)?f?"
        run = re.findall(rf"(?:{number},\s*){{3,}}{number}", body)[self.nth].split(",")
        c0 = re.findall(rf"\bfirst = [^-\d]*[^-\d\w]({number})", body) if self.first else []
        return [c.strip().removesuffix("f") for c in (*c0, *run)]


# ---- the polynomials


@dataclass(frozen=True)
class Polynomial:
    """p of ``count`` coefficients near ``function`` on [low, high], its error in units of 1/weight."""

    name: str
    way: str
    digits: int
    function: Function
    low: Real
    high: Real
    count: int
    places: tuple[Place, ...]
    weight: Function = lambda x: mp.one

    def coefficients(self) -> list[Real]:
        if self.way == "minimax":
            exact = minimax(self.function, self.low, self.high, self.count)[0]
            return [rounded(c, self.digits) for c in exact]
        if self.way == "in turn":
            return in_turn(self.function, self.low, self.high, self.count, self.digits)
        return self.in_source(self.places[0])

    def in_source(self, place: Place) -> list[Real]:
        """As the code rounds what stands there."""
        return [rounded(c, self.digits) for c in place.numbers()]

    def least_error(self) -> Real:
        return minimax(self.function, self.low, self.high, self.count, self.weight)[1]

    def error(self, coefficients: Sequence[Real]) -> Real:
        grid = chebyshev_grid(self.low, self.high, DENSITY * (self.count + 1))
        return max(abs(self.weight(x) * (evaluate(coefficients, x) - self.function(x))) for x in grid)

    def different(self, coefficients: Sequence[Real]) -> list[str]:
        """The files where others stand."""
        return [place.path for place in self.places if self.in_source(place) != coefficients]


def exp_rest(r: Real) -> Real:
    """(e^r − 1 − r)/r²."""
    return mp.hyp1f1(1, 3, r) / 2


def exp2_rest(f: Real) -> Real:
    """(2^f − 1)/f."""
    return mp.expm1(f * mp.ln(2)) / f if f else mp.ln(2)


def log1p_rest(u: Real) -> Real:
    """(log(1 + e) − e)/e at e = ½ + u."""
    e = mp.mpf("0.5") + u
    return mp.log1p(e) / e - 1 if e else mp.zero


def log1p_over(u: Real) -> Real:
    """log(1 + e)/e at e = ½ + u."""
    return 1 + log1p_rest(u)


def half_exp_rest(x: Real) -> Real:
    """½(e^x − 1 − x)/x²."""
    return exp_rest(x) / 2


def log1p_cubic(f: Real) -> Real:
    """(log(1 + f) − f + ½f²)/f³."""
    return mp.hyp2f1(1, 3, 4, -f) / 3


def artanh_cubic(s: Real) -> Real:
    """(artanh(t)/t − 1)/t² at t = √s."""
    return mp.hyp2f1(1, mp.mpf("1.5"), mp.mpf("2.5"), s) / 3


def half_expm1_minus(x: Real) -> Real:
    """½(e^x − 1 − x)/x²."""
    return exp_rest(x) / 2


def log_sinhc(q: Real) -> Real:
    """log(sinh h/h)/h² at h = √q."""
    h = mp.sqrt(q)
    return mp.log(mp.sinh(h) / h) / q if q else mp.one / 6


def log_sinhc_slope(q: Real) -> Real:
    """The derivative of log(sinh h/h) by h², at h = √q."""
    h = mp.sqrt(q)
    return (h * mp.coth(h) - 1) / (2 * q) if q else mp.one / 6


def square(t: Real) -> Real:
    """−2 ln(1 + t)/t."""
    return -2 * mp.log1p(t) / t if t else mp.mpf(-2)


def sin_half_turns(u: Real) -> Real:
    """sin(π√u)/√u."""
    return mp.pi * mp.sincpi(mp.sqrt(u))


def cos_half_turns(u: Real) -> Real:
    """cos(π√u)."""
    return mp.cospi(mp.sqrt(u))


FORMULAS, COUNTS, CONTINUOUS = (f"csrc/{name}.h" for name in ("formulas", "counts", "continuous_bernoulli"))
EXPONENTIALS, LOGARITHMS, SOFTPLUS, COUNTS_TRITON = (
    f"vae_fast/triton_kernels/{name}.py" for name in ("exponentials", "logarithms", "softplus", "counts")
)
CONTINUOUS_TRITON = "vae_fast/triton_kernels/continuous_bernoulli_log_prob.py"
LEAN, LEAN_TRITON = "csrc/lean.h", "vae_fast/triton_kernels/lean.py"
LIGHT = "csrc/light.h"
NOISE, NOISE_CPP, NOISE_TRITON = "vae_fast/noise.py", "csrc/noise.h", "vae_fast/triton_kernels/noise.py"


def pair(
    name: str, function: Function, low: Real, high: Real, counts: tuple[int, int], *places: Place
) -> list[Polynomial]:
    """A formula's polynomials for float32 and float64, which stand in this order in C++, in the other in Triton."""
    return [
        Polynomial(
            f"{name}{bits}",
            "minimax",
            digits,
            function,
            low,
            high,
            counts[k],
            tuple(replace(place, nth=k if place.path.endswith(".h") else 1 - k) for place in places),
        )
        for k, (bits, digits) in enumerate(((32, FLOAT32), (64, FLOAT64)))
    ]


def of_noise(
    name: str,
    way: str,
    function: Function,
    low: Real,
    count: int,
    weight: Function,
    constant: str,
    place: str,
    nth: int,
) -> Polynomial:
    places = (Place(NOISE, constant), Place(NOISE_CPP, place, nth), Place(NOISE_TRITON, place, nth))
    return Polynomial(name, way, FLOAT32, function, low, low + (_HALF if low else _QUARTER), count, places, weight)


def lean(name: str, function: Function, low: Real, high: Real, count: int, place: str) -> Polynomial:
    """One for float32 alone."""
    places = Place(LEAN, place), Place(LEAN_TRITON, place)
    return Polynomial(name, "in turn", FLOAT32, function, low, high, count, places)


def light(name: str, function: Function, low: Real, high: Real, count: int, place: str) -> Polynomial:
    """One for half types."""
    return Polynomial(name, "in turn", FLOAT32, function, low, high, count, (Place(LIGHT, place),))


_HALF, _QUARTER, _ONE = mp.mpf("0.5"), mp.mpf("0.25"), mp.one
# n is x/ln 2 rounded, so |r| may be a little above ½ ln 2.
_HALF_LN2 = mp.ln(2) / 2 * mp.mpf("1.0001")
_HALF_UP, _SIX_TENTHS, _ELEVEN_16THS = _HALF * mp.mpf("1.0001"), mp.mpf("0.6"), mp.mpf("0.6875")

POLYNOMIALS = [
    *pair(
        *("exp", exp_rest, -_HALF_LN2, _HALF_LN2, (6, 12)),
        *(Place(FORMULAS, "expand"), Place(EXPONENTIALS, "expand")),
    ),
    *pair(
        *("log1p_unit", log1p_rest, -_HALF, _HALF, (10, 23)),
        *(Place(FORMULAS, "log1p_unit_less", first=True), Place(SOFTPLUS, "log1p_unit", first=True)),
    ),
    *pair(
        *("log1p_cubic", log1p_cubic, mp.sqrt(_HALF) - 1, mp.sqrt(2) - 1, (9, 20)),
        *(Place(FORMULAS, "log1p_cubic"), Place(LOGARITHMS, "log1p_cubic")),
    ),
    *pair(
        *("half_expm1_minus", half_expm1_minus, -_ONE, _ONE, (8, 16)),
        *(Place(FORMULAS, "half_expm1_minus_near"), Place(EXPONENTIALS, "_half_expm1_minus_near")),
    ),
    # t² is up to 0.2178, and may be a little above.
    *pair(
        *("artanh_cubic", artanh_cubic, mp.zero, mp.mpf("0.221"), (6, 13)),
        *(Place(COUNTS, "artanh_cubic"), Place(COUNTS_TRITON, "artanh_cubic")),
    ),
    *pair(
        *("log_sinhc", log_sinhc, mp.zero, _ONE, (5, 11)),
        *(Place(CONTINUOUS, "log_sinhc"), Place(CONTINUOUS_TRITON, "log_sinhc")),
    ),
    *pair(
        *("log_sinhc_slope", log_sinhc_slope, mp.zero, _ONE, (6, 12)),
        *(Place(CONTINUOUS, "log_sinhc_slope"), Place(CONTINUOUS_TRITON, "log_sinhc_slope")),
    ),
    lean("exp2_lean", exp2_rest, -_HALF_UP, _HALF_UP, 6, "exp2_near"),
    lean("log1p_lean", lambda e: log1p_rest(e - _HALF), mp.zero, _ONE, 10, "lean_log1p_unit"),
    lean("growth_lean", exp_rest, -_HALF_LN2, _SIX_TENTHS, 6, "lean_growth"),
    light("log1p_light", lambda e: log1p_over(e - _HALF), mp.zero, _ONE, 7, "light_log1p_over"),
    light("growth_light", half_exp_rest, -_ELEVEN_16THS, _ELEVEN_16THS, 5, "light_growth"),
    of_noise("square", "certified", square, -_HALF, 9, lambda t: 1 / square(t), "_LOG", "radius", 0),
    of_noise("sin", "certified", sin_half_turns, mp.zero, 5, lambda u: 1 / sin_half_turns(u), "_SIN", "cos_sin", 1),
    of_noise("cos", "in turn", cos_half_turns, mp.zero, 5, lambda u: mp.one, "_COS", "cos_sin", 0),
]


def main(names: list[str]) -> int:
    wrong = 0
    print(f"{'':30}{'least error':>12}{'as rounded':>12}  sources")
    for p in POLYNOMIALS:
        if names and p.name not in names:
            continue
        coefficients = p.coefficients()
        different = p.different(coefficients)
        wrong += len(different)
        errors = (mp.nstr(e, 3) for e in (p.least_error(), p.error(coefficients)))
        print("{:19}{:11}{:>12}{:>12}  {}".format(p.name, p.way, *errors, ", ".join(different) or "the same"))
        for c in coefficients if names else ():
            print(" ", float(c).hex(), mp.nstr(c, 9 if p.digits == FLOAT32 else 17))
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The coefficients in the sources are those of tools/coefficients.py, with the errors stated beside them."""

import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tools" / "coefficients.py"
if not SOURCE.is_file():
    pytest.skip("needs the source tree: tools is missing", allow_module_level=True)

_spec = importlib.util.spec_from_file_location("coefficients", SOURCE)
coefficients = importlib.util.module_from_spec(_spec)
sys.modules["coefficients"] = coefficients
_spec.loader.exec_module(coefficients)
mp = coefficients.mp

# What the sources say, rounded up: the least error at this degree; of the noise's polynomials that of the numbers.
LEAST = {
    "exp32": "1.4e-9",
    "exp64": "1.7e-20",
    "log1p_unit32": "4.0e-9",
    "log1p_unit64": "2.1e-19",
    "log1p_cubic32": "2.3e-8",
    "log1p_cubic64": "4.4e-17",
    "half_expm1_minus32": "1.1e-9",
    "half_expm1_minus64": "2.5e-21",
    "artanh_cubic32": "8.1e-9",
    "artanh_cubic64": "1.6e-17",
    "log_sinhc32": "2.8e-10",
    "log_sinhc64": "2.8e-20",
    "log_sinhc_slope32": "3.9e-11",
    "log_sinhc_slope64": "7.6e-21",
}
AS_ROUNDED = {
    "exp2_lean": "9.2e-9",
    "log1p_lean": "4.7e-9",
    "growth_lean": "1.1e-8",
    "log1p_light": "1.3e-6",
    "growth_light": "1.1e-6",
    "square": "2.5e-8",
    "sin": "2.8e-8",
    "cos": "6.0e-8",
}


@functools.cache
def made(polynomial):
    return polynomial.coefficients()


each = pytest.mark.parametrize("polynomial", coefficients.POLYNOMIALS, ids=lambda p: p.name)


@each
def test_sources(polynomial):
    assert polynomial.different(made(polynomial)) == []


@each
def test_stated_error(polynomial):
    least, rounded = polynomial.least_error(), polynomial.error(made(polynomial))
    assert least <= rounded
    of_fit = polynomial.name in LEAST
    stated = LEAST[polynomial.name] if of_fit else AS_ROUNDED[polynomial.name]
    _, exponent = stated.split("e")
    assert 0 <= mp.mpf(stated) - (least if of_fit else rounded) < mp.mpf(f"0.1e{exponent}")
    source = (ROOT / polynomial.places[0].path).read_text("utf-8")
    assert re.search(rf"\bto {re.escape(stated.replace('.0e', 'e'))}\b", source, re.IGNORECASE)


def test_more_digits_give_the_same():
    (longest,) = (p for p in coefficients.POLYNOMIALS if p.name == "log1p_unit64")
    with mp.workdps(60):
        assert longest.coefficients() == made(longest)


@each
def test_a_wrong_bit_is_seen(polynomial):
    """The last one of the last coefficient, in every source."""
    *others, last = made(polynomial)
    wrong = coefficients.rounded(last * (1 + mp.mpf(2) ** (1 - polynomial.digits)), polynomial.digits)
    assert wrong != last
    assert polynomial.different([*others, wrong]) == [place.path for place in polynomial.places]


def test_sine_cannot_be_nearer():
    """What float32's π is off by is the whole error at u = 0; and the polynomial's is no larger elsewhere."""
    (sine,) = (p for p in coefficients.POLYNOMIALS if p.name == "sin")
    first, *_ = made(sine)
    assert first == coefficients.rounded(mp.pi, 24)
    assert mp.almosteq(sine.error(made(sine)), abs(first - mp.pi) / mp.pi)


def test_logarithm_of_two():
    """The high part ends in zeros enough for products with exponents to be exact; the low one is the rest."""
    text = (ROOT / coefficients.FORMULAS).read_text("utf-8")
    parts = re.findall(r"kLn2High = (\S+?)f?, kLn2Low = (\S+?)f?;", text)
    for (high, low), digits, zeros in zip(parts, (24, 53), (8, 15), strict=True):
        high, low = float.fromhex(high), float.fromhex(low)
        assert high == coefficients.rounded(mp.ln(2), digits - zeros)
        assert low == coefficients.rounded(mp.ln(2) - high, digits)
    two_ln2 = re.search(r"_TWO_LN2 = (\S+)", (ROOT / coefficients.NOISE).read_text("utf-8"))[1]
    assert float(two_ln2) == coefficients.rounded(2 * mp.ln(2), 24)
    assert two_ln2 in (ROOT / coefficients.NOISE_CPP).read_text("utf-8")
    assert two_ln2 in (ROOT / coefficients.NOISE_TRITON).read_text("utf-8")

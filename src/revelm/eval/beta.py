"""The incomplete beta function and Student's t, which intervals need and neither numpy nor the standard library has.

I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated by Lentz's method; where x lies above the
distribution's middle, through I_x(a, b) = 1 - I_(1-x)(b, a). Accurate to about 1e-13 for parameters up to 1e6.
"""

import math
from functools import lru_cache

_TINY = 1e-300
_PRECISION = 1e-14
_MAX_TERMS = 10_000


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), the distribution function at ``x`` of Beta(a, b); ``a``, ``b`` above 0, ``x`` in [0, 1]."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _below_middle(b, a, 1.0 - x)  # by rounding, both may lie above their middles
    return _below_middle(a, b, x)


@lru_cache(maxsize=4096)
def t_quantile(freedom: int, *, coverage: float = 0.95) -> float:
    """The t within which |T| of Student's distribution stays with probability ``coverage``; infinite for no freedom."""
    if freedom < 1:
        return math.inf
    low, high = 0.0, 1.0
    while 1 - two_sided(high, freedom) < coverage:
        high *= 2
    for _ in range(100):  # halving reaches the precision of a float
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - two_sided(middle, freedom) < coverage else (low, middle)
    return high


def two_sided(t: float, freedom: float) -> float:
    """P(|T| > t) of Student's t, ``t`` >= 0."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _below_middle(a: float, b: float, x: float) -> float:
    if x <= 0.0:
        return 0.0
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...))."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _MAX_TERMS):
        m = term // 2
        if term % 2:
            weight = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            weight = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _apart(1.0 + weight * d)
        c = _apart(1.0 + weight / c)
        value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _apart(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

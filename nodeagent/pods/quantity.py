"""Resource quantities: "250m", "1.5Gi", "2e3".

The grammar is that of k8s.io/apimachinery/pkg/api/resource (quantity.go): a signed decimal, then a binary suffix
(Ki ... Ei), a decimal suffix (n u m k M G T P E) or a decimal exponent. Values are exact: no floats.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIXES: dict[str, Fraction] = {
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{
        suffix: Fraction(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T"), start=-3)
    },
    "P": Fraction(1000) ** 5,
    "E": Fraction(1000) ** 6,
}
_GRAMMAR = re.compile(r"([+-]?)(\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:([eE][+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_LARGEST = Fraction(2**63 - 1)


def parse(value: str | int | float) -> Fraction:
    """The value in its own unit (cores, bytes, ...). Raises ValueError, saying what is wrong with it."""
    text = str(value).strip()
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(f'must be a quantity such as "500m", "1.5" or "64Mi", not "{text[:40]}"')
    sign, digits, exponent, suffix = match.groups()
    power = int(exponent[1:]) if exponent else 0
    if abs(power) > 30:
        raise ValueError(f'the exponent of "{text[:40]}" is out of range')
    amount = Fraction(digits) * _SUFFIXES[suffix or ""] * Fraction(10) ** power
    if amount > _LARGEST:
        raise ValueError(f'"{text[:40]}" is larger than 2^63-1')
    return -amount if sign == "-" else amount


def whole(value: str | int | float) -> int:
    """In units (bytes, counts), rounded away from zero as the API does."""
    return _up(parse(value))


def milli(value: str | int | float) -> int:
    """In thousandths (of a core), rounded away from zero."""
    return _up(parse(value) * 1000)


def _up(amount: Fraction) -> int:
    size = -(-abs(amount).numerator // abs(amount).denominator)
    return size if amount >= 0 else -size

"""Quantities of the Kubernetes API as integers: `100m`, `1.5Gi`, `12e3`. Pure, and without a float.

The grammar, the suffixes, the rounding up to the smallest unit and the cap at 2⁶³ − 1 are those of apimachinery's
resource.Quantity (Kubernetes documentation, "Quantity" under Common Definitions).
"""

import re

NANO = 1_000_000_000  # a parsed quantity counts billionths of its unit
MOST = ((1 << 63) - 1) * NANO

_GRAMMAR = re.compile(r"([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?\d+)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LONG = 64  # characters
_FAR = 3 * _LONG  # the power of ten beyond which any number of that length is too large, or the smallest there is


def nano(text: str) -> int:
    """Billionths of a unit, away from zero where it is finer than that. Raises ValueError for what is no quantity."""
    found = _GRAMMAR.fullmatch(text) if len(text) <= _LONG else None
    if found is None:
        raise ValueError(f"{text[:_LONG]!r} is no quantity. Write it as 100m, 1.5 or 2Gi")
    sign, whole, fraction, bare, suffix = found.groups()
    decimals = fraction or bare or ""
    numerator, denominator = int((whole or "") + decimals), 10 ** len(decimals)
    if suffix in _BINARY:
        numerator *= NANO << _BINARY[suffix]
    else:
        exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
        power = max(-_FAR, min(exponent, _FAR)) + 9
        numerator, denominator = numerator * 10 ** max(power, 0), denominator * 10 ** max(-power, 0)
    value = min(up(numerator, denominator), MOST)
    return -value if sign == "-" else value


def up(numerator: int, denominator: int) -> int:
    """The quotient, rounded up; both are not negative."""
    return -(-numerator // denominator)

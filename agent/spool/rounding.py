"""How a value came about at a sink, and what that left: kept with the item, and read wherever it is explained."""

from fractions import Fraction

from msgspec import Struct


class Carried(Struct, frozen=True):
    """What rounding has left: `value` / `grain` base units, signed."""

    value: int = 0
    grain: int = 1

    @property
    def exact(self) -> Fraction:
        """The same as one number."""
        return Fraction(self.value, self.grain)


class Rounding(Struct, frozen=True):
    """How a value came about: quantity + before = value · per + after, all in base units (L12)."""

    value: str
    unit: str
    per: int
    before: Carried
    after: Carried

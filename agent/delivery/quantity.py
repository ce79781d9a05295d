"""Base units into a sink's units, in integers: what does not fit a scale is carried to the next record. Pure.

Law: Σ submitted + what is carried = Σ usage, exactly, also across a change of unit or scale (ACCOUNTING §7).
"""

from math import lcm
from typing import Literal

from msgspec import Struct, structs

from agent.spool.rounding import Carried

_TIMES = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}  # in ms
_SIZES = {
    "byte": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}


def units(base: str) -> dict[str, int]:
    """What a quantity in this base unit may be told in: unit → how many base units it holds. The base unit is first.

    `ns` of CPU is told in `core-hour`, `byte` in `GB`, `byte·ms` in `GiB-hour`, and what else is held over time, such
    as `task·ms`, in `task-hour`.
    """
    told = {base: 1}
    if base == "ns":
        return told | {f"core-{name}": ms * 1_000_000 for name, ms in _TIMES.items()}
    if base == "ms":
        return told | _TIMES
    if base == "byte":
        return told | _SIZES
    if base == "byte·ms":
        return told | {f"{size}-{time}": held * ms for size, held in _SIZES.items() for time, ms in _TIMES.items()}
    what, dot, _ = base.partition("·ms")
    return told | ({f"{what}-{time}": ms for time, ms in _TIMES.items()} if dot else {})


Rounding = Literal["half-even", "half-up"]


class Measure(Struct, frozen=True):
    """How one dimension is told to one sink: `unit` holds `per` base units, values have `scale` decimals.

    No unit: the base unit of the record.
    """

    name: str
    unit: str
    per: int = 1
    scale: int = 0
    rounding: Rounding = "half-even"
    base: str | None = None  # the base unit that `per` is for; None: any

    def of(self, base: str) -> "Measure":
        """The same for a record in this base unit. Raises ValueError where the unit cannot tell it."""
        if not self.unit:
            return structs.replace(self, unit=base, per=1, base=base)
        if self.base is None or self.base == base:
            return self
        per = units(base).get(self.unit)
        if per is None:
            raise ValueError(f"{self.unit} cannot tell {base}, this record's unit. Mend dimensions, and requeue it")
        return structs.replace(self, per=per, base=base)

    @property
    def rounds(self) -> bool:
        """Whether a whole number of base units may need more decimals than there are."""
        return self.per != 1


def convert(quantity: int, carried: Carried, measure: Measure) -> tuple[str, Carried]:
    """(the decimal to submit, what is carried on): (quantity · grain + carried) is divided by what one step holds."""
    steps = 10**measure.scale
    grain = lcm(steps, carried.grain)
    whole = quantity * grain + carried.value * (grain // carried.grain)
    step = measure.per * (grain // steps)
    count = _divide(whole, step, measure.rounding)
    return _decimal(count, measure.scale), _least(whole - count * step, grain)


def _divide(whole: int, step: int, rounding: Rounding) -> int:
    count, rest = divmod(whole, step)
    up = 2 * rest > step or (2 * rest == step and (rounding == "half-up" or count % 2 == 1))
    return count + up


def _decimal(count: int, scale: int) -> str:
    sign, digits = "-" if count < 0 else "", str(abs(count)).zfill(scale + 1)
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def _least(value: int, grain: int) -> Carried:
    """Nothing carried needs no grain, so that a change of scale does not refine it for ever."""
    return Carried(value, grain) if value else Carried()

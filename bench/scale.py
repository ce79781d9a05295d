"""How much each bench does."""

from msgspec import Struct, structs


class Scale(Struct, frozen=True):
    """Sizes of the loads. `windows` of 20 sweeps each; `seconds` that `memory` watches in real time."""

    groups: tuple[int, ...] = (250, 500)
    windows: int = 10
    records: int = 1_000_000
    traced: int = 20_000  # records of the short run under strace
    seconds: int = 40
    pods: int = 240  # real ones
    synthetic: int = 500
    watched: int = 120  # seconds of each phase of `pods`
    build: bool = True  # the Collector, where it is not built yet

    def watching(self, seconds: int) -> "Scale":
        """The same with another time for `memory` and `pods`."""
        return structs.replace(self, seconds=seconds, watched=seconds)


TINY = Scale(
    groups=(3,), windows=1, records=3_000, traced=2_000, seconds=3, pods=3, synthetic=3, watched=4, build=False
)

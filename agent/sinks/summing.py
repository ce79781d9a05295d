"""Whether a back end sums what it is told: deltas into a meter that does not would bill a part of the usage."""

from collections.abc import Callable, Collection, Iterator

from msgspec import Struct

from agent.sinks import Finding


class Counter(Struct, frozen=True):
    """One meter of a back end: which events it counts, how, and which value of theirs."""

    name: str
    counts: str
    aggregation: str
    value: str | None


def summing(
    dimensions: Collection[str], counters: Collection[Counter], sums: Callable[[Counter], bool], wanted: str
) -> Iterator[Finding]:
    """Of each dimension, whether meters count it, and whether each of them sums its values.

    `wanted` is what such a meter has, with `{}` for the dimension.
    """
    for dimension in dimensions:
        cure = wanted.format(dimension)
        counting = [counter for counter in counters if counter.counts == dimension]
        if not counting:
            why = "no meter counts it: it would be accepted and bill nothing"
            yield Finding(f"dimension {dimension}", False, why, f"Create a meter with {cure}.")
        for counter in counting:
            why = f"{counter.aggregation} of {counter.value or 'events'} of type {dimension}"
            good = sums(counter)
            yield Finding(f"meter {counter.name}", good, why, "" if good else f"Replace it by a meter with {cure}.")

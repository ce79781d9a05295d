"""A receiver of CloudEvents that discards a repeat within its horizon, in memory. It imports nothing from the agent.

By the CNCF's HTTP protocol binding 1.0.2 §3 (structured and batched mode), CloudEvents 1.0.2 "source + id" for a
repeat, and its webhook specification 1.0.1 §2.2 for what is answered.
"""

import json
from collections import deque
from collections.abc import Callable, Collection
from decimal import Decimal

from tests.sinks.double import Request
from tests.sinks.doubles import Said, Totals, UnreachedError

DAY = 86_400.0


class Events:
    """`faults` befall requests in order. Time in seconds of the epoch."""

    def __init__(self, faults: Collection[str] = (), *, now: Callable[[], float], horizon: float = 2 * DAY) -> None:
        self.faults, self.now, self.horizon = deque(faults), now, horizon
        self.known: dict[tuple[str, str], float] = {}
        self.taken: list[dict[str, object]] = []

    async def answer(self, request: Request) -> Said | None:
        """One request."""
        fault = self.faults.popleft() if self.faults else ""
        if fault == "unreached":
            raise UnreachedError
        if fault in ("429", "503"):
            return Said(int(fault))
        if fault == "lost before":
            return None
        if fault == "forgets":  # as early as its horizon lets it
            self.known = {key: at for key, at in self.known.items() if self.now() - at < self.horizon}
        body = json.loads(request.body)
        for event in body if isinstance(body, list) else [body]:
            key = event["source"], event["id"]
            if self.now() - self.known.get(key, -self.horizon) >= self.horizon:
                self.known[key] = self.now()
                self.taken.append(event)
        return None if fault == "lost after" else Said(503) if fault == "503 after" else Said(204)

    def totals(self) -> Totals:
        """By subject and type."""
        sums: Totals = {}
        for event in self.taken:
            data = event["data"]
            assert isinstance(data, dict)
            key = str(event["subject"]), str(event["type"])
            sums[key] = sums.get(key, Decimal(0)) + Decimal(str(data["value"]))
        return sums

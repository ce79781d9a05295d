"""Pods by what their kubelet says of them, for nodes whose cgroups are not to be seen: basis "summary".

A summary is coarse: it is asked once per sample interval, its blocks are up to 30 s old and tick each by itself, and it
lists only pods with a running container. So nothing is taken for more than it says. A time that did not move is no
information; a pod that is absent is not gone, nor new when it is back; a counter that fell comes back.

Every counter and level is a resource of its own, because each has news at its own times: a reading without samples says
that there is none, and keeps the marks.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from agent.errors import SourceError
from agent.model import NS_PER_S, Reading, Resource, Sample, Sweep
from agent.sources import Asked, Asking
from agent.sources.kernel import boottime
from agent.sources.kubernetes import stats
from agent.sources.kubernetes.facts import Facts, Pods
from agent.sources.kubernetes.meters import SUMMARY
from agent.sources.kubernetes.tally import Counter, Known, Moment, Pod, Told

LAG = 30 * NS_PER_S  # the oldest that a block of an answer is: what is before that is booked
ABSENT = 15 * 60 * NS_PER_S  # for so long a pod may be absent (a back-off is 5 min at most, and then it runs)
DELETED = 2 * 60 * NS_PER_S  # and one that the API server has no more

_STATE = "summary"  # the key of `State`; those of pods begin with it


class Kubelet(Protocol):
    """Who is asked."""

    async def summary(self, *, network: bool) -> stats.Summary:
        """What all pods used. Raises SourceError."""

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""


class State(Struct, frozen=True, array_like=True):
    """What is remembered beside the pods. A pod that started up to `horizon` (wall) and is not known may be old."""

    boot: str
    horizon: int
    meters: tuple[str, ...]  # a meter that was not read then is new to us in every pod


class _Answer(Struct, frozen=True):
    moment: Moment
    summary: stats.Summary


class SummarySource:
    """The pods of one node. `follow` asks the kubelet; `sweep` says what its last answer told.

    `wanted` and `aspects` ("limit", "request") say which meters and levels are read. `remembered` is what sweeps of an
    earlier process gave as `remember`, the keys that are its own (`is_own`) among others.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the Protocol's word
        kubelet: Kubelet,
        pods: Pods,
        *,
        boot: str,
        wall: Callable[[], int],
        clock: Callable[[], int] = boottime,
        wanted: frozenset[str] | None = None,
        aspects: frozenset[str] = frozenset(),
        remembered: Mapping[str, bytes] | None = None,
        interval: int = 15 * NS_PER_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.id, self.meters = id, SUMMARY
        self._kubelet, self._facts = kubelet, pods
        self._boot, self._wall, self._clock = boot, wall, clock
        self._wanted = wanted if wanted is not None else frozenset(meter.name for meter in SUMMARY)
        self._aspects, self._interval, self._sleep = aspects, interval, sleep
        self._ways = tuple(way for way in ("receive", "transmit") if f"network.{way}_bytes" in self._wanted)
        self._pods: dict[str, Pod] = {}
        self._horizon: int | None = None  # None: nobody has looked yet, and the books decide (ACCOUNTING §3)
        self._remember: dict[str, bytes | None] = {}
        self._recall(remembered or {})
        self._answer: _Answer | None = None
        self._swept: _Answer | None = None
        self._failure = f"{id}: the kubelet has not answered yet"
        self._resources: dict[str, Resource] = {}
        self._listing: frozenset[str] = frozenset()
        self._news: dict[str, list[Told]] = {}

    # -- asking, on the loop ---------------------------------------------------------------------------------------

    def asked(self) -> Asked | None:
        """How asking the API server goes."""
        return self._facts.asked() if isinstance(self._facts, Asking) else None

    async def follow(self) -> None:
        """Ask once per interval, and keep what is known of the pods up to date, for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._facts.follow())
                tasks.create_task(self._keep_asking())
        finally:
            await self._facts.close()
            await self._kubelet.close()

    async def _keep_asking(self) -> None:
        while True:
            began = self._clock()
            await self.ask()
            await self._sleep(max(0, self._interval - (self._clock() - began)) / NS_PER_S)

    async def ask(self) -> None:
        """Ask once. What fails is what the next sweep raises."""
        try:
            summary = await self._kubelet.summary(network=bool(self._ways))
        except SourceError as error:
            self._failure = f"{self.id}: {error}"
            return
        self._answer = _Answer(Moment(self._wall(), self._clock()), summary)
        self._failure = ""

    # -- telling, on the spool's thread ----------------------------------------------------------------------------

    def sweep(self) -> Sweep:
        """What the last answer told. Raises SourceError when none came since the last sweep because asking fails."""
        answer, failure = self._answer, self._failure
        if answer is None or (answer is self._swept and failure):
            raise SourceError(failure)
        if answer is self._swept:
            self._news.clear()
        else:
            self._take(answer)
            self._swept = answer
        readings = [reading for pod in self._pods.values() for reading in self._readings(pod, answer.moment)]
        listing = frozenset(reading.resource.key for reading in readings)
        if listing != self._listing:
            self._listing = listing
            self._resources = {reading.resource.key: reading.resource for reading in readings}
        introduced = self._facts.introduced()
        remember = self._facts.remember([pod.uid for pod in self._pods.values() if pod.listed])
        ours, self._remember = self._remember, {}
        return Sweep(
            self.id,
            self._boot,
            max(0, answer.moment.polled - LAG),
            readings,
            self._listing,
            os.cpu_count() or 1,
            basis="summary",
            falls="stated",
            remember={**remember, **ours},
            introduced=introduced,
        )

    def close(self) -> None:
        """Nothing is held open here: `follow` lets go of what it opened when it ends."""

    def _take(self, answer: _Answer) -> None:
        self._news.clear()
        now, entries = answer.moment, answer.summary.by_uid
        for uid, entry in entries.items():
            self._see(uid, entry, now)
        for pod in [pod for uid, pod in self._pods.items() if uid not in entries]:
            self._miss(pod, now)
        if self._horizon is None:
            self._look_from(now.wall)

    def _see(self, uid: str, entry: stats.Pod, now: Moment) -> None:
        """One pod of the answer: what each of its counters and levels tells."""
        pod, met = self._pods.get(uid), False
        if pod is None:
            met = self._swept is not None  # else it may have been metered before this process began
            name = f"{entry.pod_ref.namespace}/{entry.pod_ref.name}"
            pod = self._pods[uid] = Pod(uid, name, entry.started, entry.started, self._is_new(entry), now.polled)
        elif 0 < entry.started < pod.started:
            return  # a sandbox that is no more; the later one is the pod
        elif entry.started > pod.started:
            pod.new = pod.new or (not pod.started and not pod.knows and self._is_new(entry))
            pod.start(entry.started)
        pod.listed, pod.seen = True, now.polled
        before = pod.knows
        began = now.at(pod.since) if self._swept is not None else None
        if entry.cpu is not None and "cpu.time" in self._wanted:
            self._count_cpu(pod, entry, entry.cpu, now, began)
        facts = self._facts.of(uid)
        pod.introduced = pod.introduced or facts is not None
        if entry.network is not None and facts is not None and not facts.host_network:
            self._count_network(pod, entry.network, now, began)
        if before != pod.knows:
            self._note(pod)
        if entry.memory is not None:
            time, value = stats.wall_ns(entry.memory.time), entry.memory.working_set_bytes or 0
            self._news[f"{uid}/memory"] = pod.memory.read(time, value, now)
        self._news[f"{uid}/alive"] = [(1, now.polled)]
        if met and pod.new and began is not None and 0 <= began < now.polled:
            self._news[f"{uid}/alive"] = [(1, began), (1, now.polled)]

    def _count_cpu(self, pod: Pod, entry: stats.Pod, cpu: stats.Cpu, now: Moment, began: int | None) -> None:
        value = cpu.usage_core_nano_seconds or 0
        if value > _most(pod.since, now) and "cpu" not in pod.knows:
            pod.new = False  # it used more than it can have since this start: there was another before
        counter = pod.counter("cpu", born=self._born(pod))
        time, borrowed = stats.wall_ns(cpu.time), value == entry.of_containers or not pod.started
        told = counter.read(time, value, now, new=pod.new, began=began, borrowed=borrowed, most=_most(pod.started, now))
        self._news[f"{pod.uid}/cpu"] = told

    def _count_network(self, pod: Pod, network: stats.Network, now: Moment, began: int | None) -> None:
        time, borrowed = stats.wall_ns(network.time), not pod.started
        for interface in network.counted:
            for way in self._ways:
                name = f"{way}/{interface.name}"
                value = (interface.rx_bytes if way == "receive" else interface.tx_bytes) or 0
                counter = pod.counter(name, born=self._born(pod))
                told = counter.read(time, value, now, new=pod.new, began=began, borrowed=borrowed)
                self._news[f"{pod.uid}/{name}"] = told

    def _is_new(self, entry: stats.Pod) -> bool:
        return self._horizon is not None and entry.started > self._horizon

    def _born(self, pod: Pod) -> bool | None:
        """Whether counters that are told for the first time began at zero. The first look is the books' (§3)."""
        if self._horizon is None or (pod.new and self._swept is None):
            return None
        return pod.new

    def _miss(self, pod: Pod, now: Moment) -> None:
        """One that the answer does not have. It is gone only after long, or when the API server has it no more."""
        pod.listed = False
        deleted = pod.introduced and self._facts.of(pod.uid) is None
        if now.polled - pod.seen < (DELETED if deleted else ABSENT):
            return
        del self._pods[pod.uid]
        self._remember[f"{_STATE}/{pod.uid}"] = None
        if self._horizon is not None and pod.started > self._horizon:
            self._look_from(pod.started)  # should it come back all the same, it is not new

    # -- what is remembered ----------------------------------------------------------------------------------------

    def _recall(self, remembered: Mapping[str, bytes]) -> None:
        ours = {key: value for key, value in remembered.items() if is_own(key)}
        state = msgspec.json.decode(ours.pop(_STATE), type=State) if _STATE in ours else None
        if state is None or state.boot != self._boot:
            self._remember = dict.fromkeys(ours)  # of another boot: no counter of it goes on
            return
        self._horizon = state.horizon if self._wanted <= set(state.meters) else self._wall()
        self._look_from(self._horizon)
        for key, value in ours.items():
            uid, known = key.partition("/")[2], msgspec.json.decode(value, type=Known)
            new = known.since > self._horizon
            pod = Pod(uid, known.name, known.since, known.started, new, seen=self._clock(), listed=False)
            for name, since in known.counters.items():
                if _meter(name) in self._wanted:  # else its marks are gone, and when it is wanted again it is not new
                    pod.counters[name] = Counter(since, known=True)
            self._pods[uid] = pod
            if pod.knows != known.counters:
                self._note(pod)

    def _look_from(self, horizon: int) -> None:
        self._horizon = horizon
        state = State(self._boot, horizon, tuple(sorted(self._wanted)))
        self._remember[_STATE] = msgspec.json.encode(state)

    def _note(self, pod: Pod) -> None:
        self._remember[f"{_STATE}/{pod.uid}"] = msgspec.json.encode(Known(pod.name, pod.since, pod.started, pod.knows))

    # -- readings --------------------------------------------------------------------------------------------------

    def _readings(self, pod: Pod, now: Moment) -> Iterator[Reading]:
        """Known counters also of a pod that is not listed; levels only of one that is."""
        facts = self._facts.of(pod.uid)
        for name, counter in pod.counters.items():
            if not counter.known:
                continue
            interface = name.partition("/")[2]
            extra = {"interface": interface} if interface else {}
            identity = f"{self._boot}/{pod.uid}@{counter.since // NS_PER_S}/{name}"
            told = self._news.get(f"{pod.uid}/{name}", [])
            yield self._reading(pod, facts, _meter(name), name, identity, told, extra, born=counter.born)
        if not pod.listed:
            return
        for meter, name in (("memory.working_set", "memory"), ("alive.time", "alive")):
            if meter in self._wanted:
                told = self._news.get(f"{pod.uid}/{name}", [])
                yield self._reading(pod, facts, meter, name, f"{self._boot}/{pod.uid}/{name}", told, {})
        if "extended.requested" in self._wanted and facts is not None:
            for resource, units in facts.extended.items():
                name, extra = f"extended/{resource}", {"extended_resource": resource}
                told = [(units, now.polled)]
                yield self._reading(pod, facts, "extended.requested", name, f"{pod.uid}/{name}", told, extra)

    def _reading(
        self,
        pod: Pod,
        facts: Facts | None,
        meter: str,
        name: str,
        identity: str,
        told: list[Told],
        extra: Mapping[str, str],
        *,
        born: bool | None = None,
    ) -> Reading:
        """One counter's or level's; the same Resource object as long as nothing about it changes."""
        key = f"{self.id}/{self._boot[:8]}/pod{pod.uid}/{name}"
        called, labels = (pod.name, {"pod_uid": pod.uid}) if facts is None else (facts.name, facts.labels)
        labels = {**labels, **extra}
        resource = self._resources.get(key)
        if resource is None or (resource.name, resource.labels) != (called, labels):
            resource = self._resources[key] = Resource(key, called, labels=labels)
        samples = [Sample(meter, identity, value, taken) for value, taken in told]
        if told and facts is not None:
            taken = told[-1][1]
            samples += [Sample(meter, identity, level, taken, aspect) for aspect, level in self._levels(facts, meter)]
        return Reading(resource, tuple(samples), born=born)

    def _levels(self, facts: Facts, meter: str) -> Iterator[tuple[Literal["request", "limit"], int]]:
        if "request" in self._aspects and meter in facts.requests:
            yield "request", facts.requests[meter]
        if "limit" in self._aspects and meter in facts.limits:
            yield "limit", facts.limits[meter]


def is_own(key: str) -> bool:
    """Whether this is a key under which this source remembers something. Pods' metadata is remembered by uid."""
    return key.partition("/")[0] == _STATE


def _meter(counter: str) -> str:
    """Which meter a counter of this name feeds."""
    return "cpu.time" if counter == "cpu" else f"network.{counter.partition('/')[0]}_bytes"


def _most(start: int, now: Moment) -> int:
    """The CPU time that can have been used since a start, which is stated in whole seconds."""
    return (now.wall - start + 2 * NS_PER_S) * (os.cpu_count() or 1)

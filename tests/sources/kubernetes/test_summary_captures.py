"""Answers of a real kubelet (1.34.2), replayed: what each pod is billed is what its own counter moved.

`captures/summary-*.json*` are unedited. `at` is the client's clock.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from agent.model import Sweep
from tests.sources.kubernetes.summaries import CAPTURES, WALL, Agent, S, facts, told

Poll = tuple[int, list[dict[str, Any]]]  # boottime in ns, pods


def capture(name: str) -> Any:
    """One whole answer."""
    return json.loads((CAPTURES / name).read_bytes())


def polls() -> list[Poll]:
    """90 answers, one a second."""
    lines = (CAPTURES / "summary-1s-polls.jsonl").read_text().splitlines()
    return [(int(entry["at"] * 1000) * 1_000_000 - WALL, entry["pods"]) for entry in map(json.loads, lines)]


def crash_loop() -> Iterator[Poll]:
    """A pod that ends each second life: its entry whenever it changed, and nothing while no container ran."""
    entries = [(int(e["at"] * 1000) * 1_000_000 - WALL, e["pod"]) for e in capture("summary-crashloop-changes.json")]
    yield entries[0][0] - 5 * S, []
    for (now, pod), (later, _) in pairwise([*entries, (entries[-1][0] + S, None)]):
        yield now, [pod]
        ended = pod["containers"][0]["cpu"]["usageCoreNanoSeconds"] > S
        yield from ((then, []) for then in range(now + 2 * S, later - S, 5 * S) if ended)


def first_sweep(name: str, **settings: Any) -> Sweep:
    """What one answer tells an agent on a young boot."""
    agent = Agent(**settings)
    hostnet = "52ff9572-7444-4666-b96d-a1d8d5ba31ac"
    agent.pods.facts[hostnet] = facts(hostnet, "hostnet", host_network=True)
    agent.clock = 1_795_396_877 * S - WALL
    agent.ask(raw=(CAPTURES / name).read_bytes())
    return agent.source.sweep()


@pytest.mark.parametrize("every", [1, 4, 15, 29])
def test_what_is_billed_is_what_the_counters_moved_however_often_it_is_asked(every: int) -> None:
    """Of polls each second most tell nothing: a block advances each 10 to 20 s."""
    agent = Agent()
    chosen = [poll for n, poll in enumerate(polls()) if n % every == 0 or n == 89]
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for now, pods in chosen:
        agent.clock = now
        agent.ask(*pods)
        agent.sweep()
        for pod in pods:
            first.setdefault(pod["podRef"]["uid"], pod["cpu"]["usageCoreNanoSeconds"])
            last[pod["podRef"]["uid"]] = pod["cpu"]["usageCoreNanoSeconds"]
    billed = dict.fromkeys(first, 0)
    for usage in agent.usages:
        if usage.meter == "cpu.time":
            billed[usage.resource.labels["pod_uid"]] += usage.quantity
    assert billed == {uid: last[uid] - first[uid] for uid in first}
    assert (agent.anomalies, agent.gaps) == ([], [])


def test_each_span_is_the_time_between_two_readings_of_the_kubelet() -> None:
    """Asked each second, 15 s of usage stay 15 s: no advance is no span."""
    agent = Agent()
    times: dict[str, list[str]] = {}
    for now, pods in polls():
        agent.clock = now
        agent.ask(*pods)
        agent.sweep()
        for pod in pods:
            seen = times.setdefault(pod["podRef"]["uid"], [])
            if pod["cpu"]["time"] not in seen:
                seen.append(pod["cpu"]["time"])
    spans = [u for u in agent.usages if u.meter == "cpu.time" and u.end > u.start]
    for uid, seen in times.items():
        assert len([u for u in spans if u.resource.labels["pod_uid"] == uid]) == len(seen) - 1
    assert all(9 * S < u.end - u.start < 21 * S for u in spans)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_crash_loop_is_billed_by_the_pods_own_counter(every: int) -> None:
    """Four lives of one second: zero while nobody has counted, absent in each back-off, stale for up to 14 s."""
    agent = Agent()
    everything = list(crash_loop())
    for number, (now, pods) in enumerate(everything):
        if number == 0 or number % every == 0 or number == len(everything) - 1:
            agent.clock = now
            agent.ask(*pods)
            agent.sweep()
    assert agent.billed(name=next(u.resource.name for u in agent.usages)) == 4_031_789_516
    assert agent.anomalies == []


def test_a_crash_loop_over_restarts_of_the_agent() -> None:
    """Each answer in a process of its own."""
    agent = Agent()
    for now, pods in crash_loop():
        agent.clock = now
        agent.restart()
        agent.ask(*pods)
        agent.sweep()
    assert sum(u.quantity for u in agent.usages if u.meter == "cpu.time") == 4_031_789_516


def test_every_kind_of_pod_in_one_answer() -> None:
    """Burstable, guaranteed, besteffort, hostNetwork, static, sidecar, with a volume, crash-looping, of a DaemonSet."""
    sweep = first_sweep("summary-mixed.json")
    entries = {pod["podRef"]["uid"]: pod for pod in capture("summary-mixed.json")["pods"]}
    cpu = {r.resource.labels["pod_uid"]: r for r in sweep.readings for s in r.samples if s.meter == "cpu.time"}
    zero = [uid for uid, pod in entries.items() if pod["podRef"]["name"] == "crash"]
    assert set(cpu) == set(entries) - set(zero)
    assert {s.value for r in cpu.values() for s in r.samples} == {
        pod["cpu"]["usageCoreNanoSeconds"] for pod in entries.values()
    } - {0}
    assert all(reading.resource.parent is reading.resource.anchor is None for reading in sweep.readings)
    assert (sweep.basis, sweep.falls) == ("summary", "stated")


def test_a_static_pod_is_known_by_its_config_hash() -> None:
    """As its cgroup is, and not by the uid that the API gives its mirror."""
    uids = {reading.resource.labels["pod_uid"] for reading in first_sweep("summary-mixed.json").readings}
    assert "8634a4017a396d7d78eb1852a3a4e7df" in uids


def test_the_host_network_of_the_capture_is_nobodys() -> None:
    """737,422 of the node's 741,590 bytes."""
    values = [v for (_, meter), of in told(first_sweep("summary-mixed.json")).items() if "network" in meter for v in of]
    assert 737_422 not in values
    assert 2_215_028 in values  # of the agent's own pod


def test_nothing_of_a_volume_is_told() -> None:
    """The local volume of the capture shows the whole backing file system."""
    values = {value for of in told(first_sweep("summary-mixed.json")).values() for value in of}
    volumes = {v["usedBytes"] for pod in capture("summary-mixed.json")["pods"] for v in pod.get("volume", [])}
    assert volumes
    assert not values & volumes


def test_the_answer_without_network() -> None:
    """`?only_cpu_and_memory=true`."""
    wanted = frozenset({"cpu.time", "memory.working_set"})
    sweep = first_sweep("summary-only-cpu-memory.json", wanted=wanted)
    assert {meter for _, meter in told(sweep)} == wanted

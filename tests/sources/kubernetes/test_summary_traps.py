"""Each known wrong number that a kubelet's summary leads to (the traps of the field's own issue trackers)."""

import pytest

from agent.errors import SourceError
from tests.sources.kubernetes.summaries import Agent, S, at, facts, pod


def test_usage_after_a_container_restart_is_not_negative_and_not_too_low() -> None:
    """metrics-server#745, kubernetes#101851: the containers' counters begin anew, the pod's goes on."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 9 * S), containers=9 * S - 1))
    agent.hear(pod(cpu=(at(1025), 11 * S), containers=1 * S))
    assert agent.billed() == 2 * S


def test_older_data_after_newer_is_ignored() -> None:
    """metrics-server#750."""
    agent = Agent()
    for time, value in ((1010, 10), (1025, 14), (1018, 12), (1041, 15)):
        agent.hear(pod(cpu=(at(time), value * S)))
    assert agent.billed() == 5 * S
    assert agent.anomalies == []


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", None, "1970-01-01T00:00:00Z"])
def test_a_start_in_the_year_1_is_none(start: str | None) -> None:
    """kubernetes#109679: shown while a pod starts or stops; it is neither a new counter nor an old sandbox."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    agent.hear(pod(started=start, cpu=(at(1025), 12 * S)))
    agent.hear(pod(cpu=(at(1040), 15 * S)))
    assert agent.billed() == 5 * S


def test_a_pod_that_first_shows_the_year_1_is_new_when_its_start_is_known() -> None:
    """kubernetes#109679, at a pod's beginning."""
    agent = Agent()
    agent.hear()
    agent.hear(pod(started="0001-01-01T00:00:00Z", cpu=(at(1020), 0)))
    agent.hear(pod(started=at(1020), cpu=(at(1040), 3 * S)))
    assert agent.billed() == 3 * S


def test_the_time_of_cpu_equals_the_start_and_never_moves() -> None:
    """kubernetes#93988: a value above all before it is usage all the same, up to when it was told."""
    agent = Agent()
    agent.hear()
    for value in (1, 3, 3, 7):
        agent.hear(pod(started=at(1020), cpu=(at(1020), value * S)))
    assert agent.billed() == 7 * S
    assert agent.spans()[-1] == (1045, 1075, 4 * S)


def test_a_start_that_is_the_time_of_creation_is_kept_over_a_restart_of_the_container() -> None:
    """kubernetes#101902: nothing depends on when a container started."""
    agent = Agent()
    agent.hear()
    agent.hear(pod(started=at(1020), cpu=(at(1030), 2 * S), containers=S))
    agent.hear(pod(started=at(1020), cpu=(at(1045), 3 * S), containers=0))
    assert agent.billed() == 3 * S


def test_old_and_new_container_are_both_listed() -> None:
    """cadvisor#2844, deckhouse#8138: containers are never summed, so none counts twice."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    doubled = pod(cpu=(at(1025), 12 * S))
    doubled["containers"] *= 2
    agent.hear(doubled)
    assert agent.billed() == 2 * S


def test_a_pod_is_listed_twice_in_one_answer() -> None:
    """kubernetes#30939: one uid is one pod; the later reading is the news, in whatever order they stand."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    agent.hear(pod(cpu=(at(1025), 12 * S)), pod(cpu=(at(1020), 11 * S)))
    agent.hear(pod(cpu=(at(1030), 12 * S)), pod(cpu=(at(1041), 15 * S)))
    assert agent.billed() == 5 * S
    assert agent.anomalies == []


def test_the_same_name_twice_in_one_answer_is_two_pods() -> None:
    """PR#77426, opencost PR#1131: a pod is its uid, so that one made anew under a name bills its own counter."""
    agent = Agent()
    agent.pods.facts |= {pod(n)["podRef"]["uid"]: facts(pod(n)["podRef"]["uid"], "db-0") for n in (1, 2)}
    agent.hear(pod(1, name="db-0", cpu=(at(1010), 100 * S)))
    new = pod(2, name="db-0", started=at(1018), cpu=(at(1025), 2 * S))
    agent.hear(pod(1, name="db-0", cpu=(at(1020), 101 * S)), new)
    assert agent.billed(name="shop/db-0") == 3 * S


def test_samples_that_stay_as_they_were_are_no_usage_and_no_time() -> None:
    """kubernetes#111157, #127390: frozen metrics say nothing; when they move, all of it is billed over all of it."""
    agent = Agent()
    for _ in range(8):
        agent.hear(pod(cpu=(at(1010), 10 * S), memory=(at(1010), 500)))
    assert (agent.spans(), agent.spans("memory.working_set"), agent.gaps) == ([], [], [])
    agent.hear(pod(cpu=(at(1130), 13 * S), memory=(at(1130), 600)))
    assert agent.spans() == [(1010, 1130, 3 * S)]
    assert agent.billed("memory.working_set") == 0
    assert agent.gaps == ["no_sample"]


@pytest.mark.parametrize("raw", [b'{"pods": []}', b'{"node": {}, "pods": null}'])
def test_no_pods_until_the_kubelet_restarts(raw: bytes) -> None:
    """kubernetes#33192: absent is not gone."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    for _ in range(20):
        agent.clock += 15 * S
        agent.ask(raw=raw)
        agent.sweep()
    agent.hear(pod(cpu=(at(1320), 14 * S)))
    assert agent.billed() == 4 * S


def test_housekeeping_takes_longer_than_containers_are_remembered() -> None:
    """cadvisor PR#3517: the blocks are missing, though the pod is listed."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S), network=(at(1010), 7, 7)))
    for _ in range(10):
        agent.hear(pod())
    agent.hear(pod(cpu=(at(1170), 12 * S), network=(at(1170), 9, 8)))
    assert agent.billed() == 2 * S
    assert agent.billed("network.receive_bytes") == 2


def test_a_dead_pod_lingers() -> None:
    """kubernetes#115008: the old sandbox of a pod is listed beside the new one, or alone for a while."""
    agent = Agent()
    agent.hear(pod(started=at(900), cpu=(at(1010), 10 * S)))
    agent.hear(pod(started=at(1012), cpu=(at(1025), 11 * S)), pod(started=at(900), cpu=(at(1026), 90 * S)))
    agent.hear(pod(started=at(900), cpu=(at(1040), 95 * S)))
    agent.hear(pod(started=at(1012), cpu=(at(1055), 13 * S)))
    assert agent.billed() == 3 * S


def test_zero_at_pod_level_is_not_yet_known() -> None:
    """Measured: for 14 s, while its container shows a second. No sample, and nothing that would hide what follows."""
    agent = Agent()
    agent.hear()
    agent.hear(pod(started=at(1016), cpu=(at(1016), 0), memory=(at(1016), 0), containers=S))
    assert agent.spans() == []
    agent.hear(pod(started=at(1016), cpu=(at(1031), S + 25), memory=(at(1031), 500), containers=S))
    assert [span for span in agent.spans() if span[2]] == [(1016, 1031, S + 25)]


def test_zero_with_a_fresh_time_is_no_reset() -> None:
    """cri_stats_provider: where the runtime gives no CPU the kubelet says 0, now."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    for time in range(1025, 1100, 15):
        agent.hear(pod(cpu=(at(time), 0)))
    agent.hear(pod(cpu=(at(1100), 13 * S)))
    assert agent.billed() == 3 * S


def test_zero_with_a_fresh_time_is_no_baseline_either() -> None:
    """The first sight of an old pod: the lifetime must not follow as usage."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1015), 0), network=(at(1015), 0, 0)))
    agent.hear(pod(cpu=(at(1030), 500 * S), network=(at(1030), 1 << 40, 1 << 40)))
    agent.hear(pod(cpu=(at(1045), 501 * S), network=(at(1045), 1 + (1 << 40), 1 << 40)))
    assert agent.billed() == S
    assert agent.billed("network.receive_bytes") == 1


@pytest.mark.parametrize("answers", [1, 2, 3, 9])
def test_the_sum_of_containers_falls_and_the_pod_comes_back(answers: int) -> None:
    """Measured after a kubelet's restart, 47.78 s of 48.20: for however long, the fall is never billed."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 48_200), containers=47_000))
    for n in range(answers):
        sum_of = 47_780 + 10 * n
        agent.hear(pod(cpu=(at(1025 + 15 * n), sum_of), containers=sum_of))
    agent.hear(pod(cpu=(at(1025 + 15 * answers), 48_300), containers=47_900))
    assert agent.billed() == 100
    assert agent.anomalies == ["dip"] * answers


def test_the_sum_of_containers_is_not_the_first_that_is_seen() -> None:
    """The agent starts with the kubelet: what the sum lacks would be billed when the pod's own counter is back."""
    agent = Agent()
    agent.hear(pod(2))
    agent.hear(pod(cpu=(at(1025), 47_780), containers=47_780))
    agent.hear(pod(cpu=(at(1040), 48_300), containers=47_800))
    agent.hear(pod(cpu=(at(1055), 48_350), containers=47_850))
    assert agent.billed() == 50


def test_where_there_is_only_the_sum_of_containers_it_is_billed() -> None:
    """A runtime whose pods have no cgroup that cAdvisor finds."""
    agent = Agent()
    agent.hear()
    for n in range(6):
        agent.hear(pod(cpu=(at(1020 + 15 * n), 1000 + n), containers=1000 + n))
    assert agent.billed() == 2  # from the fourth on


def test_a_pod_of_the_hosts_network_shows_the_nodes_interfaces() -> None:
    """cadvisor#3117: the node would be billed twice."""
    agent = Agent()
    uid = pod()["podRef"]["uid"]
    agent.pods.facts[uid] = facts(uid, host_network=True)
    agent.hear(pod(cpu=(at(1010), 1), network=(at(1010), 10, 10)))
    agent.hear(pod(cpu=(at(1025), 2), network=(at(1025), 1 << 30, 1 << 30)))
    assert {u.meter for u in agent.usages} == {"cpu.time", "alive.time"}


def test_a_network_waits_until_it_is_known_whose_it_is() -> None:
    """Metadata comes late: nothing is billed that may be the node's, and nothing is lost that was the pod's."""
    agent = Agent()
    agent.pods.everybody = False
    agent.hear()
    agent.hear(pod(started=at(1020), network=(at(1028), 100, 50)))
    agent.hear(pod(started=at(1020), network=(at(1043), 300, 60)))
    assert agent.billed("network.receive_bytes") == 0
    agent.pods.everybody = True
    agent.hear(pod(started=at(1020), network=(at(1058), 400, 70)))
    assert agent.billed("network.receive_bytes") == 400
    assert agent.billed("network.transmit_bytes") == 70


def test_a_new_sandbox_has_a_network_that_begins_at_zero() -> None:
    """Identity is (uid, start, interface): the later start is stated, so the fall is a reset and not a dip."""
    agent = Agent()
    agent.hear(pod(started=at(900), network=(at(1010), 5000, 5000)))
    agent.hear(pod(started=at(1016), network=(at(1025), 40, 30)))
    agent.hear(pod(started=at(1016), network=(at(1040), 90, 60)))
    assert agent.billed("network.receive_bytes") == 90


def test_a_new_sandbox_leaves_the_pods_cgroup_and_its_counter_as_they_are() -> None:
    """A later start alone is no reset of the CPU's counter: the lifetime would be billed again."""
    agent = Agent()
    agent.hear(pod(started=at(900), cpu=(at(1010), 500 * S)))
    agent.hear(pod(started=at(1016), cpu=(at(1025), 502 * S)))
    agent.hear(pod(started=at(1016), cpu=(at(1040), 503 * S)))
    assert agent.billed() == 3 * S


def test_a_new_sandbox_and_the_sum_of_containers_at_once() -> None:
    """The fall after a later start that is the containers' sum: the pod's counter comes back."""
    agent = Agent()
    agent.hear(pod(started=at(900), cpu=(at(1010), 500 * S)))
    agent.hear(pod(started=at(1016), cpu=(at(1025), 2 * S), containers=2 * S))
    agent.hear(pod(started=at(1016), cpu=(at(1040), 503 * S)))
    assert agent.billed() == 3 * S


def test_a_static_pod_that_is_made_anew_begins_at_zero() -> None:
    """Its uid is its config's hash and recurs; the start is later, and the counter is below."""
    agent = Agent()
    agent.hear(pod(started=at(900), cpu=(at(1010), 500 * S)))
    agent.hear(pod(started=at(1016), cpu=(at(1010), 500 * S)))  # cAdvisor still has the group that was
    agent.hear(pod(started=at(1016), cpu=(at(1040), 2 * S)))
    agent.hear(pod(started=at(1016), cpu=(at(1055), 3 * S)))
    assert agent.billed() == 3 * S
    agent.restart()
    agent.hear(pod(started=at(1016), cpu=(at(1070), 5 * S)))
    assert agent.billed() == 5 * S


def test_a_node_without_network_blocks() -> None:
    """k3s#2895, cri-o#6657: the rest is billed."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 1)))
    agent.hear(pod(cpu=(at(1025), 3)))
    assert agent.billed() == 2


def test_volumes_are_never_billed() -> None:
    """Measured: a local volume's `usedBytes` is the whole backing file system."""
    agent = Agent()
    volume = {"time": at(1010), "usedBytes": 35_000_000_000, "name": "data", "pvcRef": {"name": "d", "namespace": "n"}}
    for time in (1010, 1025):
        agent.hear(pod(cpu=(at(time), time)) | {"volume": [volume], "ephemeral-storage": volume})
    assert {meter.name for meter in agent.source.meters} == {
        "cpu.time",
        "memory.working_set",
        "network.receive_bytes",
        "network.transmit_bytes",
        "alive.time",
        "extended.requested",
    }
    assert all(u.quantity < 35_000_000_000 for u in agent.usages)


def test_memory_is_the_working_set() -> None:
    """Not `usageBytes`, which holds what the kernel takes back at once."""
    agent = Agent()
    agent.hear(pod(memory=(at(1010), 500)))
    agent.hear(pod(memory=(at(1020), 700)))
    assert agent.spans("memory.working_set") == [(1010, 1020, 500 * 10_000)]


def test_memory_that_is_zero_is_not_known() -> None:
    """What runs holds some: the last level goes on until there is another."""
    agent = Agent()
    for time, level in ((1010, 500), (1025, 0), (1040, 700)):
        agent.hear(pod(memory=(at(time), level)))
    assert agent.spans("memory.working_set") == [(1010, 1040, 500 * 30_000)]


@pytest.mark.parametrize("raw", [b'{"node":{},"pods":[{"podRef":{"na', b"", b"[]", b"{}", b"not found"])
def test_truncated_json_is_no_answer(raw: bytes) -> None:
    """Nothing of it counts, and the last answer is not booked again as if it were this one's."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10)))
    agent.clock += 15 * S
    agent.ask(raw=raw)
    with pytest.raises(SourceError, match="not understood"):
        agent.sweep()
    agent.hear(pod(cpu=(at(1040), 12)))
    assert agent.billed() == 2


def test_the_wall_clock_steps_back() -> None:
    """LP#1527620: the kubelet's times are before those of yesterday's answers, and are not older for that."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S), memory=(at(1010), 500)))
    agent.offset -= 3600 * S
    agent.hear(pod(cpu=(at(1025 - 3600), 11 * S), memory=(at(1025 - 3600), 500)))
    agent.hear(pod(cpu=(at(1040 - 3600), 12 * S), memory=(at(1040 - 3600), 500)))
    assert agent.billed() == 2 * S
    assert agent.spans() == [(1010, 1025, S), (1025, 1040, S)]


def test_the_wall_clock_steps_forward_and_a_block_is_still_the_old_one() -> None:
    """A time that did not change is no information, also when it means another boottime now."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S), memory=(at(1010), 500)))
    agent.offset += 3600 * S
    agent.hear(pod(cpu=(at(1010), 10 * S), memory=(at(1010), 500)))
    agent.hear(pod(cpu=(at(1040 + 3600), 12 * S), memory=(at(1040 + 3600), 500)))
    assert agent.spans() == [(1010, 1040, 2 * S)]


def test_a_time_in_the_future_is_that_of_the_answer() -> None:
    """Whatever the kubelet says, it cannot have read it after it said so."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10)))
    agent.hear(pod(cpu=(at(9999), 12)))
    assert agent.spans() == [(1010, 1030, 2)]


def test_the_watermark_does_not_pass_what_may_still_come() -> None:
    """Blocks are up to 30 s old: windows do not close before them."""
    agent = Agent()
    agent.clock += 15 * S
    agent.ask(pod(cpu=(at(990), 1)))
    assert agent.source.sweep().stamp == agent.clock - 30 * S

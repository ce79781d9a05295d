"""Pods away, processes that end, full disks: what is known of a counter outlives them, or it only baselines."""

from msgspec import structs

from tests.sources.kubernetes.summaries import BOOT, Agent, S, at, pod


def test_the_disk_is_full_before_the_sum_of_containers_is_shown() -> None:
    """What the top told was not booked: a dip that came without it would be the baseline."""
    agent = Agent()
    agent.hear(pod(2))
    agent.hear(pod(cpu=(at(1025), 500 * S), containers=300 * S), commits=False)
    agent.hear(pod(cpu=(at(1040), 300 * S), containers=300 * S))
    agent.hear(pod(cpu=(at(1055), 501 * S), containers=301 * S))
    assert agent.billed() == S


def test_the_disk_is_full_when_a_new_pod_is_first_told() -> None:
    """Its first value is not booked, then there is no news, and it began at zero all the same."""
    agent = Agent()
    agent.hear()
    agent.hear(pod(started=at(1020), cpu=(at(1028), 2 * S)), commits=False)
    agent.hear(pod(started=at(1020), cpu=(at(1028), 2 * S)))
    agent.hear(pod(started=at(1020), cpu=(at(1058), 3 * S)))
    assert agent.billed() == 3 * S


def test_a_restart_of_the_agent_while_the_sum_of_containers_is_shown() -> None:
    """The new process never saw the top: only the mark knows it, and no number of lower values moves it."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 48_200), containers=47_000))
    agent.restart()
    for n in range(9):
        agent.hear(pod(cpu=(at(1025 + 15 * n), 47_780 + n), containers=47_780 + n))
    agent.hear(pod(cpu=(at(1160), 48_300), containers=47_900))
    assert agent.billed() == 100


def test_a_pod_in_crash_loop_back_off_is_absent_and_neither_dead_nor_new() -> None:
    """Measured: the same uid and start, the pod's counter going on."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S), memory=(at(1010), 500)))
    for _ in range(19):
        agent.hear()
    agent.hear(pod(cpu=(at(1310), 11 * S), memory=(at(1310), 500)))
    assert agent.billed() == S
    assert agent.billed("memory.working_set") == 0  # while nothing ran it held nothing


def test_a_restart_of_the_agent_during_a_back_off() -> None:
    """What is absent when we start is remembered, else it would be new when it returns."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    agent.hear()
    agent.restart()
    for _ in range(4):
        agent.hear()
    agent.hear(pod(cpu=(at(1100), 11 * S)))
    assert agent.billed() == S


def test_a_pod_in_back_off_when_we_first_look_is_not_new_when_it_returns() -> None:
    """It started before; what it used until then is nobody's to bill."""
    agent = Agent()
    agent.hear(pod(2, cpu=(at(1010), 1)))
    agent.hear(pod(1, started=at(900), cpu=(at(1025), 50 * S)))
    agent.hear(pod(1, started=at(900), cpu=(at(1040), 51 * S)))
    assert agent.billed() == S


def test_a_pod_that_returns_after_it_was_given_up_is_not_new() -> None:
    """Absent for longer than a back-off lasts: it may lose what it used unseen, and never pays twice."""
    agent = Agent()
    agent.hear()
    agent.hear(pod(started=at(1020), cpu=(at(1030), 2 * S)))
    for _ in range(70):
        agent.hear()
    assert not agent.source._pods
    agent.restart()
    agent.hear(pod(started=at(1020), cpu=(at(2090), 3 * S)))
    agent.hear(pod(started=at(1020), cpu=(at(2105), 4 * S)))
    assert agent.billed() == 2 * S + S


def test_a_pod_that_the_api_server_has_no_more_is_gone_soon() -> None:
    """Not at once: one answer without it is no proof."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 2 * S)))
    agent.pods.everybody = False
    agent.pods.facts.clear()
    agent.hear()
    assert agent.source._pods
    for _ in range(8):
        agent.hear()
    assert not agent.source._pods
    assert list(agent.memory) == ["summary"]


def test_a_change_of_basis_bills_nothing_of_what_was_before() -> None:
    """Metered by cgroups until now: what the kubelet shows first is no usage, nor is what it remembers of last time."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    assert agent.cursor is not None
    agent.cursor = structs.replace(agent.cursor, basis="cgroup", listing=frozenset({"pod"}))
    agent.memory.clear()  # as the metadata does with what is not a pod's
    agent.restart()
    agent.hear(pod(cpu=(at(1025), 500 * S)), pod(2, started=at(1012), cpu=(at(1026), 9 * S)))
    assert agent.spans() == []
    agent.hear(pod(cpu=(at(1040), 501 * S)), pod(2, started=at(1012), cpu=(at(1041), 11 * S)))
    assert (agent.billed(), agent.billed(name="shop/p2")) == (S, 2 * S)


def test_a_meter_that_was_not_read_until_now_baselines() -> None:
    """The network enters the configuration, or returns to it: of pods that ran before, the past is nobody's to bill."""
    everything = frozenset({"cpu.time", "network.receive_bytes"})
    agent = Agent(wanted=everything)
    agent.hear()
    agent.hear(pod(started=at(1020), cpu=(at(1028), S), network=(at(1028), 100, 100)))
    agent.restart(wanted=frozenset({"cpu.time"}))
    agent.hear(pod(started=at(1020), cpu=(at(1043), 2 * S), network=(at(1043), 5000, 5000)))
    agent.restart(wanted=everything)
    for time, value in ((1058, 7000), (1073, 7010)):
        agent.hear(pod(started=at(1020), cpu=(at(time), 3 * S), network=(at(time), value, value)))
    assert agent.billed("network.receive_bytes") == 110
    assert agent.billed() == 3 * S


def test_another_boot_knows_nothing_of_the_last() -> None:
    """Every pod has a new sandbox and a counter from zero; what was remembered is forgotten."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), 10 * S)))
    agent.memory = {key: value.replace(BOOT.encode(), b"another") for key, value in agent.memory.items()}
    agent.restart()
    assert not agent.source._pods
    agent.hear()
    assert set(agent.memory) == {"summary"}

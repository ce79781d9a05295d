"""The basis summary as it is configured: what is built, and what it is given of what was remembered."""

import asyncio
from pathlib import Path

import pytest

from agent.config import parse
from agent.errors import SourceError
from agent.kinds import KINDS, build_source, plan_of
from agent.sources import Followed
from agent.sources.kubernetes.summary import SummarySource
from tests.config.written import NOW, text
from tests.sources.kubernetes.summaries import Agent, S, at, pod

HERE = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: us}}]
clusters: [{name: here, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: us, user: {token: ours}}]
"""


def written(home: Path, more: str = "") -> str:
    """A sound file with the basis summary."""
    (home / "kubeconfig").write_text(HERE)
    kubelet = f"{{url: 'https://127.0.0.1:10250', token_file: {home}/token, ca_file: {home}/ca.crt}}"
    section = f"{{kind: kubernetes, basis: summary, kubeconfig: {home}/kubeconfig, kubelet: {kubelet}{more}}}"
    meters = "meters: [{meter: cpu.time}, {meter: network.receive_bytes, dimension: rx}]"
    return text(sources=f"sources: [{section}]", meters=meters)


@pytest.fixture
def remembered() -> dict[str, bytes]:
    """What a former process left, and a pod's metadata beside it."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1010), S)))
    return agent.memory


def test_its_meters_are_proven_by_nobody(tmp_path: Path) -> None:
    """A kubelet's pods have no parent's counter: their usage has the readings' own times."""
    config = parse(written(tmp_path), "agent.yaml", KINDS, {"NODE": "n1"}, NOW)
    plan = plan_of(config)
    assert {plan.meters[name].books for name in ("cpu.time", "memory.working_set", "network.receive_bytes")} == {"none"}


def test_what_it_remembered_is_kept_from_the_metadata(tmp_path: Path, remembered: dict[str, bytes]) -> None:
    """Which forgets, once it has listed, whatever is no pod's."""
    config = parse(written(tmp_path), "agent.yaml", KINDS, {"NODE": "n1"}, NOW)
    source = build_source(config.sources[0], config, lambda _: remembered | {"a-pod's-uid": b"{}"})
    assert isinstance(source, SummarySource)
    assert isinstance(source, Followed)
    assert set(source._facts._persisted) == {"a-pod's-uid"}  # type: ignore[attr-defined]


def test_without_network_the_kubelet_is_asked_for_less(tmp_path: Path) -> None:
    """`network: false` is the cheaper question."""
    config = parse(written(tmp_path, ", network: false"), "agent.yaml", KINDS, {"NODE": "n1"}, NOW)
    source = build_source(config.sources[0], config)
    assert isinstance(source, SummarySource)
    assert source._ways == ()


def test_the_kubelet_is_asked_once_per_interval_and_let_go_at_the_end() -> None:
    """A failure changes nothing of the rhythm: the next sweep says it."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    agent = Agent(sleep=sleep, interval=20 * S)
    asyncio.run(agent.source.follow())
    assert (len(agent.kubelet.asked), slept, agent.kubelet.closed) == (3, [20.0] * 3, True)
    with pytest.raises(SourceError, match="no answer"):
        agent.source.sweep()


def test_before_the_first_answer_there_is_nothing_to_sweep() -> None:
    """The cursor stands still until there is."""
    with pytest.raises(SourceError, match="has not answered yet"):
        Agent().source.sweep()

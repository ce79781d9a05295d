"""The benches run and print their tables; their figures are for `make bench`, on a machine that does nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import tenants
from bench.table import percentile, show
from tests.cluster.programs import missing
from tests.conftest import require
from tests.own import postgres
from tests.own.programs import absent


def bench(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    """One tiny run, with no Collector built for it."""
    command = [sys.executable, "-m", "bench", "--tiny", "--data", str(data), *arguments]
    return subprocess.run(command, check=False, text=True, capture_output=True)


def printed(*arguments: str, data: Path) -> str:
    """What a run that succeeds prints."""
    done = bench(*arguments, data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(data.iterdir()) == []  # nothing is left behind
    return done.stdout


def test_the_spool_bench_prints_rates_beside_machine_durability_and_budget(tmp_path: Path) -> None:
    """Appended, opened and drained in processes of their own."""
    text = printed("spool", data=tmp_path)
    for part in ("machine:", "synchronous=2", "append, 1,000 records", "open a backlog", "drain to", "≥ 50,000 /s"):
        assert part in text


@pytest.mark.timeout(180)
def test_the_delivery_bench_prints_rates_beside_peers_durability_and_budget(tmp_path: Path) -> None:
    """Every record is acknowledged once, in as many requests as its batches make: else it fails."""
    text = printed("delivery", data=tmp_path)
    for part in ("machine:", "synchronous=2", "batch 1, 32 under way", "httpx, one each", "≥ 1,000 /s", "≥ 10,000 /s"):
        assert part in text
    assert "batch 1,000, 8 under way" in text


@pytest.mark.real
def test_the_sweep_bench_meters_real_groups_and_removes_them(tmp_path: Path) -> None:
    """Three groups through every stage; none is left."""
    reason = tenants.unable()
    require(reason is None, reason or "")
    text = printed("sweep", data=tmp_path)
    for part in ("machine:", "synchronous=2", "the agent in real time", "3 groups", "≤ 50 ms", "fsyncs per sweep"):
        assert part in text
    groups = [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names if name.startswith(tenants.PREFIX)]
    assert [name for name in groups if not Path("/proc", name.removeprefix(tenants.PREFIX)).exists()] == []


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_bench_of_own_systems_delivers_to_real_servers(tmp_path: Path) -> None:
    """Every record is a row, or in a file."""
    for reason in (postgres.missing(), absent("go")):
        require(not reason, reason)
    text = printed("own", data=tmp_path)
    for part in ("machine:", "synchronous=2", "PostgreSQL", "S3, ndjson", "S3, parquet", "≥ 20,000 /s"):
        assert part in text


@pytest.mark.real
def test_the_memory_bench_watches_a_real_agent(tmp_path: Path) -> None:
    """Started as its unit starts it, and ended."""
    text = printed("memory", data=tmp_path)
    for part in ("machine:", "synchronous=2", "resident", "≤ 48 MiB", "CPU in the first", "fsyncs per second"):
        assert part in text


@pytest.mark.real
@pytest.mark.timeout(600)
def test_the_pods_bench_meters_a_real_node_and_leaves_none(tmp_path: Path) -> None:
    """Three pods and the agent by its chart; three synthetic ones."""
    require(not missing(), missing())
    text = printed("pods", data=tmp_path)
    for part in ("machine:", "3 pods run", "kubelet + containerd beyond nobody", "requests to the API server", "≤ 2"):
        assert part in text
    for part in ("synchronous=2", "3 synthetic pods", "≤ 50 ms", "sweeps whose books overran"):
        assert part in text


def test_a_name_that_is_no_bench_is_refused_with_those_that_are(tmp_path: Path) -> None:
    """A typo must not run everything."""
    done = bench("swep", data=tmp_path)
    assert done.returncode == 2
    assert "swep: there are sweep, spool, delivery, own, memory, pods" in done.stderr


def test_columns_are_aligned_and_figures_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    """So that two tables can be compared by eye."""
    show(["what", "figure"], [["a long name", "1"], ["b", "100"]])
    assert capsys.readouterr().out.splitlines() == [
        "what         figure",
        "-----------  ------",
        "a long name       1",
        "b               100",
    ]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Nearest rank: no figure is invented between two."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7

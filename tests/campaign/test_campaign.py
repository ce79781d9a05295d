"""The campaign's short form: one trial of every row, kills and power cuts among them, judged as in the whole."""

import os
import random
import shutil

import pytest

from tests.campaign import families, proof
from tests.campaign.row import ROWS
from tests.campaign.running import run
from tests.conftest import require
from tests.faults.report import publish

pytestmark = [pytest.mark.real, pytest.mark.fault, pytest.mark.timeout(600)]

CUTS = 20


def test_no_fault_loses_or_doubles_a_unit() -> None:
    """Whatever strikes: both ends say the same, or a person sees the difference with its reason."""
    assert families
    require(os.geteuid() == 0, "cutting the power of a disk needs root")
    for program in ("strace", "mkfs.ext4", "unshare", "setpriv"):
        require(shutil.which(program) is not None, f"{program} is not installed")
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    trials = list(run([(name, seed) for name in ROWS], lambda _: None))
    publish("the campaign's short form", [f"SEED={seed}", *proof.told(trials)])
    for trial in trials:
        assert (trial.verdict.lost, trial.verdict.doubled) == (0, 0), (trial.row, seed, trial.verdict.why)
    assert proof.struck_by("cut", trials) >= CUTS

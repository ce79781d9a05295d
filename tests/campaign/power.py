"""The power fails under the daemon: real ext4 on a loop device is shut down without its journal, and the machine boots.

Counters go with the power. So what was used since the last committed sweep is between nothing and all of it; what was
committed is there, exactly.
"""

import time

from agent.spool.schema import connect
from agent.spool.verify import fsck
from tests.campaign.ext4 import Disk
from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row

CUTS = 6  # in one trial, one after another
WAIT = 2.3  # seconds for a phase to come
DELAY = "fdatasync:delay_enter=8000"  # µs: what is written stays unsynced for longer

PHASES = {
    "open": "while the spool is opened",
    "sweep_commit": "while a sweep is committed",
    "freeze_commit": "while submissions are frozen",
    "acknowledge_commit": "while answers are settled",
    "checkpoint": "while the WAL is checkpointed",
    "temporary_file": "while a file of the file sink is written",
    "rename": "while a file is shown",
    "send": "while a request is under way",
}


def cuts(scene: Scene, phase: str | None) -> Verdict:
    """Cut the power a few times, in this phase or at any instant, and judge."""
    with Disk(scene.where) as disk, Place(scene, data=disk.path) as place:
        for _ in range(CUTS):
            _cut(place, disk, phase)
        place.settle()
        return place.verdict()


def _cut(place: Place, disk: Disk, phase: str | None) -> None:
    dice = place.dice
    if phase == "open":  # of a spool that has something in it
        before = place.ready()
        time.sleep(dice.uniform(0, 1.1))
        before.kill()
    life = place.start(strace=DELAY if dice.random() < 0.5 else "")
    if phase is None:
        time.sleep(dice.uniform(0, 1.8))
    elif phase == "open":
        place.until(lambda: "open" in place.shared.phase() or not life.alive(), WAIT, pause=0)
    else:
        passed = dice.randrange(3)  # not always the first that comes
        for _ in range(passed + 1):
            place.until(lambda: phase in (place.shared.told(who) for who in ("spool", "files", "loop")), WAIT, pause=0)
            if _ < passed:
                place.until(lambda: place.shared.phase() == "between", 0.1, pause=0)
    time.sleep(dice.choice([0, 0, 0.001, 0.004]))
    acknowledged, records, at = place.shared.acknowledged, place.shared.records, place.shared.phase()
    disk.cut()
    life.kill()
    place.scene.struck[f"cut at {at}"] += 1
    place.reboot(acknowledged)
    disk.again()
    if (place.data / "spool.db").exists():
        db = connect(str(place.data / "spool.db"))  # recovers what the WAL holds, as the next life would
        kept = db.execute("SELECT count(*) FROM record").get if db.pragma("page_count") > 1 else 0
        db.close()
        if acknowledged:
            place.wrong += [f"after a cut at {at}: {line}" for line in fsck(place.data).problems]
        if int(str(kept)) < records:
            place.wrong.append(f"after a cut at {at}: {kept} records of {records} that were committed")


def _listed(phase: str, says: str) -> None:
    @row(f"power.{phase}", f"the power fails {says}", trials=4)
    def _(scene: Scene) -> Verdict:
        return cuts(scene, phase.replace("_", " "))


for _phase, _says in PHASES.items():
    _listed(_phase, _says)


@row("power.random", "the power fails at any instant", trials=8)
def _random(scene: Scene) -> Verdict:
    return cuts(scene, None)

"""Who is who: copied and restored disks, machines made anew, renamed sinks, names that change amid a send."""

import shutil
import signal
import time
from pathlib import Path

from tests.campaign.machine import Machine, verdict
from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row
from tests.laws.scene import S
from tests.upstream.process import Upstream

NEW = ("new_epoch",)  # a gap that must be there, and excuses nothing where nothing was unseen


def _behind(one: Machine) -> None:
    """Some of it delivered, some attempted, some waiting."""
    one.use(2)
    one.deliver()
    one.faults = iter([{"do": "lose", "commit": one.dice.random() < 0.5}] * 2)
    one.use(2)
    one.deliver(1)
    one.faults = iter(())
    one.use(1)


def _copied(one: Machine, to: Path) -> Path:
    """The data directory as it is on the disk now."""
    shutil.copytree(one.data_dir, to)
    (to / "spool.db-shm").unlink(missing_ok=True)
    return to


@row("identity.cloned_disk", "a disk is cloned with a backlog, and both machines go on", trials=15)
def _cloned_disk(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        _behind(one)
        copy = _copied(one, scene.where / "copy")
        with Machine(scene, billing, name="two", data=copy, machine="m2") as two:
            for machine in (one, two):
                machine.use(2)
                machine.end()
            return verdict(billing, [one, two], known=NEW)


@row("identity.restored_backup", "an older copy of the spool is put back on the same machine", trials=15)
def _restored_backup(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        _behind(one)
        copy = _copied(one, scene.where / "copy")
        one.use(2)
        if scene.dice.random() < 0.7:
            one.deliver()
        one.spool.close()
        shutil.rmtree(one.data_dir)
        shutil.copytree(copy, one.data_dir)
        one.start().use(2)
        one.end()
        return verdict(billing, [one], gaps=True)


@row("identity.rolled_back", "a whole machine is rolled back, and a person says so", trials=15)
def _rolled_back(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        _behind(one)
        copy = _copied(one, scene.where / "copy")
        one.use(2)
        one.deliver()
        one.spool.close()
        shutil.rmtree(one.data_dir)
        shutil.copytree(copy, one.data_dir)
        one.reboot(3600 * S)
        one.start()
        one.spool.new_epoch("rolled back to yesterday's image", one.wall)
        one.start().use(2)
        one.end()
        return verdict(billing, [one], gaps=True)


@row("identity.reimaged", "a node is made anew under its old name", trials=15)
def _reimaged(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        _behind(one)
        one.end()
        with Machine(scene, billing, name="two", machine="m1") as two:  # nothing of it left, in the same minute
            two.use(3)
            two.end()
            return verdict(billing, [one, two])


@row("identity.lost_spool", "somebody deletes the data directory, of a machine that stands still", trials=15)
def _lost_spool(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        one.use(3)
        one.end()
        with Machine(scene, billing, name="two", machine="m1", kernel=one) as two:  # its counters go on
            two.use(3)
            two.end()
            return verdict(billing, [one, two])


def _with_backlog(place: Place) -> None:
    """Nothing is taken for a while, with or without being kept; what was used is known, and no more is."""
    fault = place.dice.choice([{"do": "lose"}, {"do": "lose", "commit": False}, {"do": "half"}])
    place.upstream.set_plan(every=1, fault=fault)
    place.ready()
    time.sleep(place.dice.uniform(1.2, 2.2))


@row("identity.renamed_sink", "a sink is renamed while it has a backlog", trials=12)
def _renamed_sink(scene: Scene) -> Verdict:
    with Place(scene) as place:
        _with_backlog(place)
        place.configure({"id": "later"})
        assert place.life is not None
        if scene.dice.random() < 0.5:
            place.life.signal(signal.SIGHUP)
            time.sleep(0.5)
        place.settle()
        return place.verdict("events", "later")


@row("identity.removed_sink", "a sink is removed while it has a backlog", trials=12)
def _removed_sink(scene: Scene) -> Verdict:
    with Place(scene) as place:
        _with_backlog(place)
        place.shared.end()
        assert place.life is not None
        place.life.stop()  # all that was used is in records, and owed
        place.configure(sinks=[{"id": "audit", "kind": "file", "path": str(place.audit), "role": "copy"}], ids={})
        place.settle()
        return place.verdict()


@row("identity.reload", "unit, dimension and customers' ids change while a send is ambiguous", trials=15)
def _reload(scene: Scene) -> Verdict:
    with Place(scene) as place:
        _with_backlog(place)
        told = {"id": "cpu_seconds", "unit": "core-second", "scale": scene.dice.randint(0, 6), "aggregation": "sum"}
        place.configure({"dimensions": {"cpu": told}}, ids={"events": "{}@2"})
        assert place.life is not None
        if scene.dice.random() < 0.3:
            place.life.kill()
            place.ready()
        else:
            place.life.signal(signal.SIGHUP)
        time.sleep(scene.dice.uniform(0.8, 1.6))
        place.settle()
        return place.verdict()

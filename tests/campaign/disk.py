"""The disk under the daemon fails, and works again: the machine lives on, so what its counters say must come out."""

import time
from collections.abc import Sequence

from tests.campaign.ext4 import Disk
from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row

MEBIBYTES = 12


@row("disk.full", "no block is free, for seconds", trials=12)
def _full(scene: Scene) -> Verdict:
    with Disk(scene.where, mebibytes=MEBIBYTES) as disk, Place(scene, data=disk.path) as place:
        place.ready()
        time.sleep(scene.dice.uniform(0, 1))
        disk.fill()
        scene.struck["disk: full"] += 1
        place.kept_alive(scene.dice.uniform(1, 3.5))
        disk.free()
        place.settle()
        return place.verdict()


@row("disk.full_at_start", "no block is free while it dies and starts again", trials=12)
def _full_at_start(scene: Scene) -> Verdict:
    with Disk(scene.where, mebibytes=MEBIBYTES) as disk, Place(scene, data=disk.path) as place:
        place.ready()
        time.sleep(scene.dice.uniform(0, 1.5))
        disk.fill()
        for _ in range(3):
            assert place.life is not None
            place.life.kill()
            scene.struck["disk: full at a start"] += 1
            place.kept_alive(scene.dice.uniform(0.2, 1.2))
        disk.free()
        place.settle()
        return place.verdict()


@row("disk.fills_again", "it fills, is freed and fills, while nothing is taken upstream", trials=8)
def _fills_again(scene: Scene) -> Verdict:
    fault = {"do": "status", "code": 503, "commit": False}
    with Disk(scene.where, mebibytes=MEBIBYTES) as disk, Place(scene, data=disk.path) as place:
        place.upstream.set_plan(every=1, fault=fault)
        place.ready()
        for _ in range(3):
            disk.fill()
            scene.struck["disk: full"] += 1
            place.kept_alive(scene.dice.uniform(0.5, 1.5))
            disk.free()
            place.kept_alive(scene.dice.uniform(0, 0.7))
        place.settle()
        return place.verdict()


@row("disk.inodes", "no inode is free, for seconds", trials=12)
def _inodes(scene: Scene) -> Verdict:
    with Disk(scene.where, mebibytes=MEBIBYTES, inodes=64) as disk, Place(scene, data=disk.path) as place:
        if scene.dice.random() < 0.7:
            place.ready()
        disk.fill_inodes()
        scene.struck["disk: no inodes"] += 1
        place.kept_alive(scene.dice.uniform(1, 3))
        disk.free()
        place.settle()
        return place.verdict()


@row("disk.read_only_at_start", "it is mounted read-only, and later not", trials=10)
def _read_only_at_start(scene: Scene) -> Verdict:
    with Disk(scene.where, mebibytes=MEBIBYTES) as disk, Place(scene, data=disk.path) as place:
        place.ready()
        time.sleep(scene.dice.uniform(0, 1.2))
        assert place.life is not None
        place.life.kill()
        disk.remount("ro")
        scene.struck["disk: read-only at a start"] += 1
        place.kept_alive(scene.dice.uniform(0.5, 2))
        if scene.dice.random() < 0.5:  # under the process that waits for it
            disk.remount("rw")
            place.kept_alive(1.2)
        else:
            place.life.kill()
            disk.unmount()
            disk.mount()
        place.settle()
        return place.verdict()


@row("disk.read_only", "its journal aborts: read-only under the daemon", trials=12)
def _read_only(scene: Scene) -> Verdict:
    with Disk(scene.where, mebibytes=MEBIBYTES) as disk, Place(scene, data=disk.path) as place:
        place.ready()
        time.sleep(scene.dice.uniform(0, 1.2))
        disk.abort()
        scene.struck["disk: read-only"] += 1
        place.kept_alive(scene.dice.uniform(0.5, 2))
        assert place.life is not None
        place.life.kill()
        disk.again()
        place.settle()
        return place.verdict()


def injected(scene: Scene, what: str, calls: Sequence[str], reach: int, *, lasting: bool = True) -> Verdict:
    """strace lets some call of three lives fail, once or from then on; lives that end are followed by others."""
    with Place(scene) as place:
        place.ready().kill()
        for _ in range(3):
            call = scene.dice.choice(calls)
            on = "+" if lasting and scene.dice.random() < 0.5 else ""
            life = place.start(strace=f"{call}:{what}:when={scene.dice.randint(1, reach)}{on}")
            life.wait(scene.dice.uniform(0.6, 1.8))
            scene.struck[f"disk: {what.partition('=')[2]} at {call}"] += "INJECTED" in life.trace.read_text()
            place.kept_alive(0.4)
            assert place.life is not None
            place.life.kill()
        place.settle()
        return place.verdict()


@row("disk.eio_sync", "EIO when it syncs, once or lasting", trials=15)
def _eio_sync(scene: Scene) -> Verdict:
    return injected(scene, "error=EIO", ["fdatasync", "fsync"], 14)


@row("disk.eio_write", "EIO when it writes, once or lasting", trials=15)
def _eio_write(scene: Scene) -> Verdict:
    return injected(scene, "error=EIO", ["pwrite64", "ftruncate"], 80)


@row("disk.eio_read", "EIO when it reads, once or lasting", trials=15)
def _eio_read(scene: Scene) -> Verdict:
    return injected(scene, "error=EIO", ["pread64"], 60)


@row("disk.enospc", "ENOSPC at one write", trials=15)
def _enospc(scene: Scene) -> Verdict:
    return injected(scene, "error=ENOSPC", ["pwrite64"], 80)


@row("disk.quota", "EDQUOT at one write", trials=8)
def _quota(scene: Scene) -> Verdict:
    return injected(scene, "error=EDQUOT", ["pwrite64"], 80)


@row("disk.slow", "every sync takes a third of a second", trials=10)
def _slow(scene: Scene) -> Verdict:
    return injected(scene, "delay_enter=300000", ["fdatasync", "fsync"], 3)

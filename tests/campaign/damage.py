"""Bytes of the spool rot, are cut off or read as zeros: at every 512 bytes of the database and of its WAL, by seed.

The spool is small, and its records stand in every way that there is: delivered, attempted, frozen, waiting, open.
"""

from collections.abc import Callable

import apsw

from agent.errors import SpoolUnusableError
from agent.spool.suspicion import suspect
from agent.spool.verify import fsck
from tests.campaign.machine import Machine, verdict
from tests.campaign.row import Scene, Verdict, row
from tests.laws.scene import S
from tests.upstream.process import Upstream

STEP = 512
Damage = Callable[[bytearray, int], None]


def flipped(content: bytearray, at: int) -> None:
    """One bit, at a place of its block that moves."""
    content[min(at + at * 37 // STEP % STEP, len(content) - 1)] ^= 1 << at // STEP % 8


def cut(content: bytearray, at: int) -> None:
    """Nothing from there on."""
    del content[at:]


def blank(content: bytearray, at: int) -> None:
    """Zeros from there on, as some file systems leave a file."""
    content[at:] = bytes(len(content) - at)


def half_done(one: Machine) -> None:
    """Work of which some is checkpointed, some only in the WAL; the agent was killed amid it."""
    one.use(2)
    one.deliver()
    one.faults = iter([{"do": "lose"}] * 3)
    one.use(2)
    one.deliver(1)
    one.spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    one.use(1)
    one.faults = iter([{"do": "lose", "commit": one.dice.random() < 0.5}] * 3)
    one.deliver(1)
    one.use(1)
    one.kernel.burn("a.slice/acme", 7)
    one.sweep(after=20 * S)
    one.kill()
    one.faults = iter(())


def damaged(scene: Scene, file: str, damage: Damage) -> Verdict:
    """Start on a spool that was damaged at one place, go on, and judge."""
    with Upstream(scene.where / "store") as billing, Machine(scene, billing) as one:
        half_done(one)
        path = one.data_dir / file
        content = bytearray(path.read_bytes())
        steps = -(-len(content) // STEP)
        damage(content, scene.seed % steps * STEP)
        path.write_bytes(content)
        scene.struck[f"{file}: {damage.__name__}"] += 1
        _started(one)
        one.use(1)
        one.end()
        scene.struck[f"then {(one.spool.restored or 'sound').split()[0]}"] += 1
        return verdict(billing, [one], gaps=True)


def _started(one: Machine) -> None:
    """As the daemon does it: again, where the disk refused; again, where what is read later turns out to be unsound."""
    try:
        one.start()
    except SpoolUnusableError:
        one.start()
    if one.spool.restored is None and fsck(one.data_dir).problems:
        one.spool.close()
        suspect(one.data_dir, "a page could not be read")
        one.start()


def _listed(name: str, says: str, file: str, damage: Damage, trials: int) -> None:
    @row(f"damage.{name}", says, trials=trials)
    def _(scene: Scene) -> Verdict:
        return damaged(scene, file, damage)


# As many trials as the file has blocks; zeros at every fourth.
for _file, _name, _blocks in (("spool.db", "db", 240), ("spool.db-wal", "wal", 460)):
    _what = "the database" if _name == "db" else "its WAL"
    _listed(f"flip_{_name}", f"a bit of {_what} is flipped", _file, flipped, _blocks)
    _listed(f"cut_{_name}", f"{_what} ends early", _file, cut, _blocks)
    _listed(f"zero_{_name}", f"{_what} has a tail of zeros", _file, blank, _blocks // 4)

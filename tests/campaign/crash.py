"""SIGKILL: at the system calls of every boundary, by strace, and at random instants. Counters live on: all is exact."""

import signal
import time
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row

KILL = "signal=SIGKILL"  # strace kills at a call's entry, before it has done anything
KILLS = 8  # in one trial, one after another: each start is a recovery from the death before
LIFE = 1.7  # seconds after which one that has not died at its call is killed where it stands
LEAST = 20  # deaths of each kind in a campaign

Aim = tuple[str, Sequence[int]]  # the call, and which of its thread


class Boundary(Struct, frozen=True):
    """A place to die, and the calls that are likely to be there. `comes`: when strace does."""

    says: str
    aims: tuple[Aim, ...]
    comes: Literal["start", "ready", "stop", "send"] = "start"


RENAME = "/^rename(at2?)?$"
BOUNDARIES = {
    "open": Boundary("while the spool is opened", (("pwrite64", range(1, 9)), ("fdatasync", [1]), ("fsync", [1]))),
    "adopt commit": Boundary("at the commit of what configuration says", (("fdatasync", range(1, 5)),)),
    "sweep commit": Boundary("at the commit of a sweep", (("fdatasync", [1, 2]), ("pwrite64", range(1, 9))), "ready"),
    "cut commit": Boundary("at the commit that ends open windows", (("fdatasync", [1, 2, 3]),), "stop"),
    "freeze commit": Boundary("at the commit that freezes submissions", (("fdatasync", range(4, 14)),)),
    "leaving commit": Boundary("at the commit before a file is shown", (("fdatasync", range(3, 7)),), "ready"),
    "send": Boundary("while a request leaves", (("sendto", [1, 2]),), "ready"),
    "answer": Boundary("when an answer has come", (("recvfrom", [1, 1, 2]),), "send"),
    "acknowledge commit": Boundary("at the commit of what was answered", (("fdatasync", range(3, 9)),), "ready"),
    "temporary file": Boundary("while a file is written", (("fsync", [1, 1, 2]),), "ready"),
    "rename": Boundary("at the rename that shows a file", ((RENAME, [1]),), "ready"),
    "checkpoint": Boundary(
        "while the WAL is checkpointed", (("pwrite64", range(10, 70)), ("fdatasync", range(2, 9))), "ready"
    ),
}


def kills(scene: Scene, strike: Callable[[Place], str]) -> Verdict:
    """Kill lives of one spool, one after another, and judge.

    `strike` starts one, kills it, and says where; empty: it had ended by itself.
    """
    with Place(scene) as place:
        place.ready().kill()
        for _ in range(KILLS):
            where = strike(place)
            scene.struck[f"kill at {where}" if where else "no kill: it had stopped"] += 1
        place.settle()
        return place.verdict()


def aimed(place: Place, boundary: Boundary) -> str:
    """Have strace kill a life at such a call; where it died."""
    call, numbers = place.dice.choice(boundary.aims)
    inject = f"{call}:{KILL}:when={place.dice.choice(numbers)}"
    loop = call in ("sendto", "recvfrom")  # other threads use these to wake it
    if boundary.comes == "start":
        _until_a_window_is_over(place)
        life = place.start(strace=inject)
    else:
        life = place.ready()
        if boundary.comes == "send":
            place.upstream.set_plan(every=1, fault={"do": "slow", "seconds": 0.15})
            place.until(lambda: place.shared.told("loop") == "send" or not life.alive(), 2.2)
        life.attach(inject, loop=loop)
        if boundary.comes == "stop":
            life.signal(signal.SIGTERM)
    if life.wait(LIFE) is None:
        return instant(place)
    struck, file = life.died_at()
    if life.code == 0:
        return ""
    if loop:
        phase = place.shared.phase("loop", "spool", "files")
        return "answer" if (struck, phase) == ("recvfrom", "send") else phase
    phase = place.shared.phase()
    return "checkpoint" if file == "spool.db" and phase != "open" else phase


def hunted(place: Place, name: str, *, stops: bool) -> str:
    """Wait until a life is about to do this, and kill it at once; where it died."""
    life = place.ready()
    if stops:
        life.signal(signal.SIGTERM)
    threads = ("spool", "files", "loop")
    place.until(lambda: name in map(place.shared.told, threads) or not life.alive(), LIFE, pause=0)
    return instant(place)


def instant(place: Place) -> str:
    """Kill it where it stands; where that was."""
    assert place.life is not None
    place.life.signal(signal.SIGSTOP)
    phase = place.shared.phase()
    return phase if place.life.kill() == -signal.SIGKILL else ""


def random(place: Place) -> str:
    """Kill a life at any instant of its start or of its work."""
    life = place.start()
    if place.dice.random() < 0.6:
        commits = place.shared.commits
        place.until(lambda: place.shared.commits > commits or not life.alive(), 5)
    time.sleep(place.dice.uniform(0, 0.7))
    return instant(place)


def _until_a_window_is_over(place: Place) -> None:
    """So that the next life has something to close, freeze and send."""
    last = place.shared.acknowledged // 10**9
    place.until(lambda: time.time_ns() // 10**9 > last, 1.1)


def _listed(name: str, boundary: Boundary) -> None:
    @row(f"crash.{name.replace(' ', '_')}", f"SIGKILL {boundary.says}", trials=13)
    def _(scene: Scene) -> Verdict:
        def strike(place: Place) -> str:
            if boundary.comes in ("ready", "stop") and place.dice.random() < 0.5:
                return hunted(place, name, stops=boundary.comes == "stop")
            return aimed(place, boundary)

        return kills(scene, strike)


for _name, _boundary in BOUNDARIES.items():
    _listed(_name, _boundary)


@row("crash.random", "SIGKILL at any instant", trials=14)
def _at_random(scene: Scene) -> Verdict:
    return kills(scene, random)

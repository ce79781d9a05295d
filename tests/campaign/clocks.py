"""Clocks jump, stand still and lie: injected into the line, and in a real time namespace under the daemon."""

import signal
import time
from collections.abc import Callable

from tests.campaign.machine import DAY, Machine, verdict
from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row
from tests.laws.scene import MINUTE, S
from tests.upstream.process import Upstream

HOUR = 60 * MINUTE


def stepped(scene: Scene, step: Callable[[Machine], None], **machine: object) -> Verdict:
    """Work, with answers lost; the step; work on it."""
    faults = (
        {"do": "lose", "commit": scene.dice.random() < 0.5} if scene.dice.random() < 0.3 else None for _ in range(40)
    )
    with Upstream(scene.where / "store") as billing, Machine(scene, billing, faults=faults) as one:
        one.use(scene.dice.randint(1, 3))
        one.deliver(scene.dice.choice([1, 60]))
        step(one)
        one.use(scene.dice.randint(1, 3))
        one.deliver(scene.dice.choice([1, 60]))
        one.use(1)
        one.end()
        return verdict(billing, [one], known=("reboot",))


def moved(seconds: int, *, confirmed: bool) -> Callable[[Machine], None]:
    """The wall clock steps."""

    def step(one: Machine) -> None:
        one.synchronised = confirmed
        one.wall += seconds * S

    return step


STEPS = {
    "plus_1h": ("the wall clock is an hour ahead, and confirmed", moved(3600, confirmed=True)),
    "minus_1h": ("it is set back an hour, confirmed", moved(-3600, confirmed=True)),
    "plus_1h_unconfirmed": ("it is an hour ahead, and nobody confirms it", moved(3600, confirmed=False)),
    "minus_1h_unconfirmed": ("it is set back an hour, and nobody confirms it", moved(-3600, confirmed=False)),
    "minus_1d": ("it is set back a day", moved(-DAY, confirmed=True)),
    "minus_1d_unconfirmed": ("it is set back a day, and nobody confirms it", moved(-DAY, confirmed=False)),
}


def _listed(name: str, says: str, step: Callable[[Machine], None]) -> None:
    @row(f"clock.{name}", says, trials=10)
    def _(scene: Scene) -> Verdict:
        return stepped(scene, step)


for _name, (_says, _step) in STEPS.items():
    _listed(_name, _says, _step)


@row("clock.plus_24h_for_20m", "it is a day ahead for twenty minutes", trials=10)
def _plus_24h(scene: Scene) -> Verdict:
    def step(one: Machine) -> None:
        one.synchronised = scene.dice.random() < 0.5
        one.wall += DAY * S
        one.use(20)
        one.deliver(1)
        one.wall -= DAY * S

    return stepped(scene, step)


@row("clock.boot_at_1970", "the machine boots in 1970, and learns the time later", trials=10)
def _boot_at_1970(scene: Scene) -> Verdict:
    def step(one: Machine) -> None:
        true = one.wall
        one.sweep(after=S)
        one.kill()
        one.reboot(90 * S)
        one.wall, one.synchronised = 90 * S, False
        one.start().use(3)
        one.deliver(1)
        one.wall, one.synchronised = true + 500 * S, True

    return stepped(scene, step)


@row("clock.suspend", "the machine is suspended for hours, a request under way or not", trials=10)
def _suspend(scene: Scene) -> Verdict:
    return _asleep(scene, scene.dice.randrange(HOUR, 9 * HOUR), monotonic=False)


@row("clock.stopped_10m", "the process is stopped for ten minutes, by its clocks", trials=10)
def _stopped_10m(scene: Scene) -> Verdict:
    return _asleep(scene, 10 * MINUTE, monotonic=True)


def _asleep(scene: Scene, ns: int, *, monotonic: bool) -> Verdict:
    """Nothing runs for so long: between two sweeps, or while a request is under way."""

    def sleep(one: Machine) -> None:
        before = one.monotonic
        one.pass_time(ns)
        one.monotonic = one.monotonic if monotonic else before

    def step(one: Machine) -> None:
        if scene.dice.random() < 0.5:
            sleep(one)
            return

        def amid() -> None:
            one.sending = lambda: None
            sleep(one)

        one.use(1)
        one.sending = amid
        one.deliver(60)

    return stepped(scene, step)


@row("clock.jump_across_restart", "the wall clock jumps while the agent is down", trials=10)
def _jump_across_restart(scene: Scene) -> Verdict:
    def step(one: Machine) -> None:
        one.kill()
        one.wall += scene.dice.choice([-DAY, -3600, 3600, DAY]) * S
        one.synchronised = scene.dice.random() < 0.5
        one.pass_time(30 * S)
        one.start()

    return stepped(scene, step)


def _set_back(one: Machine, after: int) -> None:
    """When so many requests have left, the clock is set back an hour, and that is confirmed by the next sweep."""

    def back() -> None:
        nonlocal after
        after -= 1
        if after == 0:
            one.wall -= HOUR
            one.sweep()

    one.sending = back


@row("clock.back_horizon_zero", "set back while an answer is lost by a system that knows no ids", trials=10)
def _back_horizon_zero(scene: Scene) -> Verdict:
    faults = [{"do": "lose"}] * 2
    with (
        Upstream(scene.where / "store", {"dedupe": False}) as billing,
        Machine(scene, billing, faults=faults, dedupe_horizon=0) as one,
    ):
        one.use(3)
        _set_back(one, scene.dice.choice([1, 2]))
        one.deliver(3 * 3600)
        one.end()
        return verdict(billing, [one])


@row("clock.back_retries", "set back while an answer is lost: the retry comes as soon as without", trials=10)
def _back_retries(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing, faults=[{"do": "lose"}] * 8) as one:
        one.use(3)
        one.deliver(6)
        one.wall -= HOUR
        one.sweep(after=S)
        one.deliver(15 * 60)
        late = one.owed()
        one.end()
        found = verdict(billing, [one])
    why = "a quarter of an hour after the step a retry still waits"
    return found if not late else Verdict(found.obligations, found.lost + 1, found.doubled, found.stuck, (why,))


@row("clock.time_namespace", "the clock of the boot jumps across a restart, in a real time namespace", trials=8)
def _time_namespace(scene: Scene) -> Verdict:
    with Place(scene) as place:
        place.configure({"max_batch": 100})  # its windows are of a second
        place.ready()
        time.sleep(scene.dice.uniform(0.2, 1.5))
        assert place.life is not None
        place.life.kill()
        place.ahead = scene.dice.choice([60, 300, 600])
        place.kept_alive(scene.dice.uniform(1.2, 2.4))
        place.settle()
        return place.verdict()


@row("clock.sigstop", "the daemon is stopped by SIGSTOP for seconds, again and again", trials=10)
def _sigstop(scene: Scene) -> Verdict:
    with Place(scene, plan={"seed": scene.seed, "chance": 0.3}) as place:
        place.ready()
        for _ in range(3):
            time.sleep(scene.dice.uniform(0, 0.8))
            assert place.life is not None
            place.life.signal(signal.SIGSTOP)
            scene.struck["SIGSTOP"] += 1
            time.sleep(scene.dice.uniform(0.1, 2.2))
            place.life.signal(signal.SIGCONT)
        place.settle()
        return place.verdict()

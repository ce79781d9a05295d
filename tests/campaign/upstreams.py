"""The billing system misbehaves: another process, over TCP, by the vendors' rules. See tests/upstream/plan.py."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import trustme

from tests.campaign.machine import DAY, PATHS, Machine, verdict
from tests.campaign.place import Place
from tests.campaign.row import Scene, Verdict, row
from tests.laws.scene import MINUTE, S
from tests.upstream.plan import AMONG
from tests.upstream.process import Upstream, certificates

HOUR = 60 * MINUTE
Faults = Iterator[Mapping[str, Any] | None]


def some(scene: Scene, *faults: Mapping[str, Any], chance: float = 0.5, requests: int = 24) -> Faults:
    """So many requests, of which each meets one of these faults by chance; the first does."""
    for number in range(requests):
        fault = scene.dice.choice(faults) if number == 0 or scene.dice.random() < chance else None
        if fault is not None:
            scene.struck[f"upstream: {fault['do']}"] += 1
        yield fault


def told(scene: Scene, faults: Faults, plan: Mapping[str, Any] | None = None, **machine: Any) -> Verdict:
    """Usage in three parts, sent while these faults strike."""
    with (
        Upstream(scene.where / "store", dict(plan or {})) as billing,
        Machine(scene, billing, faults=faults, **machine) as one,
    ):
        for _ in range(3):
            one.use(scene.dice.randint(1, 3))
            one.deliver()
        one.end()
        return verdict(billing, [one])


def status(code: int, *, commit: bool, **more: Any) -> dict[str, Any]:
    """An answer with a status, billed or not."""
    return {"do": "status", "code": code, "commit": commit, **more}


SERVER = (500, 502, 503, 504)
PLAIN: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "lost_answer": ("takes it and loses the answer", [{"do": "lose"}]),
    "lost_request": ("loses the request", [{"do": "lose", "commit": False}]),
    "429": ("is busy, with Retry-After", [status(429, commit=False, after=7)]),
    "5xx_before": ("answers 500, 502, 503 or 504 and takes nothing", [status(code, commit=False) for code in SERVER]),
    "5xx_after": ("answers 500, 502, 503 or 504 although it took it", [status(code, commit=True) for code in SERVER]),
    "garbage": ("answers what is no HTTP", [{"do": "garbage"}]),
    "partial_answer": ("ends amid its answer", [{"do": "partial"}, {"do": "partial", "commit": False}]),
    "slow": ("answers after our patience", [{"do": "slow", "seconds": 0.45}]),
    "drip": ("answers byte by byte", [{"do": "drip", "seconds": 0.001}]),
    "hangup": ("hangs up after its answer", [{"do": "hangup"}]),
    "half_taken": ("takes half a batch, and fails", [{"do": "half"}]),
    "cut_request": ("ends amid our request's body", [{"do": "cut"}]),
    "refused": ("refuses connections", [{"do": "refuse", "seconds": 0.05}]),
    "redirect": ("sends us elsewhere", [{"do": "redirect"}]),
    "schedule": ("does any of these, as a seed has it", [asdict(fault) for fault in AMONG]),
}


def _listed(name: str, says: str, faults: list[dict[str, Any]], trials: int) -> None:
    @row(f"upstream.{name}", f"it {says}", trials=trials)
    def _(scene: Scene) -> Verdict:
        profile = scene.dice.choice(["openmeter-v1", "openmeter-v3"])
        unit = scene.dice.choice(["cpu", "cpu_seconds"])
        return told(scene, some(scene, *faults), profile=profile, unit=unit)


for _name, (_says, _faults) in PLAIN.items():
    _listed(_name, _says, _faults, 60 if _name == "schedule" else 10)


@row("upstream.horizon_zero", "it knows no ids and loses answers: nothing may be sent twice", trials=10)
def _horizon_zero(scene: Scene) -> Verdict:
    return told(scene, some(scene, {"do": "lose"}, {"do": "partial"}), {"dedupe": False}, dedupe_horizon=0)


@row("upstream.first_duplicate", "it claims to have what was never sent to it", trials=10)
def _first_duplicate(scene: Scene) -> Verdict:
    return told(scene, some(scene, {"do": "duplicate"}, chance=0.3), profile="generic", max_batch=1)


@row("upstream.poison", "it refuses one customer's records among good ones, and loses answers", trials=10)
def _poison(scene: Scene) -> Verdict:
    return told(scene, some(scene, {"do": "lose"}, {"do": "half"}, chance=0.3), {"poison": ["cus_beta"]}, max_batch=6)


@row("upstream.too_large", "it takes smaller batches than it is sent", trials=10)
def _too_large(scene: Scene) -> Verdict:
    return told(scene, some(scene, {"do": "lose"}, chance=0.3), {"max_events": 2}, max_batch=8)


@row("upstream.wrong_token", "it refuses our token until the file has another", trials=10)
def _wrong_token(scene: Scene) -> Verdict:
    token = scene.where / "token"
    token.write_text("old")
    with Upstream(scene.where / "store", {"token": "new"}) as billing, Machine(scene, billing, token_file=token) as one:
        one.use(2)
        one.deliver(600)
        token.write_text("new")
        one.use(2)
        one.end()
        return verdict(billing, [one])


@row("upstream.expired_certificate", "its certificate is past its time, and later renewed", trials=10)
def _expired_certificate(scene: Scene) -> Verdict:
    authority = trustme.CA()
    old, new = (certificates(scene.where / name, authority, expired=name == "old") for name in ("old", "new"))
    with Upstream(scene.where / "store", tls=old) as billing, Machine(scene, billing, tls=old, timeout=5 * S) as one:
        one.use(2)
        one.deliver(3 * 3600)
        assert billing.totals().arrivals == 0
        billing.set_certificate(new)
        one.use(2)
        one.end()
        return verdict(billing, [one])


@contextmanager
def unnamed(scene: Scene) -> Iterator[Path]:
    """A resolver that knows nobody; the file that is given can name somebody. In this mount namespace alone."""
    hosts, resolver = scene.where / "hosts", scene.where / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    bound: list[str] = []
    try:
        for file, place in ((hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")):
            subprocess.run(["mount", "--bind", str(file), place], check=True)
            bound.append(place)
        yield hosts
    finally:
        for place in bound:
            subprocess.run(["umount", place], check=True)


@row("upstream.dns", "its name has no address for an hour", trials=10)
def _dns(scene: Scene) -> Verdict:
    with unnamed(scene) as hosts, Upstream(scene.where / "store") as billing:
        url = billing.url.replace("127.0.0.1", "billing.example") + PATHS["openmeter-v1"]
        with Machine(scene, billing, url=url, timeout=2 * S) as one:
            one.use(2)
            one.deliver(3600)
            assert billing.totals().arrivals == 0
            hosts.write_text("127.0.0.1 localhost billing.example\n")
            one.use(2)
            one.end()
            return verdict(billing, [one])


@row("upstream.killed", "it dies by kill -9 between requests, and comes back", trials=10)
def _killed(scene: Scene) -> Verdict:
    with Upstream(scene.where / "store") as billing, Machine(scene, billing, max_batch=1) as one:

        def die() -> None:
            if scene.dice.random() < 0.3:
                scene.struck["upstream: killed"] += 1
                billing.stop()
                if scene.dice.random() < 0.5:
                    billing.start()

        for _ in range(3):
            one.use(2)
            one.sending = die
            one.deliver(120)
            one.sending = lambda: None
            billing.stop()
            billing.start()
        one.end()
        return verdict(billing, [one])


def _down(scene: Scene, days: int, *, horizon: int, first: Mapping[str, Any]) -> Verdict:
    """Down for days by the machine's clock, from the second request on, while usage goes on."""
    with (
        Upstream(scene.where / "store") as billing,
        Machine(scene, billing, faults=[first], dedupe_horizon=horizon, window=HOUR) as one,
    ):
        sent = count()
        one.sending = lambda: billing.stop() if next(sent) == 1 else None
        one.use(60)
        one.deliver(60)
        one.sending = lambda: None
        for _ in range(days):
            one.use(60)
            one.deliver(DAY)
        billing.start()
        one.end()
        return verdict(billing, [one])


@row("upstream.down_7_days", "it is down for seven days", trials=4)
def _down_7_days(scene: Scene) -> Verdict:
    return _down(scene, 7, horizon=32 * DAY * S, first={"do": "lose"})


@row("upstream.down_past_horizon", "an answer is lost, and it is down until it knows the id no longer", trials=6)
def _down_past_horizon(scene: Scene) -> Verdict:
    return _down(scene, 1, horizon=DAY * S // 2, first={"do": "lose", "commit": scene.dice.random() < 0.5})


@row("upstream.daemon", "the daemon itself, while any of these strikes every other request", trials=10)
def _daemon(scene: Scene) -> Verdict:
    with Place(scene, plan={"seed": scene.seed, "chance": 0.5}) as place:
        place.ready()
        time.sleep(3.2)
        scene.struck.update({f"upstream: {name}": n for name, n in place.upstream.struck().items() if name != "none"})
        place.settle()
        return place.verdict()

"""A hostile billing system, as a program of its own: it follows its vendors' rules, and a plan of faults.

    python -m tests.upstream.server --port 8200 --lose-every 3 --store FILE     until it is killed, at any instant
    python -m tests.upstream.server --totals FILE                               what it holds

It prints where it listens, and where it is told another plan: `PUT CONTROL/plan` with some of a plan's keys as JSON,
`PUT CONTROL/certificate` with `cert` and `key`; `GET CONTROL/struck` counts the faults. Its rules, its faults and what
it keeps are in `rules.py`, `plan.py` and `store.py` beside it.
"""

import argparse
import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.upstream.plan import Fault, Mischief, Plan
from tests.upstream.rules import V1, V1_METERS, V3, V3_METERS, Judged, authorised, judge, meters, success
from tests.upstream.store import Store, read
from tests.upstream.wire import Head, Reply, answer, next_head, problem, write

Answering = Callable[[Head, asyncio.StreamReader], Awaitable[Reply]]
SILENCE = Reply(b"", ends=True)


class Server:
    """Listens, judges, keeps, misbehaves."""

    def __init__(self, store: Store, plan: Plan, tls: ssl.SSLContext | None = None) -> None:
        self._store, self._plan, self._tls = store, plan, tls
        self._mischief = Mischief(plan)
        self._open: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None  # while it refuses connections
        self.port = 0

    async def listen(self, port: int) -> None:
        """Take connections on loopback."""
        serve = self._serving(self._events, self._open)
        self._listener = await asyncio.start_server(serve, "127.0.0.1", port, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def listen_for_control(self, port: int) -> int:
        """Take another plan on a port of its own, which no fault touches. Returns the port."""
        listener = await asyncio.start_server(self._serving(self._control, set()), "127.0.0.1", port)
        return int(listener.sockets[0].getsockname()[1])

    def _serving(
        self, answering: Answering, open_: set[asyncio.StreamWriter]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        """Serve one connection, request after request, until a reply ends it."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_.add(writer)
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, ValueError):
                ends = False
                while not ends:
                    reply = await answering(await next_head(reader), reader)
                    await write(writer, reply)
                    ends = reply.ends
            open_.discard(writer)
            if not writer.is_closing():
                writer.close()

        return serve

    async def _control(self, head: Head, reader: asyncio.StreamReader) -> Reply:
        given = json.loads(await reader.readexactly(head.length) or b"null")
        try:
            match head.method, head.path:
                case "PUT", "/plan":
                    self._plan = self._plan.changed(given)
                    self._mischief.follow(self._plan)
                case "PUT", "/certificate" if self._tls is not None:
                    self._tls.load_cert_chain(given["cert"], given["key"])
                case "GET", "/struck":
                    pass
                case _:
                    return self._say(404, f"{head.method} {head.path}: no such thing here")
        except (ValueError, TypeError, OSError) as error:
            return self._say(400, str(error))
        return Reply(answer(200, self._now(), json.dumps(self._mischief.struck).encode()))

    async def _events(self, head: Head, reader: asyncio.StreamReader) -> Reply:
        if head.method != "POST":
            return self._other(head)
        fault = self._mischief.next()
        if fault is not None and fault.do in ("cut", "refuse"):
            await reader.readexactly(head.length // 2)
            if fault.do == "refuse":
                self._refuse(fault.seconds)
            return SILENCE
        judged = judge(head.path, head.headers, await reader.readexactly(head.length), self._plan)
        return self._take(head.path, judged) if fault is None else self._misbehave(fault, head.path, judged)

    def _other(self, head: Head) -> Reply:
        """What is no event.

        OpenMeter lists its meters; a webhook allows its sender by OPTIONS (CloudEvents HTTP web hooks §4.2).
        """
        if not authorised(head.headers, self._plan.token):
            return self._say(401, "no such token")
        if head.method == "OPTIONS" and head.path not in (V1, V3):
            origin = head.headers.get("webhook-request-origin", "*")
            allowed = f"Allow: POST\r\nWebHook-Allowed-Origin: {origin}\r\n"
            return Reply(answer(200, self._now(), b"", allowed))
        path = head.path.partition("?")[0]
        if head.method == "GET" and path in (V1_METERS, V3_METERS):
            return Reply(answer(200, self._now(), meters(path, self._plan.meters)))
        return self._say(405, f"{head.method} is not taken here", "Allow: POST\r\n")

    # -- events ----------------------------------------------------------------------------------------------------

    def _take(self, path: str, judged: Judged) -> Reply:
        """Keep what follows the rules, and say so."""
        self._keep(judged, len(judged.taken))
        if judged.refused is not None:
            return self._say(judged.refused.status, str(judged.refused))
        return Reply(answer(success(path), self._now()))

    def _keep(self, judged: Judged, taken: int) -> None:
        """Keep so many; of the others note what they met. The answer may be given when this returns."""
        now, plan = self._now(), self._plan
        self._store.keep(judged.taken[:taken], now, plan.window if plan.dedupe else None)
        self._store.note(judged.rest[:1], now, "refused")
        self._store.note([*judged.taken[taken:], *judged.rest[1:]], now, "turned")

    def _misbehave(self, fault: Fault, path: str, judged: Judged) -> Reply:
        """What comes of a request that a fault strikes."""
        if fault.do in ("half", "duplicate", "redirect"):
            self._keep(judged, len(judged.taken) // 2 if fault.do == "half" else 0)
            location = f"Location: {fault.to}\r\n" if fault.do == "redirect" else ""
            return self._say({"half": 500, "duplicate": 409, "redirect": 307}[fault.do], "as planned", location)
        if fault.commit:
            reply = self._take(path, judged)
        else:
            self._keep(judged, 0)
            reply = self._say(503, "come back later")
        if fault.do == "status":
            after = "" if fault.after is None else f"Retry-After: {fault.after}\r\n"
            return self._say(fault.code, "as planned", after)
        return {
            "lose": SILENCE,
            "garbage": Reply(b"\x16\x03\x01 this is no HTTP\r\n\r\n", ends=True),
            "partial": Reply(reply.text[: len(reply.text) // 2], ends=True),
            "slow": Reply(reply.text, late=fault.seconds),
            "drip": Reply(reply.text, gap=fault.seconds),
            "hangup": Reply(reply.text, ends=True),
        }[fault.do]

    def _refuse(self, seconds: float) -> None:
        """End every connection and take no new one for a while."""
        if self._listener is None or (self._reopening and not self._reopening.done()):
            return
        self._listener.close()
        for writer in self._open:
            writer.transport.abort()
        self._reopening = asyncio.create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.listen(self.port)

    def _say(self, status: int, why: str, headers: str = "") -> Reply:
        return Reply(answer(status, self._now(), problem(status, why), headers))

    def _now(self) -> float:
        return time.time() + self._plan.ahead


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _serve(options: argparse.Namespace, plan: Plan) -> None:
    tls = _context(options.cert, options.key, options.client_ca) if options.cert else None
    server = Server(Store(options.store), plan, tls)  # killed at any instant, it closes nothing
    await server.listen(options.port)
    control = await server.listen_for_control(options.control)
    scheme = "https" if tls else "http"
    told = {"url": f"{scheme}://127.0.0.1:{server.port}", "control": f"http://127.0.0.1:{control}"}
    print(json.dumps(told), flush=True)
    await asyncio.Event().wait()


def _tell(path: Path) -> None:
    totals = read(path)
    rows = [("subject", "type", "total"), *((*what, f"{total:f}") for what, total in sorted(totals.sums.items()))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for subject, kind, total in rows:
        print(f"{subject:{widths[0]}}  {kind:{widths[1]}}  {total:>{widths[2]}}")
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(totals.fates.items()))
    print(f"\n{totals.arrivals} events arrived: {fates or 'none'}")
    print(f"{len(totals.kept)} ids billed, {len(totals.doubled)} more than once, {len(totals.changed)} came changed")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream.server", description=__doc__.splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    add("--control", type=int, default=0, help="where it is told another plan; 0 takes a free one")
    add("--store", type=Path, help="the file that it keeps events in")
    add("--plan", default="{}", help="JSON: see tests/upstream/plan.py")
    add("--lose-every", type=int, default=0, metavar="N", help="bill every Nth request and lose its answer")
    add("--seed", type=int, help="faults by chance, the same each time")
    add("--no-dedupe", action="store_true", help="bill a repeated id again")
    add("--token", help="the only bearer token that may send")
    add("--cert", type=Path, help="speak TLS, with this certificate")
    add("--key", type=Path, help="and its key")
    add("--client-ca", type=Path, help="and ask for certificates by this authority")
    add("--totals", type=Path, metavar="FILE", help="print what a store holds, and leave")
    return parser


def main() -> None:
    """Serve until killed, or tell the totals."""
    parser = _options()
    options = parser.parse_args()
    if options.totals:
        return _tell(options.totals)
    if not options.store:
        parser.error("--store: where should it keep events? Name a file.")
    given = {"every": options.lose_every, "seed": options.seed, "dedupe": not options.no_dedupe, "token": options.token}
    try:
        plan = Plan().changed(given | json.loads(options.plan))
    except (ValueError, TypeError) as error:
        parser.error(f"--plan: {error}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options, plan))
    return None


if __name__ == "__main__":
    main()

"""The page on sinks: its vendor that nobody has heard of is billed by what stands there, and its table is whole."""

import asyncio
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from agent.config.sinks.http import Preset
from agent.kinds import SINKS, build_sink
from agent.sinks import Entry
from tests.config.written import load, text
from tests.docs.pages import block, code, page, section, table
from tests.sinks.double import Request, Serve, listening, read_request
from tests.sinks.settling import settled
from tests.sinks.test_cloudevents import MINUTE, START, entry, record

PAGE = page("docs/sinks.md")
WRITTEN = block(section(PAGE, "A vendor we never heard of"), "yaml")

METERS = "meters: [{meter: cpu.time, dimension: cpu_core_seconds, group_by: [unit]}]"


def test_every_kind_and_every_preset_stands_in_the_table() -> None:
    """With what it was tried against."""
    rows = [row[0] for row in table(PAGE)]
    assert set(re.findall(r"^`([a-z0-9]+)`", "\n".join(rows), re.MULTILINE)) == set(SINKS)
    assert set(re.findall(r"preset: ([a-z0-9]+)", "\n".join(rows))) == set(get_args(Preset))
    assert code(rows[0]) == "file"


class Tollgate:
    """It takes what the page says that it takes; it imports nothing of the agent. Each third answer is lost."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, object]] = {}
        self.asked: list[Request] = []

    def answer(self, request: Request) -> tuple[int, dict[str, object]] | None:
        """Status and body; None: lost."""
        self.asked.append(request)
        said = json.loads(request.body)
        assert (request.target, request.headers["x-tollgate-key"], said["mode"]) == ("/v2/usage", "k3y", "partial")
        if len(said["usage"]) > 4:
            return 413, {}
        refused = [{"ref": usage["ref"], "why": "SEEN"} for usage in said["usage"] if usage["ref"] in self.held]
        refused += [{"ref": usage["ref"], "why": "UNKNOWN"} for usage in said["usage"] if usage["what"] == "bad"]
        for usage in said["usage"]:
            if usage["what"] != "bad":
                self.held.setdefault(usage["ref"], usage)
        return None if len(self.asked) % 3 == 0 else (202, {"refused": refused})


def test_the_vendor_of_the_page_is_billed_by_its_yaml_alone(tmp_path: Path) -> None:
    """Every record once, the wrong one held, with the vendor's word for it."""
    (tmp_path / "key").write_text("k3y")
    tollgate = Tollgate()

    async def story() -> dict[int, tuple[str, str]]:
        async with listening(_serving(tollgate)) as port:
            sinks = WRITTEN.replace("https://tollgate.example", f"http://127.0.0.1:{port}")
            sinks = sinks.replace("/run/secrets/tollgate", str(tmp_path / "key"))
            sink = build_sink(load(text(meters=METERS, sinks=sinks)).sinks[0])
            try:
                told = [(n, "bad" if n == 7 else "cpu") for n in range(20)]
                return await settled(sink, [sink.render(_entry(n, what)) for n, what in told])
            finally:
                await sink.close()

    ends = asyncio.run(story())
    assert {seq for seq, (outcome, _) in ends.items() if outcome == "rejected"} == {8}
    assert "UNKNOWN" in ends[8][1]
    assert {outcome for outcome, _ in ends.values()} <= {"delivered", "duplicate", "rejected"}
    assert sorted(str(usage["amount"]) for usage in tollgate.held.values()) == sorted(
        f"{n}.5" for n in range(20) if n != 7
    )


def test_a_page_that_is_wrong_would_be_noticed() -> None:
    """Without its id the section is refused."""
    with pytest.raises(Exception, match="drops the record's id"):
        load(
            text(meters="meters: [{meter: cpu.time, dimension: cpu_core_seconds}]", sinks=WRITTEN.replace("{id}", "x"))
        )


def _entry(n: int, what: str) -> Entry:
    of = record(start=START + n * MINUTE, end=START + (n + 1) * MINUTE)
    return entry(of, value=f"{n}.5", dimension=what, at=of.end)


def _serving(tollgate: Tollgate) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None and (said := tollgate.answer(request)) is not None:
            body = json.dumps(said[1]).encode()
            writer.write(f"HTTP/1.1 {said[0]} Said\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    return serve

"""Rows in a PostgreSQL table of one's own, whose primary key is the record's id: it knows a repeat for ever.

A submission is one transaction. Nothing of it is there before COMMIT is sent, so that whatever fails earlier surely
left nothing; what fails after it may be there, and is settled by sending the same ids again. What is frozen is JSON,
which the server itself takes apart: one statement for thousands of rows, and no value is a float on its way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import LiteralString

import msgspec
import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, sql

from agent.credentials import Password, UnusableError
from agent.errors import SinkError
from agent.model import NS_PER_S
from agent.record import rfc3339
from agent.sinks import Answer, Entry, Finding, Holding, Outcome, Terms
from agent.sinks.row import FIELDS, row
from agent.spool.outbox import Submission

CONNECT_SECONDS = 10
REFUSED = ("authentication", "pg_hba", "not exist")  # libpq gives no code for what is said while it connects
READ_ROWS = 5_000  # at a time, where the table is read back

TYPES: dict[str, LiteralString] = {
    **dict.fromkeys(FIELDS, "text"),
    **dict.fromkeys(("id", "corrects"), "uuid"),
    **dict.fromkeys(("at", "window_start", "window_end"), "timestamptz"),
    **dict.fromkeys(("quantity", "bound"), "numeric"),
    "labels": "jsonb",
    "flags": "text[]",
}
OPTIONAL = ("corrects", "reason", "bound")

_CREATE = sql.SQL("CREATE TABLE IF NOT EXISTS {table} ({columns}, recorded_at timestamptz NOT NULL DEFAULT now())")
_ONE_AT_A_TIME: LiteralString = "SELECT pg_advisory_xact_lock(hashtext('metering-agent'))"  # a fleet starts together
# Of a server that acknowledges before it has written, an acknowledged row could be lost.
_DURABLE: LiteralString = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_QUANTITY: LiteralString = (
    "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
    " WHERE attname = 'quantity' AND attrelid = to_regclass(%s)"
)
_INSERT = sql.SQL(
    "INSERT INTO {table} ({names}) SELECT {names} FROM json_to_recordset(%s) AS given ({typed})"
    " ON CONFLICT (id) DO NOTHING RETURNING id::text"
)
_COMPARE = sql.SQL(
    "SELECT kept.id::text, ({kept}) IS NOT DISTINCT FROM ({given})"
    " FROM json_to_recordset(%s) AS given ({typed}) JOIN {table} AS kept ON kept.id = given.id"
)
_HELD = sql.SQL(
    "SELECT customer, dimension, quantity::text, (extract(epoch FROM at) * 1000000)::bigint, id::text FROM {table}"
    " WHERE at >= %s AND at < %s AND customer = ANY(%s)"
)


class _Identified(Struct):
    id: str


_identified = msgspec.json.Decoder(_Identified)


class PostgresSink:
    """Inserts into one table. At most `concurrency` connections are kept."""

    kind = "postgres"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        table: str = "usage_records",
        *,
        password_file: Path | None = None,
        create: bool = True,
        timeout: int = 30 * NS_PER_S,
        max_batch: int = 5_000,
        max_bytes: int = 16 << 20,
        concurrency: int = 2,
        max_age: int | None = None,
        negative: bool = True,
    ) -> None:
        """Open nothing yet. `url` is libpq's, `table` may have a schema before a dot, `timeout` is in ns.

        `create`: make the table where it is missing.
        """
        self.id, self.role = sink_id, role
        self.terms = Terms(
            max_batch=max_batch, max_bytes=max_bytes, concurrency=concurrency, max_age=max_age, negative=negative
        )
        self._url, self._name, self._create, self._seconds = url, table, create, timeout / NS_PER_S
        self._password = None if password_file is None else Password(password_file)
        self._free: list[AsyncConnection] = []
        self._checked = False
        names = {
            "table": sql.Identifier(*table.split(".")),
            "names": sql.SQL(", ").join(map(sql.Identifier, FIELDS)),
            "typed": sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(f), sql.SQL(TYPES[f])) for f in FIELDS),
            "kept": sql.SQL(", ").join(sql.Identifier("kept", name) for name in FIELDS),
            "given": sql.SQL(", ").join(sql.Identifier("given", name) for name in FIELDS),
            "columns": sql.SQL(", ").join(map(_column, FIELDS)),
        }
        self._made, self._insert = _CREATE.format(**names), _INSERT.format(**names)
        self._compare, self._held = _COMPARE.format(**names), _HELD.format(**names)

    def render(self, entry: Entry) -> bytes:
        """One row as canonical JSON."""
        return row(entry)

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Insert the rows as they were frozen, in one transaction."""
        connection: AsyncConnection | None = None
        committing = False
        try:
            async with asyncio.timeout(self._seconds):
                connection = await self._take()
                items = await self._write(connection, submission)
                committing = True
                await connection.commit()
        except UnusableError as error:
            why = f"sinks[{self.id}].{error}. Mend the file; nothing is sent without it."
            answer = Answer(outcome="retry", why=why, left=False, blocked=True)
        except TimeoutError:
            answer = self._failed(connection, None, f"not done within {self._seconds:g} s", committing)
        except psycopg.Error as error:
            answer = self._failed(connection, error.sqlstate, _said(error), committing)
        else:
            self._free.append(connection)
            connection = None
            new = sum(outcome == "delivered" for outcome, _ in items.values())
            answer = Answer(outcome="delivered", why=f"{new} of {len(items)} rows are new", items=items)
        finally:
            if connection is not None:
                await connection.close()
        return answer

    async def ask(self) -> list[Finding]:
        """Whether it can be reached, has the table, and would take rows: an insert of none tries every column."""
        cure = f"Mend sinks[{self.id}].url or password_file."
        connection: AsyncConnection | None = None
        try:
            async with asyncio.timeout(self._seconds):
                connection = await self._take()
                cure = f"Mend the table {self._name}, or grant INSERT and SELECT on it."
                await connection.execute(self._insert, ("[]",))
                await connection.execute(self._compare, ("[]",))
                synced = await (await connection.execute("SELECT current_setting('fsync')")).fetchone()
                await connection.rollback()
        except (UnusableError, TimeoutError, psycopg.Error) as error:
            return [Finding("table", False, _said(error) or f"not done within {self._seconds:g} s", cure)]
        finally:
            if connection is not None:
                await connection.close()
        cure = "Set fsync = on in that server: with it off, what it acknowledged is lost with its power."
        return [Finding("table", True, self._name), Finding("fsync", synced == ("on",), f"fsync is {synced}", cure)]

    async def holdings(self, start: int, end: int, customers: Collection[str]) -> AsyncIterator[Holding]:
        """All rows of these customers whose `at` lies in `[start, end)`, ns. Raises SinkError with the cure."""
        connection: AsyncConnection | None = None
        try:
            connection = await self._take()
            async with connection.cursor("holdings") as cursor:
                cursor.itersize = READ_ROWS
                await cursor.execute(self._held, (rfc3339(start), rfc3339(end), list(customers)))
                async for customer, dimension, value, at, name in cursor:
                    yield Holding(customer, dimension, value, at * 1_000, name)
        except (UnusableError, psycopg.Error) as error:
            cure = f"Mend sinks[{self.id}], or grant SELECT on {self._name}."
            raise SinkError(f"sinks[{self.id}]: {_said(error)}. {cure}") from error
        finally:
            if connection is not None:
                await connection.close()

    async def close(self) -> None:
        """Let go of every connection."""
        while self._free:
            await self._free.pop().close()

    # -- connections -----------------------------------------------------------------------------------------------

    async def _take(self) -> AsyncConnection:
        """One that is ready to write. Raises UnusableError and psycopg.Error."""
        if self._free:
            return self._free.pop()
        connection = await AsyncConnection.connect(
            self._url,
            password=None if self._password is None else self._password.text(),
            connect_timeout=CONNECT_SECONDS,
            application_name="metering-agent",
            prepare_threshold=None,  # a pooler between us may hand each transaction to another server process
        )
        try:
            await connection.execute(_DURABLE)
            await connection.commit()
            if not self._checked:
                await self._check(connection)
                self._checked = True
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check(self, connection: AsyncConnection) -> None:
        """Make the table where it is missing, and refuse one that would round. Raises psycopg.Error."""
        if self._create and not (await (await connection.execute(_QUANTITY, (self._name,))).fetchone()):
            await connection.execute(_ONE_AT_A_TIME)
            await connection.execute(self._made)
        found = await (await connection.execute(_QUANTITY, (self._name,))).fetchone()
        await connection.commit()
        if found is None:
            raise psycopg.errors.UndefinedTable(f"no table {self._name} with a column quantity")
        if found != ("numeric",):
            raise psycopg.errors.DatatypeMismatch(f"{self._name}.quantity is {found[0]}, which rounds: make it numeric")

    async def _write(self, connection: AsyncConnection, submission: Submission) -> dict[int, tuple[Outcome, str]]:
        """What became of each row, by sequence number. Raises psycopg.Error."""
        rows = b"[%b]" % b",".join(item.payload for item in submission.items)
        names = {_identified.decode(item.payload).id: item.seq for item in submission.items}
        added = {name for (name,) in await (await connection.execute(self._insert, (rows.decode(),))).fetchall()}
        items: dict[int, tuple[Outcome, str]] = {names[name]: ("delivered", "a new row") for name in added}
        if len(items) < len(names):
            same: dict[str, bool] = dict(await (await connection.execute(self._compare, (rows.decode(),))).fetchall())
            items |= {names[name]: _known(same.get(name)) for name in names.keys() - added}
        return items

    def _failed(self, connection: AsyncConnection | None, state: str | None, said: str, committing: bool) -> Answer:
        """What an attempt that failed means. Before COMMIT was sent, nothing of it can be there."""
        kind = (state or "")[:2]
        if connection is None:
            wrong = kind in ("28", "3D", "42") or any(
                text in said for text in ("authentication", "pg_hba", "not exist")
            )
            cure = f". Mend sinks[{self.id}] or its table; everything is kept" if wrong else ""
            return Answer(outcome="retry", why=f"{said}{cure}", left=False, blocked=wrong)
        if committing and kind not in ("23", "40"):
            return Answer(outcome="ambiguous", why=f"no answer to COMMIT: {said}")
        if kind in ("22", "23", "54"):
            return Answer(outcome="split", why=said, definite=True)
        if kind in ("28", "3D", "42"):
            why = f"{said}. Mend the table {self._name} or what is granted on it; everything is kept"
            return Answer(outcome="retry", why=why, definite=True, blocked=True)
        return Answer(outcome="retry", why=said, definite=True)


def _column(name: str) -> sql.Composable:
    """One column of the table, as it is made."""
    rule: LiteralString = "PRIMARY KEY" if name == "id" else "" if name in OPTIONAL else "NOT NULL"
    return sql.SQL("{} {} {}").format(sql.Identifier(name), sql.SQL(TYPES[name]), sql.SQL(rule))


def _known(same: bool | None) -> tuple[Outcome, str]:
    """Of a row that was not added: whether the one with its id says the same; None: there is none."""
    if same is None:
        return "rejected", "the table took it and does not hold it: does a trigger discard it?"
    return ("duplicate", "the row was there") if same else ("conflict", "a row with this id says something else")


def _said(error: BaseException) -> str:
    """One line for people."""
    with contextlib.suppress(AttributeError):
        if (primary := error.diag.message_primary) is not None:  # type: ignore[attr-defined]
            return f"{error.sqlstate} {primary}"  # type: ignore[attr-defined]
    return " ".join(str(error).split())[:300]

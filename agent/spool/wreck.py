"""A damaged spool file, read as far as it can be, without changing a byte of it or of its WAL.

SQLite reads it through a file system of our own that checks every page of the database. A page that is lost reads as a
leaf with one row of nothing: so a scan goes on behind it, ends in bounded time, and shows where rows are missing. The
first page holds nothing but the schema, so a fresh file's own stands in for a lost one. Frames of the WAL have their
own checksums: SQLite reads them up to the first bad one.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from agent.spool.schema import CHECKSUM_BYTES, PAGE

_USED = PAGE - CHECKSUM_BYTES
_NOTHING = b"\x03\x00\x00"  # a record of two NULLs, for keys have at most two columns
_WAL = b"\2\2"  # the header's word that the file has one
_TABLE, _INDEX = 0x0D, 0x0A  # leaves of the two kinds of tree; WITHOUT ROWID tables are of the second
_words = struct.Struct(f"<{_USED // 4}I").unpack_from

Row = tuple[int | float | bytes | str | None, ...]


def sound(page: bytes) -> bool:
    """Whether a page has the checksum that SQLite's cksumvfs gave it. One of zeros only was never written."""
    first = second = 0
    words = iter(_words(page))
    for word in words:
        first = first + word + second & 0xFFFFFFFF
        second = second + next(words) + first & 0xFFFFFFFF
    return struct.pack("<II", first, second) == page[_USED:] and any(page)


def extended(error: apsw.Error) -> int:
    """SQLite's own number of what went wrong; apsw's stubs do not know it."""
    return int(getattr(error, "extendedresult", 0))


class Wreck:
    """One damaged file, open for reading. `fresh` is the first page of a new file of our format.

    `resigned`: what the disk refuses to read is lost too; else it raises apsw.IOError.
    """

    def __init__(self, path: Path, fresh: bytes, *, resigned: bool) -> None:
        self._vfs = _Vfs(fresh, resigned=resigned)
        self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=self._vfs.name)
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._db.pragma("locking_mode", "exclusive")  # the index of the WAL is kept in memory: no file is made

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row | None]:
        """Every row that can be read, in the order of the key; None where rows are missing, once or more often."""
        try:
            found = {name for (name,) in self._db.execute("SELECT name FROM pragma_table_info(?)", (table,))}
            packed = self._db.execute("SELECT wr FROM pragma_table_list WHERE name=?", (table,)).get
        except apsw.Error as error:
            self._refused(error)
            yield None
            return
        if not found >= set(columns):
            yield None  # a table of another format
        elif packed:
            yield from self._packed(table, columns)
        else:
            yield from self._plain(table, columns)

    def unsound(self, table: str) -> str | None:
        """What is wrong with a table's pages and indexes: also those that end early, which SQLite takes for zeros."""
        try:
            said = str(self._db.execute(f"PRAGMA quick_check({table})").get)
        except apsw.Error as error:
            self._refused(error)
            said = str(error)
        if self._vfs.lost:
            return f"{table}: pages are lost"
        return None if said == "ok" else said

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        self._vfs.unregister()

    def _packed(self, table: str, columns: Sequence[str]) -> Iterator[Row | None]:
        """A WITHOUT ROWID table. Behind a row that cannot be read nothing is found: its key cannot be passed over."""
        self._vfs.leaf = _INDEX
        query = f"SELECT NULL, {', '.join(columns)} FROM {table}"  # noqa: S608 - names of our own
        yield from (row for _, row in self._scan(query, ()))

    def _plain(self, table: str, columns: Sequence[str]) -> Iterator[Row | None]:
        """A table with row numbers. A row that cannot be read is passed over."""
        self._vfs.leaf = _TABLE
        last: int | None = -1  # before the row of nothing, whose number is 0
        while last is not None:
            query = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid>? ORDER BY rowid"  # noqa: S608
            broken = False
            for number, row in self._scan(query, (last,)):
                broken = number is None
                last = number or last
                yield row
            last = self._next(table, last) if broken else None

    def _next(self, table: str, after: int) -> int | None:
        try:
            numbers = self._db.execute(f"SELECT rowid FROM {table} WHERE rowid>? ORDER BY rowid", (after,))  # noqa: S608
            return next((number for (number,) in numbers if number > after), None)
        except apsw.Error as error:
            self._refused(error)
            return None

    def _scan(self, query: str, values: tuple[int, ...]) -> Iterator[tuple[int | None, Row | None]]:
        """(row number, row), and (None, None) last where it broke. A row that touched a lost page is not one."""
        lost = self._vfs.lost
        try:
            for number, *row in self._db.execute(query, values):
                yield number or 0, tuple(row) if lost == self._vfs.lost and number != 0 else None
                lost = self._vfs.lost
        except apsw.Error as error:
            self._refused(error)
            yield None, None

    def _refused(self, error: apsw.Error) -> None:
        """A disk that fails now may work later: that is not for us to give up."""
        if self._vfs.refusal is not None:
            raise self._vfs.refusal from error


class _Vfs(apsw.VFS):
    """Counts the pages that are lost."""

    def __init__(self, fresh: bytes, *, resigned: bool) -> None:
        self.name, self.fresh, self.resigned = f"wreck-{id(self)}", fresh, resigned
        self.leaf, self.lost = _TABLE, 0
        self.refusal: apsw.Error | None = None
        super().__init__(self.name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return (
            _Database(self, name, flags) if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else apsw.VFSFile("unix", name, flags)
        )


class _Database(apsw.VFSFile):
    """The database's own file: each page as it was written, or one that says it is lost."""

    def __init__(self, vfs: _Vfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._vfs = vfs
        size = super().xFileSize()
        first = self._stored(0)
        self._checked = first[20:21] != b"\0" or first[60:64] != b"\0\0\0\1"  # pages of format 1 had no checksums
        if not self._checked or sound(first):
            self._first, self._pages = first, max(size // PAGE, int.from_bytes(first[28:32]))
        else:
            self._pages = max(1, -(-size // PAGE))
            size_and_no_free_pages = self._pages.to_bytes(4) + bytes(8)
            self._first = vfs.fresh[:18] + _WAL + vfs.fresh[20:28] + size_and_no_free_pages + vfs.fresh[40:]

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        number, within = divmod(offset, PAGE)
        return self._page(number)[within : within + amount]

    def xFileSize(self) -> int:  # noqa: N802
        return self._pages * PAGE

    def xLock(self, level: int) -> None:  # noqa: N802
        """Nobody else has it: the directory is locked."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """As above."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        """As above."""
        return False

    def _page(self, number: int) -> bytes:
        if number == 0:
            return self._first
        page = self._stored(number)
        if not self._checked or sound(page):
            return page
        self._vfs.lost += 1
        row = bytes([len(_NOTHING)]) + (b"\0" if self._vfs.leaf == _TABLE else b"") + _NOTHING  # number 0, if any
        at = _USED - len(row)
        return struct.pack(">BHHHBH", self._vfs.leaf, 0, 1, at, 0, at).ljust(at, b"\0") + row + bytes(CHECKSUM_BYTES)

    def _stored(self, number: int) -> bytes:
        try:
            return super().xRead(PAGE, number * PAGE).ljust(PAGE, b"\0")
        except apsw.IOError as error:
            if not self._vfs.resigned and extended(error) != apsw.SQLITE_IOERR_SHORT_READ:
                self._vfs.refusal = error
                raise
            return bytes(PAGE)

"""Who we are to a server, and whom we trust: a bearer token and PEM files, as they stand on disk now.

Nothing here ends up in a log, a repr or an error but the names of files.
"""

import ssl
from collections import deque
from pathlib import Path

from msgspec import Struct

TOKEN_BYTES = 16 * 1024
HELD = 4  # tokens that a late answer may still repeat


class UnusableError(Exception):
    """A file cannot be used: one line with its setting, its path and what is wrong."""


class Tls(Struct, frozen=True):
    """PEM files: whom to trust (None: the system's authorities), and who we are, where the server asks."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None  # None: in cert_file

    def __bool__(self) -> bool:
        """Whether any is given."""
        return bool(self.files)

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Those that are given, by the name of their setting."""
        named = (("ca_file", self.ca_file), ("cert_file", self.cert_file), ("key_file", self.key_file))
        return tuple((name, path) for name, path in named if path is not None)


class Trust:
    """The TLS settings of a connection, made anew when one of the files has changed."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._stamp: list[tuple[int, int, int]] = []

    def context(self) -> ssl.SSLContext:
        """The same one as long as the files are the same. Raises UnusableError."""
        stamp = [_stamp(name, path) for name, path in self._tls.files]
        if self._context is None or stamp != self._stamp:
            try:
                self._context = self._made()
            except OSError as error:  # an SSLError is one
                files = ", ".join(str(path) for _, path in self._tls.files)
                raise UnusableError(f"tls: {files}: {error.strerror or error}") from error
            self._stamp = stamp
        return self._context

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._tls.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._tls.cert_file is not None:
            # A key with a passphrase fails for want of one; without this OpenSSL would ask on the terminal.
            context.load_cert_chain(self._tls.cert_file, self._tls.key_file, password="")
        return context


class Token:
    """A token, or another secret of one word: read at first use, kept, and read again when it was refused."""

    def __init__(self, path: Path, setting: str = "token_file") -> None:
        self._path, self._setting = path, setting
        self._held: deque[str] = deque(maxlen=HELD)

    def text(self) -> str:
        """As it was last read. Raises UnusableError."""
        return self._held[-1] if self._held else self.again()

    def again(self) -> str:
        """As it stands in the file now. Raises UnusableError."""
        try:
            with self._path.open("rb") as file:
                text = file.read(TOKEN_BYTES).decode("ascii", "replace").strip()
        except OSError as error:
            raise UnusableError(f"{self._setting}: {self._path}: {error.strerror}") from error
        if not text or not (text.isascii() and text.isprintable()) or " " in text:
            raise UnusableError(f"{self._setting}: {self._path}: {'not one word of ASCII' if text else 'empty'}")
        if text not in self._held:
            self._held.append(text)
        return text

    def hide(self, said: str) -> str:
        """What somebody said, without the tokens that were used of late."""
        for text in self._held:
            said = said.replace(text, "[token]")
        return said


class Password:
    """A password, read each time that it is needed; the end of its last line is not part of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def text(self) -> str:
        """As it stands in the file now. Raises UnusableError."""
        try:
            with self._path.open("rb") as file:
                text = file.read(TOKEN_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no UTF-8"
            raise UnusableError(f"password_file: {self._path}: {why}") from error
        if not text or not text.isprintable():
            raise UnusableError(f"password_file: {self._path}: {'more than one line' if text else 'empty'}")
        return text


def _stamp(name: str, path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise UnusableError(f"tls.{name}: {path}: {error.strerror}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns

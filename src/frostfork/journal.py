# SPDX-License-Identifier: Apache-2.0
"""The way of a child's report to its parent: a file in memory that both have open.

A pipe holds 64 KB and then blocks the writer, or loses what it cannot take; a queue needs a thread; a message in
a protocol that belongs to someone else breaks that protocol. A file blocks nobody, whatever its size, and what a
child wrote is there whether the child ended well, was killed for taking too long, or crashed. Records are fields
ended by NUL bytes, so that a record cut off by a kill is known by its missing end and left out.
"""

from __future__ import annotations

import errno
import fcntl
import os
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# After the word "import": name, origin, start, self, cumulative, error, bytes, cumulative bytes, importer.
_IMPORT_FIELDS = 9
_CHUNK = 1 << 20


class Journal:
    """A file in memory; create it before the fork, write in the child, read in the parent, close in both."""

    __slots__ = ("_fd", "_file", "_pid")

    def __init__(self, fd: int | None = None) -> None:
        """A new journal, or the one of another process that is open here as `fd`."""
        self._fd = _memory_file() if fd is None else fd
        self._file = _identity(self._fd)
        self._pid = os.getpid()

    def fileno(self) -> int:
        """The descriptor, for a child to write to. ValueError once closed."""
        if self._fd < 0:
            raise ValueError("this journal is closed")
        return self._fd

    def write(self, word: str, *fields: str | bytes) -> None:
        """Append one record in one write; bytes are UTF-8. OSError if the descriptor was closed behind our back."""
        if _identity(self.fileno()) != self._file:  # user code closed it and opened a file of its own there
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        record: list[bytes] = []
        for part in (word, *fields):
            record += (part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape"), b"\0")
        os.writev(self.fileno(), record)

    def write_import(self, name: str, origin: str) -> None:
        """Note a module of which only this is known: it was imported, without error, before all that were timed."""
        self.write("import", name, origin, "0", "0", "0", "", "0", "0", "")

    def records(self) -> Iterator[tuple[str, ...]]:
        """All whole records so far, oldest first: ("import", nine fields) or another word and one."""
        fields = iter(self._read().split(b"\0")[:-1])  # what follows the last NUL is nothing, or was cut off
        for word in fields:
            count = _IMPORT_FIELDS if word == b"import" else 1
            rest = list(islice(fields, count))
            if len(rest) == count:
                yield (_text(word), *map(_text, rest))

    def _read(self) -> bytes:
        # By offset: the child's writes and our reads share one file position.
        parts: list[bytes] = []
        at = 0
        while part := os.pread(self.fileno(), _CHUNK, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # At the end of a warmed process this module's globals are gone before the journals of another.
    def __del__(self, getpid: Callable[[], int] = os.getpid, close: Callable[[int], None] = os.close) -> None:
        # In a child the number may by now belong to a file of the user's.
        if getattr(self, "_pid", None) == getpid() and self._fd >= 0:
            close(self._fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _memory_file() -> int:
    fd = _nameless_file()
    # A child may fork in its turn: each write goes to the end, whoever wrote before.
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def _nameless_file() -> int:
    try:
        return os.memfd_create("frostfork-journal", os.MFD_CLOEXEC)
    except (
        OSError,
        AttributeError,
    ):  # forbidden by seccomp, or Python was built against a C library without it
        import tempfile

        fd, path = tempfile.mkstemp(prefix="frostfork-")
        os.unlink(path)
        return fd

# SPDX-License-Identifier: Apache-2.0
"""A ledger in a file, which survives a restart and which several processes add to.

Each adds what is new to it: under a lock it reads what the others wrote, merges, and puts a new file in the place of
the old one, which a reader thus sees whole, before or after. A kill or a full disk in between leaves the old one.

What a parent imports follows from this file, so it is taken only from a regular file that this user owns and that
nobody else may write. Whatever else is found under the name is renamed and not used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator

from frostfork.errors import LedgerError
from frostfork.preload import codec
from frostfork.preload.ledger import Ledger

log = logging.getLogger("frostfork")

_LOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.01
_ASIDE = 9  # how many are kept


class LedgerFile:
    """The ledger at `path`. Beside it lie a lock, for a moment a new file, and what was set aside."""

    def __init__(self, path: str | os.PathLike[str], *, lock_seconds: float = _LOCK_SECONDS) -> None:
        """lock_seconds: how long add() waits for other processes."""
        self.path = os.path.abspath(os.fspath(path))
        self._lock_seconds = lock_seconds
        folder, name = os.path.split(self.path)
        self._folder = folder
        self._lock = os.path.join(folder, f".{name}.lock")
        self._new = os.path.join(folder, f".{name}.new")

    def load(self) -> Ledger:
        """What the file holds; an empty ledger where there is none.

        A file that is damaged or not to be trusted is renamed, to path.aside-1 and so on, with a warning in the log.
        Raises LedgerError where the file cannot be read or is no file.
        """
        try:
            return self._read()
        except _UnusableError as reason:
            try:
                with self._locked():
                    # Another process may have put it right meanwhile.
                    return self._read_or_set_aside()
            except LedgerError as error:
                log.warning(
                    "frostfork does not use the ledger %s and leaves it there: %s; %s",
                    self.path,
                    reason,
                    error,
                )
                return Ledger()

    def add(self, new: Ledger, *, forget_before: float | None = None) -> Ledger:
        """Add what is new; returns the whole that is in the file now, with what other processes added.

        forget_before: drop what was not seen since, as Ledger.forget. Raises LedgerError, and the file is as it was,
        where it cannot be locked or written.
        """
        with self._locked():
            whole = self._read_or_set_aside()
            whole.merge(new)
            if forget_before is not None:
                whole.forget(forget_before)
            self._write(codec.to_bytes(whole))
        return whole

    def _read(self) -> Ledger:
        try:
            # Not through a link. Without NONBLOCK opening a pipe would wait for its other end.
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return Ledger()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _UnusableError("it is a symbolic link") from None
            if error.errno == errno.EACCES:
                raise _UnusableError("this user may not read it") from None
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise LedgerError(f"{self.path} is no file")
            if status.st_uid != os.geteuid():
                raise _UnusableError(f"it belongs to user {status.st_uid}, not {os.geteuid()}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _UnusableError(f"others may write it (mode {stat.S_IMODE(status.st_mode):03o})")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(codec.MAX_BYTES + 1)
        except OSError as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        try:
            return codec.from_bytes(data)
        except LedgerError as error:
            raise _UnusableError(str(error)) from error

    def _read_or_set_aside(self) -> Ledger:
        """Under the lock."""
        try:
            return self._read()
        except _UnusableError as reason:
            # A folder or a device is a mistake in the configuration, and not for us to rename.
            if stat.S_IFMT(os.lstat(self.path).st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
                raise LedgerError(f"{self.path} is no file") from None
            names = [f"{self.path}.aside-{number}" for number in range(1, _ASIDE + 1)]
            free = next((name for name in names if not os.path.lexists(name)), names[-1])
            try:
                os.rename(self.path, free)
            except OSError as error:
                raise LedgerError(
                    f"the ledger {self.path} is not used ({reason}) and cannot be renamed: {error.strerror}"
                ) from error
            log.warning("frostfork set aside the ledger %s as %s: %s", self.path, free, reason)
            return Ledger()

    def _write(self, data: bytes) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._new)  # of a process that was killed
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                with open(os.open(self._new, flags, 0o600), "wb", buffering=0) as file:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                os.rename(self._new, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(self._new)
                raise
            self._sync_folder()
        except OSError as error:
            raise LedgerError(f"the ledger {self.path} cannot be written: {error.strerror}") from error

    def _sync_folder(self) -> None:
        """So that the new name survives a loss of power. Not every file system can."""
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LedgerError(f"the ledger's lock {self._lock} cannot be opened: {error.strerror}") from error
        try:
            self._wait_for(fd)
            try:
                yield
            finally:
                # By hand: a child that was forked meanwhile has the descriptor, too, and would go on holding it.
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _wait_for(self, fd: int) -> None:
        # Asked again and again, since a wait in the kernel could not be bounded without a signal.
        end = time.monotonic() + self._lock_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise LedgerError(
                        f"the ledger {self.path} has been locked by another process for {self._lock_seconds:g} s"
                    ) from None
                time.sleep(_LOOK_SECONDS)
            except OSError as error:
                raise LedgerError(f"the ledger {self.path} cannot be locked: {error.strerror}") from error


class _UnusableError(Exception):
    """There is a file, and it is not to be used."""

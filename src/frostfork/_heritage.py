# SPDX-License-Identifier: Apache-2.0
"""What zygotes of one pool have learned: memory that outlives each of them.

A new zygote begins from a root that has learned nothing. So what was learned lies in a file in memory that the owner
made, and that every zygote has open: each adds what is new to it, and takes over what the others added, those of an old
generation too, whose last workers end when the next one is in charge.

A zygote that is killed while it writes leaves something that does not fit its checksum. That is taken for nothing
learned: its successor learns anew.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import struct
import time
import zlib
from typing import NamedTuple

from frostfork._records import decode, encode
from frostfork.errors import LedgerError
from frostfork.preload import Ledger, Verdict, codec
from frostfork.staleness import Mark

_HEADER = struct.Struct("<QQL")  # which edition this is, bytes, checksum
_LOCK_SECONDS = 2.0
_LOOK_SECONDS = 0.002


class Estate(NamedTuple):
    """What is handed down. tried: verdicts of canaries, each with how its module's distribution was on disk."""

    ledger: Ledger
    tried: dict[str, tuple[Verdict, Mark]]


def is_empty(ledger: Ledger) -> bool:
    return not (ledger.children or len(ledger) or ledger.hot_code)


class Heritage:
    """Create it in the owner; its descriptor must be open in all processes that use it, under the same number."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("frostfork-heritage", os.MFD_CLOEXEC)
        self._pid = os.getpid()
        self._edition = 0  # that was seen last

    def fileno(self) -> int:
        return self._fd

    def has_news(self) -> bool:
        """Whether another process has added something since the last exchange."""
        try:
            return self._read_header()[0] != self._edition
        except OSError:
            return False

    def exchange(self, news: Estate) -> Estate | None:
        """Add what is new; the whole that is there now. None, and nothing was added: it cannot be had at the moment."""
        try:
            self._lock()
        except OSError:
            return None
        try:
            edition, size, checksum = self._read_header()
            whole = self._read(size, checksum)
            whole.ledger.merge(news.ledger)
            whole.tried.update(news.tried)
            if news.tried or not is_empty(news.ledger):
                edition += 1
                self._write(edition, whole)
            self._edition = edition
        except (OSError, LedgerError):
            return None
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return whole

    def _lock(self) -> None:
        # The processes share one open file, for which flock() would count them as one.
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > end:
                    raise
                time.sleep(_LOOK_SECONDS)

    def _read_header(self) -> tuple[int, int, int]:
        header = os.pread(self._fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return 0, 0, 0
        edition, size, checksum = _HEADER.unpack(header)
        return edition, size, checksum

    def _read(self, size: int, checksum: int) -> Estate:
        held = max(0, os.fstat(self._fd).st_size - _HEADER.size)
        data = os.pread(self._fd, min(size, held), _HEADER.size)
        if not data or len(data) != size or zlib.crc32(data) != checksum:
            return Estate(Ledger(), {})
        # From our own processes: workers are not given it.
        ledger_bytes, hot_code, tried = marshal.loads(data)  # noqa: S302 - from a zygote of the same owner
        ledger = codec.from_bytes(ledger_bytes)
        ledger.hot_code.update(hot_code)
        decoded = [(decode(text), mark) for text, mark in tried]
        return Estate(
            ledger, {verdict.module: (verdict, mark) for verdict, mark in decoded if verdict is not None}
        )

    def _write(self, edition: int, whole: Estate) -> None:
        data = marshal.dumps(
            (
                codec.to_bytes(whole.ledger),
                whole.ledger.hot_code,
                [(encode(verdict), mark) for verdict, mark in whole.tried.values()],
            )
        )
        rest, at = memoryview(data), _HEADER.size
        while rest:
            written = os.pwrite(self._fd, rest, at)
            rest, at = rest[written:], at + written
        os.ftruncate(self._fd, at)
        os.pwrite(self._fd, _HEADER.pack(edition, len(data), zlib.crc32(data)), 0)

    def close(self) -> None:
        """In this process, or in a worker, which has nothing to do with it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid() and self._fd >= 0:
            self.close()

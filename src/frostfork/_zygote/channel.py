# SPDX-License-Identifier: Apache-2.0
"""Messages with descriptors between an owner, its root and its zygotes.

A message is a header, a tuple of what marshal knows, and a body of bytes. It travels as one datagram of a SEQPACKET
socket, so that it comes whole or not at all, whoever is killed meanwhile. A datagram has a limit (net.core.wmem_max);
a long body therefore travels as a memfd, which nobody need read who only passes it on.
"""

from __future__ import annotations

import array
import contextlib
import errno
import marshal
import os
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

MOST_FDS = 250  # in one message: SCM_MAX_FD is 253, and a body may take one
_INLINE = 48 << 10  # bytes of a body that travel in the datagram
_DATAGRAM = 128 << 10
_ANCILLARY = socket.CMSG_SPACE((MOST_FDS + 3) * array.array("i").itemsize)
# As plain numbers: enum's own arithmetic runs code on four pages.
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_CTRUNC)
_SEND_FLAGS = int(socket.MSG_NOSIGNAL)
_SEND_NOW_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Message(NamedTuple):
    """One message as it came. Its descriptors are the receiver's to close.

    cut: descriptors were lost, because this process may not open more.
    """

    header: tuple[Any, ...]
    body: bytes
    memfd: int  # -1: the body is all in `body`
    fds: list[int]
    cut: bool

    def take_body(self) -> bytes:
        """The body, wherever it is; closes the memfd. OSError: it was lost."""
        if self.memfd < 0:
            if self.cut and not self.body:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return self.body
        try:
            return read_all(self.memfd)
        finally:
            os.close(self.memfd)

    def drop(self) -> None:
        """Close all that came with it."""
        close_all(self.fds if self.memfd < 0 else (self.memfd, *self.fds))


class Parcel:
    """A message that is to be sent, once or often. Close it then."""

    def __init__(self, body: bytes) -> None:
        self.inline = body
        self.memfd = -1
        if len(body) > _INLINE:
            self.memfd = memory_file("frostfork-message")
            self.inline = b""
            try:
                write_all(self.memfd, body)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        if self.memfd >= 0:
            os.close(self.memfd)
            self.memfd = -1


def encode(header: tuple[Any, ...], parcel: Parcel | None, fds: Iterable[int]) -> tuple[bytes, list[int]]:
    """The datagram and its descriptors."""
    if parcel is None:
        return marshal.dumps((header, b"", False)), list(fds)
    if parcel.memfd < 0:
        return marshal.dumps((header, parcel.inline, False)), list(fds)
    return marshal.dumps((header, b"", True)), [parcel.memfd, *fds]


class Channel:
    """One end of a socket. Not for two threads at a time in one direction."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray(_DATAGRAM)

    def parts(self) -> tuple[object, ...]:
        """Itself and what it has until it ends."""
        return self, self._socket, self._buffer

    def fileno(self) -> int:
        """-1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, header: tuple[Any, ...], parcel: Parcel | None = None, fds: Iterable[int] = ()) -> bool:
        """Wait until it is on its way. False: nobody is there any more."""
        return self.send_encoded(*encode(header, parcel, fds), wait=True)

    def send_encoded(self, data: bytes, fds: list[int], *, wait: bool) -> bool:
        """BlockingIOError if it cannot go now; any other OSError is of the descriptors."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([data], rights, _SEND_FLAGS if wait else _SEND_NOW_FLAGS)
        except OSError as error:
            if self._is_gone(error):
                return False
            raise
        return True

    def _is_gone(self, error: OSError) -> bool:
        """Or we are: another EBADF is of a descriptor that was to be sent."""
        return error.errno in _GONE or self._socket.fileno() < 0

    def receive(self) -> Message | None:
        """The next message, without waiting. BlockingIOError if there is none yet; None if there will be none."""
        while True:
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into([self._buffer], _ANCILLARY, _FLAGS)
                break
            except ConnectionResetError:
                continue  # it ended without reading all of ours; what it said before is still to be read
            except OSError as error:
                if self._is_gone(error):
                    return None
                raise
        if size == 0:
            return None
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        came = fds.tolist()
        header, body, is_memfd = marshal.loads(memoryview(self._buffer)[:size])  # noqa: S302 - from our own kind
        memfd = came.pop(0) if is_memfd and came else -1
        cut = bool(flags & _CUT)
        return Message(header, body, memfd, came, cut)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket for a Channel each."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def memory_file(name: str) -> int:
    """A descriptor of a file without a name."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOSYS, errno.EPERM):
            raise
        import tempfile  # forbidden by seccomp, or not known to the C library that Python was built against

        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_all(fd: int) -> bytes:
    """By offset: whoever else has it open shares the file position."""
    size = os.fstat(fd).st_size
    parts = []
    at = 0
    while at < size and (part := os.pread(fd, size - at, at)):
        parts.append(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)

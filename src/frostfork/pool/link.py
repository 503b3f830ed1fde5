# SPDX-License-Identifier: Apache-2.0
"""The owner's end of one worker."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from frostfork._core import Board, Line
from frostfork.pool import frames
from frostfork.pool.payload import frame

if TYPE_CHECKING:
    from frostfork.pool.future import TaskFuture
    from frostfork.zygote import Worker

# Ahead of the task that runs, a worker has as many as it can do in this time: more than a thread of the owner may wait
# for the GIL (sys.getswitchinterval(), 5 ms), so that it does not run dry meanwhile.
_AHEAD_MICROS = 10_000
MOST_AHEAD = 256
_TAIL_BYTES = 4096


class Link:
    """What the owner has of a worker. The pool's lock guards all but the counters of the board."""

    def __init__(
        self, sock: socket.socket, worker: Worker, name: str, board: Board, slot: int, poller: select.epoll
    ) -> None:
        self.socket = sock
        self.line = Line(sock.fileno(), board, slot, self)
        self.inflight: deque[TaskFuture] = self.line.inflight
        self._worker: Worker | None = worker
        self.pid = worker.pid
        self.name = name
        self.generation = worker.generation
        self.board = board
        self.slot = slot
        self._poller = poller
        self._epoll = poller.fileno()
        self.skips = 0  # tasks that were taken back and that the worker has yet to pass over
        self.ready = False
        self.retiring: str | None = None  # why it is to go
        self.ended = False  # told to end
        self.watched = False  # it will be killed if it does not
        self.gone = False  # its process has ended
        self.dead = False  # and all that was its is seen to
        self.killed: str | None = None  # why, if the pool did it
        self.timed_out: TaskFuture | None = None  # for which it was killed
        self.reserved = False  # a large task is being written for it
        self.micros: float | None = None  # how long its tasks take, roughly
        self.depth = 1
        self.max_age: float | None = None
        self.born = time.monotonic()
        self.asked: float | None = None  # when it was pinged and has not answered
        self.seen: tuple[int, int] | None = None  # (begun, tasks) at the last heartbeat
        self.tail = b""

    @property
    def accepts(self) -> bool:
        """Whether it may be sent a task now."""
        return (
            self.ready
            and len(self.inflight) < self.depth
            and not self.reserved
            and not self.line.unsent
            and self.takes_tasks
        )

    @property
    def takes_tasks(self) -> bool:
        """Whether it may be sent tasks at all: it is there to stay, and has passed over all that was taken back."""
        return not self.skips and self.retiring is None and self.killed is None and not self.dead

    @property
    def is_plain(self) -> bool:
        """Whether it has nothing to do, and is to stay."""
        return not self.inflight and self.retiring is None

    def accepts_more(self) -> bool:
        """The same between two tasks that go into one flush()."""
        return len(self.inflight) < self.depth and not self.reserved

    @property
    def idle(self) -> bool:
        return not self.inflight and not self.reserved

    def assign(self, future: TaskFuture, body: bytes, flags: int, fd: int = -1, more: bool = False) -> None:
        """Send the task, for good: from here on the board says who has it. more: others follow before flush()."""
        timeout = future._timeout
        if timeout is None:
            sent = self.line.assign(future, frames.TASK, 0, body, flags, fd, more)
        else:
            sent = self.line.assign(
                future, frames.TIMED_TASK, max(1, int(timeout * 1000)), body, flags, fd, more
            )
        if not sent and not more:
            self.flush()
        self.arm()

    def arm(self) -> None:
        """Let the collector hear it."""
        if not self.line.armed and not self.dead:
            self.line.arm(self._epoll)

    def say(self, kind: int, body: bytes) -> None:
        """Send it something that is no task."""
        with contextlib.suppress(OSError):
            self.line.say(kind, body)
        if self.line.unsent:
            self.flush()
        self.arm()

    def flush(self) -> bool:
        """Whether all was sent. A worker that is gone is noticed elsewhere."""
        try:
            if self.line.flush():
                return True
            self._poller.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)
            self.line.armed = True
        except OSError:
            self.line.drop()
            return True
        return False

    def flush_more(self) -> bool:
        """The same when the socket has room again."""
        if not self.flush():
            return False
        with contextlib.suppress(OSError):
            self._poller.modify(self.socket, select.EPOLLIN)
            self.line.armed = True
        return True

    def seconds_since(self, nanos: int) -> float:
        return (time.monotonic_ns() - nanos) / 1e9

    def took(self, micros: float) -> None:
        """A task took so long: how many to send ahead."""
        was = self.micros
        self.micros = micros if was is None else was + (micros - was) * (0.5 if micros > was else 0.1)
        self.depth = max(1, min(MOST_AHEAD, int(_AHEAD_MICROS / (self.micros + 1))))

    def withdraw(self) -> list[TaskFuture]:
        """Take back what is not begun."""
        back = self.line.withdraw()
        self.skips += len(back)
        return back

    def owes(self, number: int) -> bool:
        """Whether the task of this number is the next whose result is to come."""
        return bool(self.inflight) and self.inflight[0]._number == number

    def has_begun(self, future: TaskFuture) -> bool:
        return self.board.look(self.slot)[0] >= future._number

    def write(self, future: TaskFuture) -> tuple[bytes, int, int]:
        """The frame of a large task: a memfd is written, which may take long. OSError."""
        assert future._payload is not None
        return frame(future._payload)

    def end(self) -> None:
        """Let it end by itself."""
        if not self.ended:
            self.ended = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def kill(self, why: str) -> None:
        if not self.dead:
            self.killed = self.killed or why
            with contextlib.suppress(OSError):
                self.worker.kill()

    @property
    def worker(self) -> Worker:
        """Until it is closed."""
        assert self._worker is not None
        return self._worker

    def close(self) -> None:
        """It is gone. Futures hold on to this object, and so it lets go of the pidfd."""
        self.dead = True
        self._worker = None
        self.line.close()
        self.socket.close()

    def heard(self, data: bytes) -> None:
        """It wrote on its standard error."""
        self.tail = (self.tail + data)[-_TAIL_BYTES:]

    def is_stopped(self) -> bool:
        """Whether its process is stopped, as by SIGSTOP; not by a debugger."""
        try:
            fd = os.open(f"/proc/{self.pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, 512)
            finally:
                os.close(fd)
        except OSError:
            return False
        return text.rpartition(b")")[2][1:2] == b"T"

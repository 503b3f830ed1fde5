# SPDX-License-Identifier: Apache-2.0
"""The owner's end of one worker."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from frostfork._core import Board, Line
from frostfork.pool.payload import frame
from frostfork.pool.records import Who

if TYPE_CHECKING:
    from collections import deque

    from frostfork.pool.future import TaskFuture
    from frostfork.zygote import Worker

# Ahead of the task that runs, a worker has as many as it can do in this time: more than a thread of the owner may wait
# for the GIL (sys.getswitchinterval(), 5 ms), so that it does not run dry meanwhile.
_AHEAD_MICROS = 10_000
MOST_AHEAD = 256
_TAIL_BYTES = 4096


class Link(Line):
    """What the owner has of a worker. The pool's lock guards all but the counters of the board."""

    inflight: deque[TaskFuture]

    def __init__(
        self, sock: socket.socket, worker: Worker, name: str, board: Board, slot: int, poller: select.epoll
    ) -> None:
        super().__init__(sock.fileno(), board, slot, poller.fileno())
        self.socket = sock
        self._worker: Worker | None = worker
        self.pid = worker.pid
        self.name = name
        self.generation = worker.generation
        self.who = Who(worker.pid, name, worker.generation)
        self.ended = False  # told to end
        self.watched = False  # it will be killed if it does not
        self.gone = False  # its process has ended
        self.timed_out: TaskFuture | None = None  # for which it was killed
        self.micros: float | None = None  # how long its tasks take, roughly
        self.max_age: float | None = None
        self.born = time.monotonic()
        self.asked: float | None = None  # when it was pinged and has not answered
        self.seen: tuple[int, int] | None = None  # (begun, tasks) at the last heartbeat
        self.tail = b""

    def accepts_more(self) -> bool:
        """The same between two tasks that go into one flush()."""
        return len(self.inflight) < self.depth and not self.reserved

    @property
    def idle(self) -> bool:
        return not self.inflight and not self.reserved

    def seconds_since(self, nanos: int) -> float:
        return (time.monotonic_ns() - nanos) / 1e9

    def took(self, micros: float) -> None:
        """A task took so long: how many to send ahead."""
        was = self.micros
        self.micros = micros if was is None else was + (micros - was) * (0.5 if micros > was else 0.1)
        self.depth = max(1, min(MOST_AHEAD, int(_AHEAD_MICROS / (self.micros + 1))))

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
        """It is gone. Whoever still holds this object holds no descriptor."""
        self.dead = True
        self._worker = None
        self.drop()
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

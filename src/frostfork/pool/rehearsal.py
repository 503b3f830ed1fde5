# SPDX-License-Identifier: Apache-2.0
"""What a worker does, done once in its zygote: what that fills and changes is then shared instead of copied."""

from __future__ import annotations

import os
import signal
import socket

from frostfork._core import Board, Channel
from frostfork.pool import frames
from frostfork.pool.main_names import MainNames
from frostfork.pool.payload import Calls
from frostfork.pool.worker import Worker
from frostfork.recycle import Limits

_RUNS = 3
_TASKS = 10


def rehearse() -> None:
    """Run a worker's loop on a few tasks, in this thread. More than once: then running changes its code no more."""
    before = signal.getsignal(signal.SIGINT)
    try:
        for _ in range(_RUNS):
            _rehearse()
    finally:
        signal.signal(signal.SIGINT, before)


def _rehearse() -> None:
    ours, its = socket.socketpair()
    board = Board(1)
    try:
        board.reset(0)
        board.allow(0, _TASKS)
        channel = Channel(ours.fileno())
        body, flags = Calls(MainNames({}, complete=False)).encode(os.path.basename, ("rehearsal",), {})
        assert isinstance(body, bytes)
        for number in range(1, _TASKS + 1):
            channel.send(frames.TASK, number, body, 0, flags)
        ours.shutdown(socket.SHUT_WR)
        Worker(Channel(its.fileno()), board, 0, Limits()).run((False, b""), [], False)
    finally:
        board.close()
        ours.close()
        its.close()

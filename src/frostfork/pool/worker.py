# SPDX-License-Identifier: Apache-2.0
"""What a worker does: take a task, run it, send what came of it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal's and socket's own functions would make enum work
import _socket
import os
import pickle
import struct
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from frostfork._core import Board, Channel
from frostfork.pool import frames
from frostfork.pool.alarm import Alarm
from frostfork.pool.meter import Meter
from frostfork.pool.outcome import encode_error
from frostfork.pool.payload import CALL, Functions, Payload, decode, encode, frame, plain
from frostfork.recycle import Limits

_MICROS = 2**32 - 1
_MOST_NANOS = _MICROS * 1000
_LOOK_SECONDS = 0.02  # an idle worker measures its memory when nothing has come for so long

_INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


def main(fds: Sequence[int]) -> None:
    """The life of a worker, in its own process. fds: its socket, the board, its standard error."""
    sock, board, stderr = fds
    os.dup2(stderr, 2)
    os.close(stderr)
    channel = Channel(sock)
    hello = _first(channel)
    if hello is None:
        return
    slots, slot, limits, baseline, start = pickle.loads(hello)  # noqa: S301 - from our own kind
    mapped = Board(slots, board)
    os.close(board)
    Worker(channel, mapped, slot, limits).run(start, baseline)


def _first(channel: Channel) -> bytes | None:
    while (came := channel.receive(wait=True)) is not None:
        for _, _, _, _, body, _ in came:
            return body
    return None


_forks = [0]  # between this process and the first one that had this module: cheaper to ask than the pid


def _count_fork() -> None:
    _forks[0] += 1


os.register_at_fork(after_in_child=_count_fork)


class Worker:
    """Runs tasks one after the other in the main thread of its process."""

    def __init__(self, channel: Channel, board: Board, slot: int, limits: Limits) -> None:
        self._channel = channel
        self._board = board
        self._slot = slot
        self._forks = _forks[0]
        self._limits = limits
        self._limited = limits.any()
        self._born = time.monotonic()
        self._tasks = 0
        self._socket = _socket.socket(fileno=os.dup(channel.fd))
        self._patience: float | None = None
        self._in_task = False
        self._retiring = False
        self._alarm = Alarm()
        self._functions = Functions()
        self._meter = Meter(board, slot, limits.private_bytes)

    def run(self, start: bytes, baseline: bool) -> None:
        _signal.signal(_signal.SIGINT, self._interrupted)
        try:
            self._prepare(start)
            self._meter.begin(baseline)
            self._channel.send(frames.READY, 0, b"")
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the owner is gone

    def _interrupted(self, number: int, at: FrameType | None) -> None:
        """Ctrl-C at the terminal reaches workers, too: it is the task's, and nobody's between two tasks."""
        if self._in_task:
            raise KeyboardInterrupt

    def _prepare(self, start: bytes) -> None:
        self._in_task = True
        try:
            after_fork, initializer, args = pickle.loads(start)  # noqa: S301 - from our own kind
            if after_fork is not None:
                after_fork()
            if initializer is not None:
                initializer(*args)
        except KeyboardInterrupt:
            # The terminal's, and no failure of the initializer: another worker comes if one is wanted.
            self._in_task = False
            raise SystemExit(_INTERRUPTED) from None
        except BaseException as error:
            self._in_task = False
            import traceback

            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            self._channel.send(frames.REFUSED, 0, text.encode(errors="replace"))
            raise SystemExit(1) from None
        finally:
            self._in_task = False

    def _serve(self) -> None:
        channel, board, slot = self._channel, self._board, self._slot
        while (came := channel.receive(wait=True)) is not None:
            if not came:  # nothing has come for a while
                self._be_patient(self._meter.look())
                self._check_limits()
                continue
            for kind, number, extra, flags, body, fd in came:
                if kind == frames.PING:
                    channel.send(frames.PONG, 0, b"")
                elif self._retiring or not board.begin(slot, number):
                    if fd >= 0:
                        os.close(fd)
                    channel.send(frames.SKIPPED, number, b"")
                else:
                    self._do(kind, number, extra, flags, body, fd)
                    if self._patience is None:
                        self._be_patient(_LOOK_SECONDS)

    def _be_patient(self, seconds: float | None) -> None:
        """How long to wait for a frame before looking at the memory; None: for ever, there is nothing to look at."""
        if seconds != self._patience:
            self._patience = seconds
            micros = 0 if seconds is None else max(1, int(seconds * 1e6))
            value = struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, value)

    def _do(self, kind: int, number: int, extra: int, flags: int, body: bytes, fd: int) -> None:
        value: Any = None
        out: bytes | Payload = b""
        answer = frames.RESULT
        mem = -1
        try:
            self._in_task = True
            try:
                if flags == CALL and kind == frames.TASK:
                    function, args = self._functions.decode(body)
                    value = function(*args)
                else:
                    value = self._call(kind, extra, flags, body, fd)
                out = encode(value)
            finally:
                self._in_task = False
            if type(out) is bytes:
                data, flags = out, 0
            else:
                data, flags, mem = frame(out)
        except BaseException as error:
            self._in_task = False  # an interrupt may have come in the middle of the line above that says so
            answer = frames.ERROR
            data, flags, mem = self._told(error)
            del error
        if _forks[0] != self._forks:
            os.write(
                2, b"frostfork: a task has returned in a fork of its worker, too: that process ends here\n"
            )
            os._exit(1)
        del value, out
        took = self._board.end(self._slot)
        micros = took // 1000 if took < _MOST_NANOS else _MICROS
        try:
            self._channel.send(answer, number, data, micros, flags, mem)
        except OSError as error:
            if mem < 0:
                raise
            # The descriptor cannot be sent: nothing was.
            data, flags, _ = self._told(error)
            self._channel.send(frames.ERROR, number, data, micros, flags)
        finally:
            if mem >= 0:
                os.close(mem)
        self._tasks += 1
        if self._limited:
            self._meter.look_if_limited()
            self._check_limits()

    def _call(self, kind: int, extra: int, flags: int, body: bytes, fd: int) -> Any:
        kwargs: dict[str, Any] = {}
        if flags == CALL:
            function, args = self._functions.decode(body)
        else:
            function, args, kwargs = decode(body, flags, fd)
        if kind == frames.TIMED_TASK:
            with self._alarm.set(extra / 1000):
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    def _check_limits(self) -> None:
        why = self._limits.exceeded(self._tasks, self._meter.bytes, time.monotonic() - self._born)
        if why is not None and not self._retiring:
            self._retiring = True
            self._channel.send(frames.RETIRE, 0, why.encode())

    def _told(self, error: BaseException) -> tuple[bytes, int, int]:
        """The frame of an error: as text alone where this process lacks memory, descriptors or room for a file."""
        try:
            return frame(encode_error(error))
        except BaseException as second:
            said = f"{type(error).__module__}.{type(error).__qualname__} (lost for {type(second).__name__})"
            return plain(("", said, b"")), 0, -1

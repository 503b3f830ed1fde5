# SPDX-License-Identifier: Apache-2.0
"""What a worker does: take a task, run it, send what came of it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal's own functions would make enum work
import os
import pickle
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NamedTuple

from frostfork._core import Board, Channel, Runner, count_fork
from frostfork.pool import frames
from frostfork.pool.alarm import Alarm
from frostfork.pool.meter import Meter
from frostfork.pool.outcome import encode_error
from frostfork.pool.outfit import unpack
from frostfork.pool.payload import CALL, Functions, Payload, decode, encode, frame, plain
from frostfork.recycle import Limits

_MICROS = 2**32 - 1
_MOST_NANOS = _MICROS * 1000
_LOOK_SECONDS = 0.02  # an idle worker measures its memory when nothing has come for so long

_INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


def main(fds: Sequence[int]) -> None:
    """The life of a worker, in its own process. fds: its socket, the board, its standard error, and its outfit's."""
    sock, board, stderr, *given = fds
    os.dup2(stderr, 2)
    os.close(stderr)
    channel = Channel(sock)
    hello = _first(channel)
    if hello is None:
        return
    slots, slot, limits, baseline, start = pickle.loads(hello)  # noqa: S301 - from our own kind
    mapped = Board(slots, board)
    os.close(board)
    Worker(channel, mapped, slot, limits).run(start, given, baseline)


def _first(channel: Channel) -> bytes | None:
    while (came := channel.receive(wait=True)) is not None:
        for _, _, _, _, body, _ in came:
            return body
    return None


os.register_at_fork(after_in_child=count_fork)


class Told(NamedTuple):
    """A frame that tells an error."""

    body: bytes
    flags: int
    fd: int  # -1 for none; to be closed


class Worker(Runner):
    """Runs tasks one after the other in the main thread of its process."""

    def __init__(self, channel: Channel, board: Board, slot: int, limits: Limits) -> None:
        self._functions = Functions()
        super().__init__(channel, board, slot, self._functions)
        self._limits = limits
        self.limited = limits.any()
        self._born = time.monotonic()
        self._patience: float | None = None
        self._alarm = Alarm()
        self._meter = Meter(board, slot, limits.private_bytes)

    def run(self, start: tuple[bool, bytes], given: list[int], baseline: bool) -> None:
        if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:  # as the owner has it
            _signal.signal(_signal.SIGINT, self._interrupted)
        try:
            self._prepare(start, given)
            self._meter.begin(baseline)
            self.channel.send(frames.READY, 0, b"")
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the owner is gone

    def _interrupted(self, number: int, at: FrameType | None) -> None:
        """Ctrl-C at the terminal reaches workers, too: it is the task's, and nobody's between two tasks."""
        if self.in_task:
            raise KeyboardInterrupt

    def _prepare(self, start: tuple[bool, bytes], given: list[int]) -> None:
        self.in_task = True
        try:
            after_fork, initializer, args = unpack(start, given)
            if after_fork is not None:
                after_fork()
            if initializer is not None:
                initializer(*args)
        except KeyboardInterrupt:
            # The terminal's, and no failure of the initializer: another worker comes if one is wanted.
            self.in_task = False
            raise SystemExit(_INTERRUPTED) from None
        except BaseException as error:
            self.in_task = False
            import traceback

            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            self.channel.send(frames.REFUSED, 0, text.encode(errors="replace"))
            raise SystemExit(1) from None
        finally:
            self.in_task = False

    def _serve(self) -> None:
        channel = self.channel
        while (came := self.next()) is not None:
            if not came:  # nothing has come for a while
                self._be_patient(self._meter.look())
                self._check_limits()
                continue
            kind, number, extra, flags, body, fd = came
            if kind == frames.PING:
                channel.send(frames.PONG, 0, b"")
            elif self.retiring or not self.board.begin(self.slot, number):
                if fd >= 0:
                    os.close(fd)
                channel.send(frames.SKIPPED, number, b"")
            else:
                self._do(kind, number, extra, flags, body, fd)

    def _be_patient(self, seconds: float | None) -> None:
        """How long to wait for a frame before looking at the memory; None: for ever, there is nothing to look at."""
        self.patient = seconds is not None
        if seconds != self._patience:
            self._patience = seconds
            self.channel.wait_at_most(0 if seconds is None else max(1, int(seconds * 1000)))

    def _do(self, kind: int, number: int, extra: int, flags: int, body: bytes, fd: int) -> None:
        """Run a task that is not plain."""
        out: bytes | Payload | Told
        try:
            self.in_task = True
            try:
                out = encode(self._call(kind, extra, flags, body, fd))
            finally:
                self.in_task = False
        except BaseException as error:
            self.in_task = False  # an interrupt may have come in the middle of the line above that says so
            out = self.told(error)
        self.answer(number, out)
        if self.limited:
            self.after_task()
        if not self.patient:
            self.after_idling()

    # --- what a Runner leaves to others

    encode = staticmethod(encode)

    def after_task(self) -> None:
        self._meter.look_if_limited()
        self._check_limits()

    def after_idling(self) -> None:
        """Memory may have changed since it was looked at last."""
        self._be_patient(_LOOK_SECONDS)

    def answer(self, number: int, out: bytes | Payload | Told) -> None:
        """Send what came of a task."""
        kind = frames.RESULT
        try:
            if isinstance(out, Told):
                kind = frames.ERROR
                data, flags, mem = out
            else:
                data, flags, mem = frame(out)
        except BaseException as error:
            kind = frames.ERROR
            data, flags, mem = self.told(error)
        if self.is_copy:
            os.write(
                2, b"frostfork: a task has returned in a fork of its worker, too: that process ends here\n"
            )
            os._exit(1)
        del out
        took = self.board.end(self.slot)
        micros = took // 1000 if took < _MOST_NANOS else _MICROS
        try:
            self.channel.send(kind, number, data, micros, flags, mem)
        except OSError as error:
            if mem < 0:
                raise
            # The descriptor cannot be sent: nothing was.
            data, flags, _ = self.told(error)
            self.channel.send(frames.ERROR, number, data, micros, flags)
        finally:
            if mem >= 0:
                os.close(mem)
        self.tasks += 1

    def told(self, error: BaseException) -> Told:
        """The frame of an error: as text alone where this process lacks memory, descriptors or room for a file."""
        try:
            return Told(*frame(encode_error(error)))
        except BaseException as second:
            said = f"{type(error).__module__}.{type(error).__qualname__} (lost for {type(second).__name__})"
            return Told(plain(("", said, b"")), 0, -1)

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
        why = self._limits.exceeded(self.tasks, self._meter.bytes, time.monotonic() - self._born)
        if why is not None and not self.retiring:
            self.retiring = True
            self.channel.send(frames.RETIRE, 0, why.encode())

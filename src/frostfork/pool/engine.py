# SPDX-License-Identifier: Apache-2.0
"""The state of a pool that its threads share, and the way of a task through it.

submit ──▶ Dispatcher ──▶ Link ──▶ worker ──▶ Link ──▶ received() ──▶ future

Two threads serve a pool: the collector (collector.py) reads what workers send and does what is due, the crew (crew.py)
forks workers. Neither keeps the ForkPool itself alive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import weakref
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Protocol

from frostfork._core import Desk
from frostfork.errors import FrostforkError, TaskTimeout
from frostfork.pool import frames
from frostfork.pool.broken import PoolBroken
from frostfork.pool.deadline import Deadlines
from frostfork.pool.dispatcher import Dispatcher
from frostfork.pool.ending import died
from frostfork.pool.outcome import decode_error
from frostfork.pool.payload import decode
from frostfork.pool.timers import Timers

if TYPE_CHECKING:
    from frostfork.pool.future import TaskFuture
    from frostfork.pool.link import Link

    Frame = tuple[int, int, int, int, bytes, int]

_CLOSED = "cannot schedule new futures after shutdown"

_HEAR_SECONDS = 0.05

log = logging.getLogger("frostfork.pool")


class Listener(Protocol):
    """Who wants to know what becomes of workers. Called with no lock held."""

    def worked(self) -> None:
        """A worker ended a task, or something else changed in a pool that is closing."""

    def ready(self, link: Link) -> None: ...

    def retiring(self, link: Link) -> None:
        """It takes no more tasks, and may have ended its last."""

    def refused(self, link: Link, why: str) -> None:
        """Its initializer failed."""

    def gone(self) -> None:
        """A worker's process has ended."""

    def buried(self, link: Link, code: int | None, in_task: bool) -> None:
        """It is gone, and its tasks are seen to."""


class Engine(Desk):
    """What the threads of a pool share. `lock` is held for short; no future ends and no user's code runs under it."""

    def __init__(self) -> None:
        # Its lock is no plain one: a collection of garbage may come in the middle of what is done under it, and end a
        # generator of map(), which cancels its futures. So may a signal handler that calls shutdown().
        super().__init__()
        self.owner = os.getpid()
        _engines.add(self)
        self.dispatcher = Dispatcher(self)
        self.timers = Timers()
        self.poller = select.epoll()
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.deadlines = Deadlines(self)
        self.broken: PoolBroken | None = None
        self.failed = self.retried = self.cancelled = 0
        self.listener: Listener  # is set before the threads start

    def ring(self) -> None:
        """Let the collector look at what has changed."""
        if self.bell >= 0:
            with contextlib.suppress(OSError):
                os.eventfd_write(self.bell, 1)

    # --- the owner's threads

    def queue(self, future: TaskFuture) -> None:
        """Submit what cannot go to an idle worker at once."""
        try:
            with self.lock:
                if self.closing:
                    raise PoolBroken(str(self.broken)) if self.broken else RuntimeError(_CLOSED)
                self.submitted += 1
                self.dispatcher.submit(future)
                self.hear(future._link)
        except KeyboardInterrupt:
            self.sweep = True  # a worker may have been taken from the idle ones, and given nothing
            self.ring()
            raise
        if future._hard_timeout is not None:
            self.deadlines.watch(future._hard_timeout)
        if self.dispatcher.large:
            self.write_large()

    def refuse(self, future: TaskFuture, error: BaseException) -> None:
        """What cannot be sent ends at once; a pool that takes nothing says so all the same."""
        with self.lock:
            if self.closing:
                raise PoolBroken(str(self.broken)) if self.broken else RuntimeError(_CLOSED)
            self.submitted += 1
        self.fail(future, error)

    def check_waiter(self) -> None:
        """Whether this thread may wait for a task: the ones that would bring the result may not."""
        if self.forked:
            self.check_owner()
        if threading.get_ident() == self.collector_ident:
            raise RuntimeError(
                "a callback of a future cannot wait for another future of its pool: it would wait for itself"
            )

    def check_owner(self) -> None:
        if self.forked:
            raise FrostforkError(
                f"this pool belongs to process {self.owner}, and this is a fork of it, process {os.getpid()}: "
                "make a pool of its own here"
            )

    def cancel(self, future: TaskFuture) -> bool:
        """Mark it cancelled unless a worker has begun it."""
        if self.forked:
            return False
        if self.lock.is_mine:
            # See the lock. What is being done is half done, so this waits.
            self.timers.add(0.0, future.cancel)
            self.ring()
            return False
        with self.lock:
            # Results are taken without this lock, and take the link away before the state changes: so in this order.
            link = future._link
            if future._state != PENDING:
                return False
            if link is not None:
                self.dispatcher.requeue(link.withdraw())
                self.dispatcher.refill(link)
                if future._link is not None or future._state != PENDING:
                    return False
            with future._condition:
                future._state = CANCELLED
                future._condition.notify_all()
            self.cancelled += 1
            future._payload = None
            self.dispatcher.refill_all()
            return True

    def has_begun(self, future: TaskFuture) -> bool:
        link = future._link
        return link is not None and link.has_begun(future)

    def write_large(self) -> None:
        """Send the large tasks that have found their workers."""
        while True:
            with self.lock:
                if not self.dispatcher.large:
                    return
                link, future = self.dispatcher.large.pop()
            fd, refused = -1, None
            try:
                body, flags, fd = link.write(future)
            except Exception as error:
                refused = error
            with self.lock:
                link.reserved = False
                if self.broken is not None:
                    refused = PoolBroken(str(self.broken))
                elif refused is None and future._state == PENDING:
                    if not link.takes_tasks:
                        # Also where tasks were taken back meanwhile: a new one would let the worker begin those, too.
                        self.dispatcher.requeue([future])
                    else:
                        try:
                            link.assign(future, body, flags, fd)
                            link.flush()
                        except OSError as error:  # the descriptor cannot be sent
                            refused = error
                if not link.dead:
                    self.dispatcher.refill(link)
                self.dispatcher.refill_all()
            if fd >= 0:
                os.close(fd)
            if refused is not None:
                self.fail(future, refused)

    # --- the collector

    def received(self, link: Link, came: list[Frame]) -> None:
        """Frames of a worker."""
        done, micros, came = link.settle(came)
        if not came:
            self.settled(link, done, micros)
            return
        ends = []
        with self.lock:
            for kind, number, extra, flags, body, fd in came:
                if kind == frames.RESULT or kind == frames.ERROR:
                    if not link.owes(number):
                        # The pool gave it up, or a task came back twice, in a fork of the worker.
                        if fd >= 0:
                            os.close(fd)
                        continue
                    ends.append((link.inflight.popleft(), kind, extra, flags, body, fd))
                    micros += extra
                elif kind == frames.SKIPPED:
                    if link.inflight and link.inflight[0]._number == number:
                        self.dispatcher.requeue([link.inflight.popleft()])
                    else:
                        link.skips -= 1
                elif kind == frames.PONG:
                    link.asked = None
                elif kind == frames.READY:
                    link.ready = True
                elif kind == frames.RETIRE:
                    self.dispatcher.retire(link, body.decode())
        self.settled(link, done, micros, len(ends))
        for each in ends:
            try:
                self.resolve(link, *each)
            except BaseException:
                log.exception("what a future calls at its end failed")
        for kind, _, _, _, body, _ in came:
            if kind == frames.READY:
                self.listener.ready(link)
            elif kind == frames.REFUSED:
                self.listener.refused(link, body.decode())

    def settled(self, link: Link, done: int, micros: int, more: int = 0) -> None:
        """A worker has ended tasks, and has room for others. done: of those, how many have their results."""
        dispatcher = self.dispatcher
        again = False
        ended = done + more
        with self.lock:
            link.dirty = False
            self.done += done
            if ended:
                link.took(micros / ended)
            if not link.dead:
                dispatcher.refill(link)
            if dispatcher.ahead:
                again = dispatcher.steal()
        if again:
            self.timers.add(0.001, self.steal)
            self.ring()
        if dispatcher.large:
            self.write_large()
        if self.watching:
            self.listener.worked()
        if link.retiring is not None:
            self.listener.retiring(link)

    def hear_later(self) -> None:
        """Let the collector hear all workers soon: what comes unasked from one that bring() has heard last."""
        self.timers.add(_HEAR_SECONDS, self._hear_all)
        self.ring()

    def _hear_all(self) -> None:
        with self.lock:
            self.hearing_later = False
            for link in self.dispatcher.links:
                link.arm()

    def resolve(
        self, link: Link, future: TaskFuture, kind: int, micros: int, flags: int, body: bytes, fd: int
    ) -> None:
        future._micros = micros
        future._last = link.who
        value: Any = None
        error: BaseException | None = None
        if kind == frames.RESULT:
            try:
                value = decode(body, flags, fd)
            except BaseException as caught:
                error = caught
        else:
            error = decode_error(body, flags, fd)
        if error is not None:
            self.fail(future, error)
            return
        if self._decide(future, fine=True):
            future.set_result(value)

    def fail(self, future: TaskFuture, error: BaseException) -> None:
        if self._decide(future, fine=False):
            future.set_exception(error)

    def _decide(self, future: TaskFuture, *, fine: bool) -> bool:
        """Count its end. False if it was cancelled in the last moment, which it cannot be from now on."""
        with self.lock:
            if future._state != PENDING:
                return False
            future._state = RUNNING
            if fine:
                self.done += 1
            else:
                self.failed += 1
            future._payload = None
            future._link = None
        return True

    def steal(self) -> None:
        with self.lock:
            again = self.dispatcher.steal()
        if again:
            self.timers.add(0.001, self.steal)
        if self.dispatcher.large:
            self.write_large()

    def lost(self, link: Link, code: int | None) -> bool:
        """A worker is gone, and all that it sent was received. Whether it was in a task."""
        with self.lock:
            begun = self.dispatcher_begun(link)
            waiting = [future for future in link.inflight if future is not begun]
            link.inflight.clear()
            link.close()
            self.lose(link)
            self.dispatcher.remove(link)
            again = begun is not None and begun._attempts <= begun._retries and begun is not link.timed_out
            if begun is not None and again:
                begun._attempts += 1
                self.retried += 1
                waiting.insert(0, begun)
            self.dispatcher.requeue(waiting)
            self.dispatcher.refill_all()
        if self.dispatcher.large:
            self.write_large()
        if begun is None:
            return False
        if not again:
            begun._last = link.who
            self.fail(begun, TaskTimeout(link.killed) if begun is link.timed_out else died(link, code))
        return True

    def dispatcher_begun(self, link: Link) -> TaskFuture | None:
        first = link.inflight[0] if link.inflight else None
        return first if first is not None and link.has_begun(first) else None

    def abort(self, error: PoolBroken) -> None:
        """Nothing will run any more: every future ends with this."""
        with self.lock:
            self.broken = self.broken or error
            self.closing = True
            left = [*self.dispatcher.pending, *(future for _, future in self.dispatcher.large)]
            for link, _ in self.dispatcher.large:
                link.reserved = False
            for link in self.dispatcher.links:
                left += link.inflight
                link.inflight.clear()
            self.dispatcher.pending.clear()
            self.dispatcher.large.clear()
        for future in left:
            self.fail(future, PoolBroken(str(error)))


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _leave_to_the_owner() -> None:
    """In a fork of the owner: its workers must see their sockets closed when the owner is gone."""
    if not _engines.data:  # type: ignore[attr-defined]  # as in each worker, which is to run no more code than it must
        return
    for engine in list(_engines):
        engine.forked = True
        for link in list(engine.dispatcher.links):
            with contextlib.suppress(OSError):
                link.socket.close()
    _engines.clear()


os.register_at_fork(after_in_child=_leave_to_the_owner)

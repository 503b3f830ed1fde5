# SPDX-License-Identifier: Apache-2.0
"""The thread that reads what workers send, sees them end, and does what is due."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from frostfork.pool.engine import log

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link

_ERR_BYTES = select.PIPE_BUF  # for which there is room when a pipe is said to be writable
_ERR_WAIT_SECONDS = 0.05
_STATUS_SECONDS = 2.0  # for a worker's status to arrive once its process is gone


class Collector:
    """Owns the descriptors that it polls but for those of links."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._handlers: dict[int, Callable[[int], None]] = {engine.bell: self._rung}
        self._pipes: dict[int, Link] = {}
        engine.poller.register(engine.bell, select.EPOLLIN)
        self.stopping = False
        self.thread = threading.Thread(target=self._run, name=f"{name}-collector", daemon=True)

    def add(self, link: Link, stderr: int) -> None:
        """Look after a worker. stderr: the read end of its standard error."""
        self._pipes[stderr] = link
        self._handlers[stderr] = lambda _: self._heard(stderr)
        self._handlers[link.socket.fileno()] = lambda events: self._talked(link, events)
        self._handlers[link.worker.fileno()] = lambda _: self._gone(link)
        for fd in (stderr, link.socket.fileno(), link.worker.fileno()):
            self._engine.poller.register(fd, select.EPOLLIN)

    def _run(self) -> None:
        engine = self._engine
        engine.collector_ident = threading.get_ident()
        poll, timers, handlers = engine.poller.poll, engine.timers, self._handlers
        while not self.stopping:
            handler = None  # the last one's would hold its worker for as long as nothing happens
            try:
                for fd, events in poll(timers.wait_seconds()):
                    handler = handlers.get(fd)
                    if handler is not None:
                        handler(events)
                timers.run()
            except BaseException:
                # A callback or a timer may even want to exit: it is not this thread that it ends.
                log.exception("the collector of a pool met an error and goes on")
        for fd in list(self._pipes):
            self._heard(fd, last=True)
            self._drop(fd)
        bell, engine.bell = engine.bell, -1
        engine.poller.close()
        os.close(bell)

    def _rung(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._engine.bell)
        with self._engine.lock:
            sweep, self._engine.sweep = self._engine.sweep, False
            unsettled = [link for link in self._engine.dispatcher.links if sweep or link.unsettled]
        for link in unsettled:
            if not link.dead and not self._receive(link):
                self._forget(link.socket.fileno())
            self._engine.settled(link, 0, 0)
            link.arm()

    def _talked(self, link: Link, events: int) -> None:
        if events & select.EPOLLOUT:
            with self._engine.lock:
                if not link.dead and link.flush_more():
                    self._engine.dispatcher.refill(link)
        if events & ~select.EPOLLOUT and not self._receive(link):
            # It closed its end, or its process ended: the pidfd will tell.
            self._forget(link.socket.fileno())

    def _receive(self, link: Link) -> bool:
        """Whether there may be more."""
        came = link.handle()
        if came:
            try:
                self._engine.received(link, came)
            finally:
                link.handled()
        return came is not None

    def _gone(self, link: Link) -> None:
        self._forget(link.worker.fileno())
        # Another can be on its way while this one's status is.
        link.gone = True
        self._engine.listener.gone()
        self._bury(link, _STATUS_SECONDS)

    def _bury(self, link: Link, left: float) -> None:
        ended = link.worker.poll()
        if ended is None and left > 0:
            self._engine.timers.add(0.001, self._bury, link, left - 0.001)
            return
        if not link.seize():
            # Somebody waits in it for a result, perhaps for ever, if what the worker forked has the other end. What was
            # sent before can be read all the same.
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_RDWR)
            self._engine.timers.add(0.001, self._bury, link, left)
            return
        while (came := link.receive()) is not None and came:
            self._engine.received(link, came)
        for fd, each in list(self._pipes.items()):
            if each is link:
                self._heard(fd, last=True)
        self._forget(link.socket.fileno())
        code = None if ended is None else ended.code
        self._engine.listener.buried(link, code, self._engine.lost(link, code))

    def _heard(self, fd: int, last: bool = False) -> None:
        """Pass a worker's standard error on, and remember its end.

        Nobody may read what this process writes: then the worker waits for that, and not the pool. last: it has ended.
        """
        while fd in self._pipes:
            writable = _takes_more(2)
            if not writable and not last:
                self._forget(fd)
                self._engine.timers.add(_ERR_WAIT_SECONDS, self._hear_again, fd, self._pipes[fd])
                return
            try:
                data = os.read(fd, _ERR_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._drop(fd)
                return
            self._pipes[fd].heard(data)
            with contextlib.suppress(OSError):
                while data and writable:
                    data = data[os.write(2, data) :]

    def _hear_again(self, fd: int, link: Link) -> None:
        if self._pipes.get(fd) is link:
            self._handlers[fd] = lambda _: self._heard(fd)
            self._engine.poller.register(fd, select.EPOLLIN)

    def _drop(self, fd: int) -> None:
        if self._pipes.pop(fd, None) is not None:
            self._forget(fd)
            os.close(fd)

    def _forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._engine.poller.unregister(fd)


def _takes_more(fd: int) -> bool:
    """Whether a write would not wait: also if it would fail."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))

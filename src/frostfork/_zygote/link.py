# SPDX-License-Identifier: Apache-2.0
"""The owner's end of the line to its root or to a zygote, for any number of threads.

There is no thread that reads: whoever waits for something reads for all, one at a time, and what comes for others is
put where they look. A program that waits for nothing has nothing running.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from frostfork._zygote.channel import Channel, Message, Parcel


class Link:
    """gone: the other end has ended, and all that it had said has been read."""

    def __init__(self, channel: Channel, handle: Callable[[Message], None]) -> None:
        self.gone = False
        self.pidfd = -1  # of who is at the other end
        self._channel = channel
        self._handle = handle
        self.lock = threading.Lock()  # of what its users keep in tables
        self._sending = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self._reading = False

    def send(self, header: tuple[Any, ...], parcel: Parcel | None = None, fds: Iterable[int] = ()) -> bool:
        """False: the other end has gone. OSError: its descriptors cannot be sent."""
        with self._sending:
            return not self.gone and self._channel.send(header, parcel, fds)

    def wait_until(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Read until done() holds. False: the other end has gone, or the time (of time.monotonic) is over."""
        while not done():
            with self._changed:
                if done() or self.gone:  # asked again: it may have come since, and nothing else may ever come
                    return done()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if self._reading:
                    self._changed.wait(left)
                    continue
                self._reading = True
            try:
                self._read(left)
            finally:
                with self._changed:
                    self._reading = False
                    self._changed.notify_all()
        return True

    def drain(self) -> None:
        """Take what has come, unless another thread is at it."""
        with self._changed:
            if self._reading or self.gone:
                return
            self._reading = True
        try:
            self._read(0.0)
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()

    def _read(self, timeout: float | None) -> None:
        """Wait for something, and take all that is there."""
        ended = False
        if timeout != 0.0:
            poll = select.poll()
            poll.register(self._channel, select.POLLIN)
            pidfd = self.pidfd
            if pidfd >= 0:  # a child of its own may keep the socket open beyond its end
                poll.register(pidfd, select.POLLIN)
            ready = poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999)))
            ended = any(fd == pidfd for fd, _ in ready)
        else:
            ended = self.has_ended()
        while True:
            try:
                message = self._channel.receive()
            except BlockingIOError:
                if ended:
                    self._end()
                return
            if message is None:
                self._end()
                return
            self._handle(message)

    def has_ended(self) -> bool:
        """Whether the process at the other end has."""
        pidfd = self.pidfd
        if pidfd < 0:
            return self.gone
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _end(self) -> None:
        self.gone = True

    def wait_ended(self, timeout: float) -> bool:
        """Wait for its process, whatever it still says."""
        pidfd = self.pidfd
        if pidfd < 0:
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(int(timeout * 1000)))

    def shut(self) -> None:
        """Let the other end see that there is nobody here any more."""
        with self._sending:
            self.gone = True
            self._channel.close()

    def close(self) -> None:
        """No thread may be reading any more, or all shall be told that it is over."""
        with self._sending:
            self.gone = True
            self._channel.close()
            self._handle = Message.drop  # whoever handled messages holds us
            pidfd, self.pidfd = self.pidfd, -1
            if pidfd >= 0:
                os.close(pidfd)
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """In a fork of the owner: close the copies, without a lock that another thread may have held."""
        self.gone = True
        self._channel.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

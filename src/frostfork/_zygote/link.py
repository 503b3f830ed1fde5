# SPDX-License-Identifier: Apache-2.0
"""The owner's end of the line to its root or to a zygote, for any number of threads.

There is no thread that reads: whoever waits for something reads for all, one at a time, and what comes for others is
put where they look. A program that waits for nothing has nothing running.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from frostfork._zygote.adopted import reap
from frostfork._zygote.channel import Channel, Message, Parcel, encode
from frostfork._zygote.patience import LONGEST_SECONDS, milliseconds


class Link:
    """gone: the other end has ended, and all that it had said has been read.

    An interrupt (KeyboardInterrupt) may come between any two instructions. So locks are taken by `with` on the lock
    itself, which nothing can come into, as it can into Condition.__enter__; and a reader that was interrupted is known
    again by its thread.
    """

    def __init__(self, channel: Channel, handle: Callable[[Message], None]) -> None:
        self.gone = False
        self.pidfd = -1  # of who is at the other end
        self._channel = channel
        self._handle = handle
        self.lock = threading.Lock()  # of what its users keep in tables
        self._sending = threading.Lock()
        self._mutex = threading.Lock()  # of what follows
        self._changed = threading.Condition(self._mutex)
        self._reader = 0  # the thread that reads

    def send(
        self,
        header: tuple[Any, ...],
        parcel: Parcel | None = None,
        fds: Iterable[int] = (),
        deadline: float | None = None,
    ) -> bool:
        """False: the other end has gone. TimeoutError: it has not taken it until then. OSError: of the descriptors."""
        data, rights = encode(header, parcel, fds)
        while True:
            with self._sending:
                if self.gone:
                    return False
                with contextlib.suppress(BlockingIOError):
                    return self._channel.send_encoded(data, rights, wait=False)
            # Without the lock: others have deadlines of their own, and it may be closed.
            if not self._wait_writable(deadline):
                return False

    def tell(self, header: tuple[Any, ...]) -> bool:
        """Send it if that can be done now. False: the other end has not taken what was sent before."""
        try:
            self.send(header, deadline=0.0)
        except TimeoutError:
            return False
        return True

    def _wait_writable(self, deadline: float | None) -> bool:
        """False: the other end has gone."""
        channel, pidfd = self._channel.fileno(), self.pidfd
        if channel < 0:
            return False
        poll = select.poll()
        poll.register(channel, select.POLLOUT)
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
        left = milliseconds(None if deadline is None else deadline - time.monotonic())
        ready = [fd for fd, _ in poll.poll(left)]
        if not ready:
            raise TimeoutError("it has not taken what was sent")
        return channel in ready

    def wait_until(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Read until done() holds. False: the other end has gone, or the time (of time.monotonic) is over."""
        me = threading.get_ident()
        while not done():
            try:
                with self._mutex:
                    if (
                        done() or self.gone
                    ):  # asked again: it may have come since, and nothing else may ever come
                        return done()
                    left = None if deadline is None else min(deadline - time.monotonic(), LONGEST_SECONDS)
                    if left is not None and left <= 0:
                        return False
                    if self._reader not in (0, me):
                        self._changed.wait(left)
                        continue
                    self._reader = me
                self._read(left)
            finally:
                self._stop_reading(me)
        return True

    def _stop_reading(self, me: int) -> None:
        """Interrupted here, the thread is taken for the reader until it comes again."""
        if self._reader == me:
            with self._mutex:
                self._reader = 0
                self._changed.notify_all()

    def drain(self) -> None:
        """Take what has come, unless another thread is at it."""
        me = threading.get_ident()
        try:
            with self._mutex:
                if self._reader not in (0, me) or self.gone:
                    return
                self._reader = me
            self._read(0.0)
        finally:
            self._stop_reading(me)

    def _read(self, timeout: float | None) -> None:
        """Wait for something, and take all that is there."""
        ended = False
        if timeout != 0.0:
            channel = self._channel.fileno()
            if channel < 0:  # closed by another thread
                self._end()
                return
            poll = select.poll()
            poll.register(channel, select.POLLIN)
            pidfd = self.pidfd
            if pidfd >= 0:  # a child of its own may keep the socket open beyond its end
                poll.register(pidfd, select.POLLIN)
            ready = poll.poll(milliseconds(timeout))
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
        return bool(poll.poll(milliseconds(timeout)))

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
                reap(pidfd)
                os.close(pidfd)
        with self._mutex:
            self._changed.notify_all()

    def forget(self) -> None:
        """In a fork of the owner: close the copies, without a lock that another thread may have held."""
        self.gone = True
        self._channel.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

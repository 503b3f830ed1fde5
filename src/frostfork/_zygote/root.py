# SPDX-License-Identifier: Apache-2.0
"""The root: a process with nothing in it, from which each zygote begins anew.

It imports nothing after its start and runs nobody's code. Orphans become its children: workers whose zygote was killed
end under it, and it tells the owner how.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import socket
import traceback
from typing import NoReturn

from frostfork import _core
from frostfork._worker import become_zygote
from frostfork._zygote import ending, lifeline
from frostfork._zygote.channel import Channel
from frostfork._zygote.nursery import Nursery
from frostfork._zygote.outbox import Outbox
from frostfork._zygote.setup import Setup
from frostfork._zygote.signals import Waker, hold, release, wait_readable
from frostfork.fork import fork

_MOST_UNSENT = 10_000  # ends of orphans; whoever does not read so many does not want them


class Root:
    def __init__(self, control: socket.socket, setup: Setup) -> None:
        self._channel = Channel(control)
        self._outbox = Outbox(self._channel)
        self._setup = setup
        self._zygotes: set[int] = set()
        self._lifeline = lifeline.arm(setup.lifeline) if setup.kill else -1
        with contextlib.suppress(OSError):
            _core.adopt_orphans()
        self._waker = Waker()

    def run(self) -> None:
        """Until the owner has gone, and the zygotes with it."""
        while self._channel.fileno() >= 0 or self._zygotes:
            poll = select.poll()
            if self._channel.fileno() >= 0:
                poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._outbox else 0))
            poll.register(self._waker, select.POLLIN)
            wait_readable(poll, None)
            self._waker.clear()
            self._reap()
            self._outbox.flush()
            self._serve()

    def _serve(self) -> None:
        if self._channel.fileno() < 0:
            return
        try:
            message = self._channel.receive()
        except BlockingIOError:
            return
        if message is None:
            self._owner_gone()
            return
        kind, question, generation = message.header
        assert kind == "zygote"
        try:
            if message.cut or not message.fds:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._fork_zygote(question, generation, message.fds[0])
        except Exception as error:
            number = error.errno if isinstance(error, OSError) else None
            self._outbox.put(("refused", question, number or 0, str(error)[:1000]))
        finally:
            message.drop()

    def _fork_zygote(self, question: int, generation: int, control: int) -> None:
        before = hold()
        try:
            pid = fork()
            if pid == 0:
                self._become(generation, control)
        finally:
            release(before)
        self._zygotes.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        self._outbox.put(("forked", question, pid), fds=[pidfd])

    def _become(self, generation: int, control: int) -> NoReturn:
        """In the zygote."""
        code = 70
        try:
            self._channel.close()
            self._outbox.drop()
            self._waker.close()
            if self._lifeline >= 0:
                os.close(self._lifeline)
            setup = self._setup
            become_zygote(setup.name, generation, {control, setup.lifeline, *setup.keep_fds})
            if setup.kill:
                lifeline.arm(setup.lifeline)
            Nursery(socket.socket(fileno=control), generation, setup).run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            ending.leave(code)

    def _owner_gone(self) -> None:
        self._channel.close()
        self._outbox.drop()
        if not self._setup.kill:
            return  # zygotes end when their workers have
        family = self._zygotes if self._lifeline >= 0 else self._zygotes | _children()
        for pid in family:  # not waited for yet, so the numbers are theirs
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._zygotes.discard(pid)
            if len(self._outbox) < _MOST_UNSENT:
                self._outbox.put(("ended", pid, status, tuple(usage)))


def _children() -> set[int]:
    with contextlib.suppress(OSError), open("/proc/thread-self/children") as file:
        return set(map(int, file.read().split()))
    return set()


def be_root(control: socket.socket, setup: Setup) -> NoReturn:
    """In a process that is to be the root, whose only thread this is."""
    code = 70
    try:
        become_zygote(setup.name, 0, {control.fileno(), setup.lifeline, *setup.keep_fds})
        Root(control, setup).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main(found: tuple[list[str], int, bytes]) -> NoReturn:
    """In a new interpreter, with what starting.py wrote for it."""
    _, control, pickled = found
    setup = Setup(*pickle.loads(pickled))  # noqa: S301 - from the owner
    for fd in (control, setup.lifeline, *setup.keep_fds):
        os.set_inheritable(fd, False)
    be_root(socket.socket(fileno=control), setup)

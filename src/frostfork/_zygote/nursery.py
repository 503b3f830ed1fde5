# SPDX-License-Identifier: Apache-2.0
"""The zygote: it holds what workers share, forks them, and tells how they end.

It has one thread and never waits to send. It waits for its own workers by number: the template may have children, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn

from frostfork import _inherited, _lasting, _lookups
from frostfork._worker import rehearse
from frostfork._zygote.brood import Brood, Child
from frostfork._zygote.channel import Channel, Message, close_all
from frostfork._zygote.life import Birth, live
from frostfork._zygote.outbox import Outbox
from frostfork._zygote.setup import Setup
from frostfork._zygote.signals import Waker, hold, release, wait_readable
from frostfork._zygote.template import Template
from frostfork.fork import fork, fork_quietly
from frostfork.steps import drain_heap, drain_pools

_MOST_SAID = 40_000  # bytes of a traceback: no descriptor is needed to send it
_BURST_SECONDS = 0.05  # after a fork, until the template is idle
_MOST_TEXT = 2000  # characters of an exception's own text
_ABORTED = 70  # what a worker ends with if not even its end worked


def _flush() -> None:
    """Else a worker would write out what it inherits, too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class Nursery:
    def __init__(self, control: socket.socket, generation: int, setup: Setup) -> None:
        self._channel = Channel(control)
        self._outbox = Outbox(self._channel)
        self._generation = generation
        self._setup = setup
        self._template = Template()
        self._workers = Brood(self._report)
        self._ended: deque[tuple[str, int, int | None]] = deque()  # what the template has not been told
        self._over = False  # ends when the last worker has
        self._in_template = False
        self._has_forked = False  # the first fork warns of threads
        self._idle_at: float | None = 0.0
        self._waker = Waker(self._child_ended)

    def run(self) -> None:
        """All of the zygote's life."""
        try:
            with self._foreign_code():
                self._template = self._setup.make_template()
                self._template.begin()
        except BaseException as error:
            self._outbox.put(("failed", _said(error)), _trace().encode("utf-8", "replace")[-_MOST_SAID:])
            return
        self._settle()
        self._outbox.put(("ready",))
        while not self._over or self._workers or self._ended or self._outbox:
            self._turn()

    def _settle(self) -> None:
        """The last thing before the first fork."""
        try:
            _lookups.refresh(self._own())
            rehearse()
            self._template.rehearse()
            _lasting.make_immortal(self._own())
            drain_heap.again()
            drain_pools.again()
        except Exception:  # workers will share less
            traceback.print_exc()

    def _turn(self) -> None:
        poll = select.poll()
        if self._channel.fileno() >= 0:
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        poll.register(self._waker, select.POLLIN)
        wait_readable(poll, self._patience())
        self._waker.clear()
        self._workers.reap()
        self._outbox.flush()
        if self._serve():
            return
        if self._ended:
            with self._foreign_code(show=True):
                self._template.ended(*self._ended.popleft())
        elif not self._over and self._idle_at is not None and time.monotonic() >= self._idle_at:
            self._idle_at = None
            with self._foreign_code(show=True):
                seconds = self._template.idle()
                self._idle_at = None if seconds is None else time.monotonic() + seconds

    def _patience(self) -> float | None:
        """How long nothing else is to be done."""
        if self._ended:
            return 0.0
        if self._over or self._idle_at is None:
            return None
        return max(0.0, self._idle_at - time.monotonic())

    @contextlib.contextmanager
    def _foreign_code(self, show: bool = False) -> Iterator[None]:
        """Around the template's code, which may take its time: ends of workers are reported meanwhile."""
        self._in_template = True
        self._workers.reap()
        try:
            yield
        except BaseException:
            if not show:
                raise
            traceback.print_exc()
        finally:
            self._in_template = False
            self._waker.listen()
            _inherited.settle()
            _flush()

    def _own(self) -> list[object]:
        """What is there as long as this process and its workers are."""
        mine = (self._workers, self._ended, self._setup, self._setup.keep_fds, self._generation)
        return [
            self,
            *mine,
            *self._channel.parts(),
            *self._outbox.parts(),
            self._waker,
            *self._template.parts(),
        ]

    # --- the owner's wishes

    def _serve(self) -> bool:
        """Do one thing that the owner asked for. False: it asked for nothing."""
        if self._channel.fileno() < 0:
            return False
        try:
            message = self._channel.receive()
        except BlockingIOError:
            return False
        if message is None:
            self._owner_gone()
            return True
        self._idle_at = 0.0
        kind, *details = message.header
        if kind == "fork":
            self._fork_all(message, *details)
            # Not between the forks of one burst: what the template writes meanwhile would be copied away from those
            # that were forked before.
            self._idle_at = time.monotonic() + _BURST_SECONDS
        elif kind == "call":
            self._call(message, *details)
        else:
            message.drop()
            self._obey(kind, *details)
        return True

    def _obey(self, kind: str, *details: int) -> None:
        if kind == "kill":
            first, count = details
            self._workers.kill(lambda child: first <= child.serial < first + count)
        elif kind == "retire":
            self._over = True
        elif kind == "end":
            self._end()

    def _end(self) -> None:
        self._over = True
        self._workers.kill()

    def _owner_gone(self) -> None:
        """It ended, or closed its end: there is nobody to tell anything."""
        self._channel.close()
        self._outbox.drop()
        self._over = True
        if self._setup.kill:
            self._ended.clear()
            self._end()

    def _call(self, message: Message, serial: int) -> None:
        """Run a method of the template for the owner."""
        try:
            method, arguments = pickle.loads(message.take_body())  # noqa: S301 - from the owner
            with self._foreign_code():
                body = pickle.dumps((True, getattr(self._template, method)(*arguments)))
        except BaseException as error:
            body = pickle.dumps((False, (_said(error), _trace())))
        try:
            self._outbox.put(("result", serial), body)
        except OSError as error:  # no descriptor for a memfd
            said = f"the result cannot be sent: {error}"
            self._outbox.put(("result", serial), pickle.dumps((False, (said, said))))

    # --- workers

    def _fork_all(
        self, message: Message, first: int, names: list[str], counts: list[int] | None, at_once: bool
    ) -> None:
        """counts: how many of the descriptors each gets; None if none were given. at_once: they wait for nobody."""
        fds = message.fds
        at = 0
        try:
            for index, name in enumerate(names):
                if message.cut:
                    self._refuse(first + index, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
                    continue
                own = None
                if counts is not None:
                    own = fds[at : at + counts[index]]
                    at += counts[index]
                self._fork(first + index, name, message, own, at_once)
        finally:
            message.drop()

    def _fork(self, serial: int, name: str, message: Message, own: list[int] | None, at_once: bool) -> None:
        self._in_template = True  # which may import something first
        self._workers.reap()
        try:
            self._template.before_fork(name)
            others = tuple(self._template.descriptors(name))
        except Exception:
            traceback.print_exc()
            others = ()
        finally:
            self._in_template = False
        if not self._template.writes_nothing:
            _flush()
        try:
            gate, key = (-1, -1) if at_once else os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._refuse(serial, error)
            self._not_forked(name)
            return
        pid = pidfd = -1
        try:
            before = hold()
            try:
                pid = fork_quietly() if self._has_forked else fork()
                if pid == 0:
                    self._become(name, message, own, others, gate, key)
                forked_at = time.monotonic()
                self._has_forked = True
                self._workers[pid] = Child(serial, name)
            finally:
                release(before)
            pidfd = os.pidfd_open(pid)
        except Exception as error:  # the kernel's refusal, or an audit hook's
            close_all([key])
            self._refuse(serial, error)
            if pid < 0:
                self._not_forked(name)
            elif at_once:
                self._workers.kill(lambda child: child.serial == serial)
            return
        finally:
            close_all([gate])

        def announced(failure: OSError | None) -> None:
            if failure is not None:
                self._refuse(serial, failure)
                if at_once:
                    self._workers.kill(lambda child: child.serial == serial)

        # The owner opens the gate. A key lost on its way closes it for good: the worker ends without having begun.
        self._outbox.put(
            ("worker", serial, pid, forked_at), b"", [pidfd] if at_once else [pidfd, key], announced
        )

    def _not_forked(self, name: str) -> None:
        with self._foreign_code(show=True):
            self._template.not_forked(name)

    def _refuse(self, serial: int, error: Exception) -> None:
        number = error.errno if isinstance(error, OSError) else None
        self._outbox.put(("refused", serial, number or 0, str(error)[:1000]))

    def _become(
        self,
        name: str,
        message: Message,
        own: list[int] | None,
        others: tuple[int, ...],
        gate: int,
        key: int,
    ) -> NoReturn:
        """In the worker: nothing of the zygote's own stays open, and nobody comes back from here."""
        try:
            if self._template.watches_birth:
                self._template.born()
            # By number, all at once: the objects stay as they are, for as long as this frame does. A socket's close()
            # alone would run code on ten pages.
            foreign = (
                self._channel.fileno(),
                *self._waker.filenos(),
                *self._outbox.descriptors(),
                *{*message.fds}.difference(own or ()),
                *{key}.difference({-1}),
            )
            birth = Birth(name, self._generation, message.body, message.memfd, own, others, gate, foreign)
            live(birth, self._setup, self._template)
        finally:
            os._exit(_ABORTED)

    def _child_ended(self) -> None:
        """From a signal handler: between two instructions of the template's, or when it does not matter."""
        if self._in_template:
            self._workers.reap()

    def _report(self, pid: int, child: Child, status: int | None, usage: tuple[Any, ...] | None) -> None:
        self._outbox.put(("ended", child.serial, status, usage))
        self._ended.append((child.name, pid, None if status is None else os.waitstatus_to_exitcode(status)))
        self._idle_at = 0.0


def _said(error: BaseException) -> str:
    """Its type and text, with its notes: more than the last line of its traceback, which may be a note's."""
    try:
        return "".join(traceback.format_exception_only(type(error), error)).strip()[:_MOST_TEXT]
    except Exception:  # of a name that is no text it cannot say which one was meant
        return type(error).__name__


def _trace() -> str:
    try:
        return traceback.format_exc()
    except Exception:
        return "".join(traceback.format_tb(sys.exc_info()[2]))

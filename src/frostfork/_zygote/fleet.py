# SPDX-License-Identifier: Apache-2.0
"""All processes of one Zygote: the root, the zygote in charge, and those that it replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from frostfork._zygote import lifeline, starting
from frostfork._zygote.channel import Parcel, pair
from frostfork._zygote.coming import Coming
from frostfork._zygote.handle import Gone, Handle, NoAnswer
from frostfork._zygote.link import Link
from frostfork._zygote.orphans import how_orphan_ended
from frostfork._zygote.root_handle import RootHandle
from frostfork._zygote.setup import Options, Setup
from frostfork._zygote.worker import Ended, Worker
from frostfork.errors import ZygoteError

_ATTEMPTS = 3  # zygotes that may end in our hands during one request
_SUCCESSION_SECONDS = 5.0  # for one that is replaced to hand over what it knows
_END_SECONDS = 2.0  # for whom is told to end, and then for whom is killed


class Fleet:
    def __init__(self, options: Options) -> None:
        self._options = options
        self.owner = os.getpid()
        self._closing = self.closed = False
        self._done = False  # closed, and nothing is left
        self.current: Handle | None = None
        self._root: RootHandle | None = None
        self._former: list[Handle] = []
        self._generation = 0
        self._question = 0  # the number of the last one to the root; an interrupt may leave its answer behind
        self._beginning: Handle | None = None  # not yet ready
        self._starting = threading.RLock()  # held while a zygote is being started
        self._lifeline, self._anchor = lifeline.make()
        _fleets.add(self)

    # --- requests

    def fork(
        self,
        names: Sequence[str],
        parcels: Sequence[Parcel],
        fds: Sequence[Sequence[int]] | None,
        timeout: float | None,
    ) -> list[Worker]:
        """As many workers as names; one parcel for all, or one each. All or none."""
        deadline = None if timeout is None else time.monotonic() + timeout
        found: list[Worker | None] = [None] * len(names)
        try:
            for _ in range(_ATTEMPTS):
                handle = self.in_charge()
                for parcel, indices in _missing(found, parcels):
                    own = None if fds is None else [fds[index] for index in indices]
                    answers = handle.fork([names[index] for index in indices], parcel, own, deadline)
                    _sort(answers, indices, found)
                workers = [worker for worker in found if worker is not None]
                if len(workers) == len(names):
                    return workers
            raise ZygoteError(f"{_ATTEMPTS} zygotes in a row ended before they forked a worker")
        except BaseException:
            for worker in found:
                if worker is not None:
                    worker.kill()
            raise

    def ask(self, name: str, parcel: Parcel, fds: Sequence[int] | None, timeout: float | None) -> Coming:
        """For one worker, which begins at once, and for nothing more: without a second attempt."""
        handle = self.in_charge()
        deadline = None if timeout is None else time.monotonic() + timeout
        own = None if fds is None else [fds]
        return Coming(handle, handle.ask([name], parcel, own, deadline))

    def call(self, method: str, arguments: tuple[Any, ...], timeout: float | None) -> object:
        deadline = None if timeout is None else time.monotonic() + timeout
        handle = self.in_charge()
        try:
            return handle.call(method, arguments, deadline)
        except TimeoutError:
            said = f"the zygote ({handle.pid}) did not answer {method}() within {timeout:g} s"
            raise NoAnswer(said) from None
        except Gone:
            raise ZygoteError(f"the zygote ({handle.pid}) ended before {method}() had a result") from None

    def in_charge(self) -> Handle:
        """The zygote in charge; another one if that has ended."""
        if self._former:
            self.tidy()
        handle = self.current
        if handle is not None and handle.is_alive():
            return handle
        with self._starting:
            handle = self.current
            if handle is None or not handle.is_alive():
                handle = self._start(self._options.ready_timeout)
                self._take_over(handle)
            return handle

    def replace(self, timeout: float | None) -> int:
        with self._starting:
            if self.current is not None and self.current.is_alive():
                with contextlib.suppress(Gone, ZygoteError, OSError):  # it may be what is wrong
                    self.current.call("succeeded", (), time.monotonic() + _SUCCESSION_SECONDS)
            handle = self._start(self._options.ready_timeout if timeout is None else timeout)
            self._take_over(handle)
            return handle.generation

    def _take_over(self, handle: Handle) -> None:
        former, self.current = self.current, handle
        if former is not None:
            if not former.link.tell(("retire",)):
                _kill(former.link)  # it hangs; its workers go on
            self._former.append(former)
        self.tidy()

    def tidy(self) -> None:
        """Let go of those that were replaced and have ended. No lock: who holds one may take long."""
        for each in self._former[:]:
            each.link.drain()
            each.look_after_orphans()
            if each.link.gone and not each.workers:
                each.link.close()
                with contextlib.suppress(ValueError):  # another thread was quicker
                    self._former.remove(each)

    # --- starting

    def _start(self, timeout: float) -> Handle:
        """A new zygote that is ready. ZygoteError or OSError: none of it is left."""
        self._check_open()
        deadline = time.monotonic() + timeout
        generation = self._generation + 1
        handle = self._ask_root(generation, deadline)
        self._beginning = handle  # close() first says that it closes, and then looks here
        try:
            self._check_open()
            handle.wait_ready(deadline)
        except BaseException:
            _kill(handle.link)
            handle.link.close()
            raise
        finally:
            self._beginning = None
        self._generation = generation
        return handle

    def _check_open(self) -> None:
        if self._closing:
            raise ZygoteError("this Zygote is closed")

    def _ask_root(self, generation: int, deadline: float) -> Handle:
        for _ in range(2):
            root = self._living_root()
            root.forget()
            self._question += 1
            question = self._question
            ours, theirs = pair()
            handle = Handle(generation, ours, self._ask_for_orphan)
            try:
                with theirs:
                    asked = "zygote", question, generation
                    sent = root.link.send(asked, None, [theirs.fileno()], deadline)
                if sent and root.link.wait_until(lambda: question in root.said, deadline):  # noqa: B023 - asked within this turn
                    message = root.said.pop(question)
                    if message.header[0] == "forked" and message.fds:
                        handle.pid, handle.link.pidfd = message.header[2], message.fds[0]
                        return handle
                    number = message.header[2] if message.header[0] == "refused" else errno.EMFILE
                    raise OSError(number, os.strerror(number)) if number else ZygoteError(message.header[3])
            except TimeoutError:
                break
            finally:
                if handle.pid == 0:
                    handle.link.close()
            if not sent:  # it closes its files before it is seen to have ended
                root.link.wait_ended(max(0.0, deadline - time.monotonic()))
            elif not root.link.gone:
                break
        raise ZygoteError("the root ended, or did not answer in time, when it was asked for a zygote")

    def _living_root(self) -> RootHandle:
        root = self._root
        if root is not None:
            if not root.link.gone and not root.link.has_ended():
                return root
            root.link.drain()
            self._let_go(root)
        options = self._options
        setup = Setup(options.name, options.kill, self._lifeline, options.keep_fds, options.template, None)
        how = starting.choose(options.start, again=self._generation > 0)
        self._root = RootHandle(self.orphan_ended, how, setup, options.import_main)
        return self._root

    # --- orphans

    def orphan_ended(self, pid: int, how: Ended) -> None:
        """The root saw it: a zygote, or a worker whose zygote had ended before."""
        for handle in (self.current, *self._former):
            if handle is None:
                continue
            for serial, worker in list(handle.workers.items()):
                if worker.pid == pid and worker.has_ended():
                    handle.link.drain()
                    handle.note_end(serial, how)

    def _ask_for_orphan(self, worker: Worker, deadline: float) -> Ended | None:
        return how_orphan_ended(worker, lambda: self._root, deadline)

    # --- the end

    def close(self, timeout: float, drain: bool) -> None:
        """Nothing is left of it afterwards. Once is enough."""
        deadline = time.monotonic() + timeout
        self._closing = True
        if (beginning := self._beginning) is not None:
            _kill(beginning.link)  # whoever waits for it holds the lock
        with self._starting:
            if self._done:
                return
            again, self.closed = self.closed, True  # again: an interrupt ended the first attempt
            handles = [handle for handle in (self.current, *self._former) if handle is not None]
            try:
                if drain and not again:
                    for handle in handles:
                        for worker in list(handle.workers.values()):
                            with contextlib.suppress(TimeoutError):
                                worker.wait(max(0.0, deadline - time.monotonic()))
            finally:
                self._end(handles, max(deadline, time.monotonic() + _END_SECONDS))

    def _end(self, handles: list[Handle], deadline: float) -> None:
        for handle in handles:
            for worker in list(handle.workers.values()):
                worker.kill()
            if not handle.link.tell(("end",)):
                _kill(handle.link)
        for handle in handles:
            handle.link.wait_until(_never, deadline)
            if not handle.link.gone:
                _kill(handle.link)
        deadline = time.monotonic() + _END_SECONDS
        for handle in handles:
            handle.link.wait_until(_never, deadline)
            for worker in list(handle.workers.values()):
                with contextlib.suppress(TimeoutError):
                    worker.wait(max(0.0, deadline - time.monotonic()))
            handle.link.close()
        root = self._root
        if root is not None:
            root.link.shut()
            if not root.link.wait_ended(_END_SECONDS):
                _kill(root.link)
            self._let_go(root)
        for handle in handles:
            handle.give_up()
        self.current = None
        self._former.clear()
        self._done = True
        os.close(self._anchor)
        os.close(self._lifeline)

    def _let_go(self, root: RootHandle) -> None:
        """It has ended, or was killed."""
        self._root = None
        root.reap()
        root.link.close()
        root.forget()

    def forget(self) -> None:
        """In a fork of the owner: it must hold nothing that tells the others whether the owner lives."""
        if self.closed:
            return
        self.closed = True
        for handle in (self.current, *self._former):
            if handle is not None:
                handle.link.forget()
        if self._root is not None:
            self._root.link.forget()
        os.close(self._anchor)  # the other end stays: this fork may be the root


def _sort(
    answers: list[Worker | OSError | ZygoteError | None], indices: list[int], found: list[Worker | None]
) -> None:
    """Workers to where they belong; an exception is raised."""
    try:
        for index, answer in zip(indices, answers, strict=True):
            if isinstance(answer, Worker):
                found[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    finally:
        answer = None
        answers.clear()  # else an exception and its frames would hold each other, and workers, until a collection


def _missing(found: list[Worker | None], parcels: Sequence[Parcel]) -> list[tuple[Parcel, list[int]]]:
    """Which parcel goes to which of the workers that are not there yet."""
    indices = [index for index, worker in enumerate(found) if worker is None]
    if len(parcels) == 1:
        return [(parcels[0], indices)] if indices else []
    return [(parcels[index], [index]) for index in indices]


def _never() -> bool:
    return False


def _kill(link: Link) -> None:
    if link.pidfd >= 0:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(link.pidfd, signal.SIGKILL)


_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


def _forget_all() -> None:
    if not _fleets.data:  # type: ignore[attr-defined]  # as in each worker, which is to run no more code than it must
        return
    for fleet in list(_fleets):
        fleet.forget()
    _fleets.clear()


os.register_at_fork(after_in_child=_forget_all)

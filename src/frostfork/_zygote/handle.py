# SPDX-License-Identifier: Apache-2.0
"""A zygote, as its owner sees it: what was asked of it, and the workers that it forked."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import resource
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from frostfork import _core
from frostfork._zygote.channel import MOST_FDS, Channel, Message, Parcel, close_all
from frostfork._zygote.link import Link
from frostfork._zygote.worker import Ended, Worker
from frostfork.errors import ZygoteError

_MOST_WORKERS = 100  # asked for in one message
_MOST_NAMES = 8000  # characters of their names in one message, of four bytes each


class Answer:
    """To one question. value: a Worker, a message, or the exception to be raised; None until it comes.

    at_once: the worker does not wait to be let through a gate.
    """

    def __init__(self, name: str = "", at_once: bool = False) -> None:
        self.name = name
        self.at_once = at_once
        self.value: Any = None
        self.abandoned = False


class Question(NamedTuple):
    """For workers. first: the number of the first of them."""

    first: int
    answers: list[Answer]


Found = Worker | OSError | ZygoteError | None


class Gone(Exception):  # never leaves the package
    """The zygote ended before it answered."""


class RemoteTraceback(Exception):
    """Where in the zygote it happened: the cause of the ZygoteError that it became."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class NoAnswer(ZygoteError):
    """The zygote is there and does not answer: it hangs, or was stopped."""


class Handle:
    def __init__(self, generation: int, end: socket.socket, orphan: Callable[[Worker, float], Ended | None]):
        """orphan: how a worker ended whose zygote has gone, asked until the given time at the longest."""
        self.generation = generation
        self.pid = 0
        self.link = Link(Channel(end), self._take)
        self.workers: dict[int, Worker] = {}
        self._orphan = orphan
        self._answers: dict[int, Answer] = {}
        self._next_serial = 1
        self._begun = Answer()

    # --- beginning and end

    def wait_ready(self, deadline: float | None) -> None:
        """ZygoteError: its template failed, it ended, or it took too long."""
        if not self.link.wait_until(lambda: self._begun.value is not None, deadline):
            if self.link.gone:
                raise ZygoteError(f"the zygote (generation {self.generation}) ended before it was ready")
            raise ZygoteError(f"the zygote (generation {self.generation}) was not ready in time")
        begun, self._begun = self._begun.value, Answer()
        if isinstance(begun, BaseException):
            try:
                raise begun
            finally:
                del begun  # else it and its frames would hold each other, and workers, until a collection

    def is_alive(self) -> bool:
        return not self.link.gone and not self.link.has_ended()

    # --- workers

    def fork(
        self,
        names: Sequence[str],
        parcel: Parcel,
        fds: Sequence[Sequence[int]] | None,
        deadline: float | None,
    ) -> list[Found]:
        """One answer for each name; None where the zygote ended before it gave one: that worker has not begun."""
        question = self._question(names)
        try:
            self._ask(question, parcel, fds, deadline)
            return self._wait(question, deadline)
        except BaseException:
            self.abandon(question)
            raise

    def ask(
        self,
        names: Sequence[str],
        parcel: Parcel,
        fds: Sequence[Sequence[int]] | None,
        deadline: float | None,
    ) -> Question:
        """For workers that begin at once, and of which take() tells."""
        question = self._question(names, at_once=True)
        try:
            self._ask(question, parcel, fds, deadline)
        except BaseException:
            self.abandon(question)
            raise
        return question

    def take(self, question: Question, deadline: float | None) -> list[Found]:
        """One answer for each name; None where the zygote ended before it gave one: that worker may have begun."""
        try:
            return self._wait(question, deadline)
        except BaseException:
            self.abandon(question)
            raise

    def _question(self, names: Sequence[str], *, at_once: bool = False) -> Question:
        answers = [Answer(name, at_once) for name in names]
        return Question(self._expect(answers), answers)

    def _ask(
        self,
        question: Question,
        parcel: Parcel,
        fds: Sequence[Sequence[int]] | None,
        deadline: float | None,
    ) -> None:
        names = [answer.name for answer in question.answers]
        at_once = question.answers[0].at_once
        for start, end in _portions(names, fds):
            portion = None if fds is None else fds[start:end]
            counts = None if portion is None else [len(own) for own in portion]
            header = ("fork", question.first + start, names[start:end], counts, at_once)
            flat = [fd for own in portion or () for fd in own]
            try:
                if not self.link.send(header, parcel, flat, deadline):
                    break
            except TimeoutError:
                raise NoAnswer(f"the zygote ({self.pid}) did not answer in time") from None

    def _wait(self, question: Question, deadline: float | None) -> list[Found]:
        answers = question.answers
        self.link.wait_until(lambda: all(answer.value is not None for answer in answers), deadline)
        if not self.link.gone and any(answer.value is None for answer in answers):
            raise NoAnswer(f"the zygote ({self.pid}) did not answer in time")
        return [answer.value for answer in answers]

    def call(self, method: str, arguments: tuple[Any, ...], deadline: float | None = None) -> object:
        """Raises Gone, ZygoteError, TimeoutError, or what pickle raises."""
        parcel = Parcel(pickle.dumps((method, arguments)))
        answer = Answer()
        try:
            serial = self._expect([answer])
            self.link.send(("call", serial), parcel, deadline=deadline)
        finally:
            parcel.close()
        try:
            if not self.link.wait_until(lambda: answer.value is not None, deadline) and not self.link.gone:
                raise TimeoutError(f"{method}() takes too long")
        except BaseException:
            answer.abandoned = True
            raise
        if answer.value is None:
            raise Gone
        if isinstance(answer.value, OSError):
            raise answer.value
        fine, value = pickle.loads(answer.value)  # noqa: S301 - from our own zygote
        if fine:
            return value
        said, trace = value
        raise ZygoteError(f"{method}() failed in the zygote: {said}") from RemoteTraceback(trace)

    def _expect(self, answers: list[Answer]) -> int:
        first = self._next_serial
        with self.link.lock:
            first = self._next_serial
            self._next_serial += len(answers)
            self._answers.update(enumerate(answers, first))
        return first

    def abandon(self, question: Question) -> None:
        """Nobody will have these workers: they end, those that are forked from now on as well.

        One of which the zygote cannot be told, since it does not read, is never let through its gate, if it has one.
        """
        for answer in question.answers:
            answer.abandoned = True
            if isinstance(answer.value, Worker):
                answer.value.kill()
        self.link.tell(("kill", question.first, len(question.answers)))

    # --- what it says

    def _take(self, message: Message) -> None:
        kind, *details = message.header
        if kind == "result":
            answer = self._answers.pop(details[0])
            try:
                answer.value = message.take_body()
            except OSError as lost:
                answer.value = lost
        elif kind == "worker":
            self._take_worker(message, *details)
        elif kind == "refused":
            serial, number, text = details
            error = OSError(number, os.strerror(number)) if number else ZygoteError(f"no fork: {text}")
            self._answers.pop(serial).value = error
        elif kind == "ended":
            serial, status, usage = details
            if status is None and serial in self.workers:  # somebody in the zygote waited for it
                status = _core.exit_status(self.workers[serial].fileno())
            self.note_end(serial, ended(status, usage))
        elif kind == "ready":
            self._begun.value = True
        elif kind == "failed":
            trace = message.take_body().decode("utf-8", "replace")
            error = ZygoteError(f"the template failed to begin: {details[0]}")
            error.__cause__ = RemoteTraceback(trace)
            self._begun.value = error

    def _take_worker(self, message: Message, serial: int, pid: int, forked_at: float) -> None:
        answer = self._answers.pop(serial)
        if len(message.fds) < (1 if answer.at_once else 2):  # this process may not open more
            close_all(message.fds)
            self.link.tell(("kill", serial, 1))
            answer.value = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return
        pidfd, *keys = message.fds
        worker = Worker(self, answer.name, pid, pidfd, forked_at)
        self.workers[serial] = worker
        answer.value = worker
        if answer.abandoned:
            worker.kill()
        else:  # it waits for this: see life.py
            for key in keys:
                with contextlib.suppress(BrokenPipeError):  # it has ended already
                    os.write(key, b".")
        close_all(keys)

    # --- how workers end

    def look(self, worker: Worker) -> None:
        """Take what is known of its end, without waiting."""
        self.link.drain()
        if not worker.is_known() and self.link.gone and worker.has_ended():
            self._adopt(worker, time.monotonic())

    def look_after_orphans(self) -> None:
        """Note the ends of workers that it had, once it is gone: nobody may ever ask for them."""
        for worker in list(self.workers.values()) if self.link.gone else ():
            self.look(worker)

    def settle(self, worker: Worker, deadline: float | None) -> bool:
        """It has ended: wait until it is known how. False: not in time."""
        if not self.link.wait_until(worker.is_known, deadline) and self.link.gone:
            self._adopt(worker, deadline)
        return worker.is_known()

    def _adopt(self, worker: Worker, deadline: float | None) -> None:
        found = self._orphan(worker, math.inf if deadline is None else deadline)
        if found is not None:
            for serial, each in list(self.workers.items()):
                if each is worker:
                    self.note_end(serial, found)

    def give_up(self) -> None:
        """At the very end, when nobody is left to ask: the kernel may know."""
        for serial, worker in list(self.workers.items()):
            if worker.has_ended():
                self.note_end(serial, ended(_core.exit_status(worker.fileno()), None))

    def note_end(self, serial: int, how: Ended) -> None:
        """Once: from then on nothing here holds the worker."""
        worker = self.workers.pop(serial, None)
        if worker is not None:
            worker.note_end(how)


def ended(status: int | None, usage: tuple[Any, ...] | None) -> Ended:
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return Ended(code, None if usage is None else resource.struct_rusage(usage))


def _portions(names: Sequence[str], fds: Sequence[Sequence[int]] | None) -> list[tuple[int, int]]:
    """From where to where the workers of each message go: so many names and descriptors fit into one."""
    portions = []
    start = text = rights = 0
    for at, name in enumerate(names):
        own = 0 if fds is None else len(fds[at])
        if at - start == _MOST_WORKERS or text + len(name) > _MOST_NAMES or rights + own > MOST_FDS:
            portions.append((start, at))
            start, text, rights = at, 0, 0
        text += len(name)
        rights += own
    return [*portions, (start, len(names))]

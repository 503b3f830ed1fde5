# SPDX-License-Identifier: Apache-2.0
"""A process of the multiprocessing context that starts from a zygote, and the zygotes that this process has for that."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import threading
import weakref
from multiprocessing import popen_fork, reduction, resource_tracker, spawn, util
from multiprocessing.context import set_spawning_popen
from typing import TYPE_CHECKING, Any

from frostfork._popen import RUNS_ATEXIT, clear_atexit
from frostfork.zygote import Template, Zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from frostfork.zygote import Worker

_NOBODY_KNOWS = 255  # forkserver's exit code of a process whose end nobody was left to see
_REPORT_SECONDS = 5.0  # between the end of a worker and its zygote's word about it
_AFTER_JOINING = -100  # the place among what multiprocessing does at the end of a process
_inherited: list[int] = []  # in a worker: the descriptors that came with its process object


class _Passed:
    """A descriptor on its way: its place among those that the worker gets."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        return _inherited[self._index]


class ZygotePopen(popen_fork.Popen):
    """Pickles the process, lets a zygote fork the worker that unpickles it, and waits through the worker's pidfd."""

    method = "frostfork"
    DupFd = _Passed

    def __init__(self, process_obj: Any, find: Callable[[], Held]) -> None:
        """find: what it starts from, asked for when the process has turned out to be one that can be pickled."""
        self._find = find
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        data = self._pickled(process_obj)
        sentinel, alive = os.pipe()  # the other end of what the worker's parent_process() waits for
        try:
            fds = (data, sentinel, resource_tracker.getfd(), *self._fds)
            self._held = self._find()
            self.worker: Worker = self._held.fork(process_obj.name, fds)
        except BaseException:
            os.close(alive)
            raise
        finally:
            util.close_fds(data, sentinel)
        self.pid = self.worker.pid
        self.sentinel = self.worker.fileno()
        self.finalizer = util.Finalize(self, os.close, (alive,))

    def _pickled(self, process_obj: Any) -> int:
        """A file in memory that holds what forkserver would write into a pipe while the process reads."""
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process_obj._name), buffer)
            reduction.dump(process_obj, buffer)
        except Exception as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(
                    f"{process_obj.name} is pickled because it starts from the zygote: {process_obj.started.reason}."
                    ' get_context("fork") of frostfork.context pickles nothing.'
                )
            raise
        finally:
            set_spawning_popen(None)
        fd = os.memfd_create("frostfork-process", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(buffer.getbuffer())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if flag == os.WNOHANG:
                if not self.worker.has_ended():
                    return None
                try:
                    ended = self.worker.wait(_REPORT_SECONDS)
                except TimeoutError:
                    return None
            else:
                ended = self.worker.wait()
            self.returncode = _NOBODY_KNOWS if ended.code is None else ended.code
            self._held.ended()
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            self.worker.send_signal(sig)


def begin(fds: list[int]) -> int:
    """A worker's whole life; the pickled process is in the first of the descriptors."""
    data, sentinel, tracker, *_inherited[:] = fds
    vars(resource_tracker._resource_tracker).update(_fd=tracker, _pid=None)
    if RUNS_ATEXIT:
        clear_atexit()
    return vars(spawn)["_main"](data, sentinel)


class Preloads(Template):
    """Modules that zygotes import; one that cannot be imported is left out, as forkserver does."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def begin(self) -> None:
        for name in self._names:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


class Held:
    """A zygote and how many processes of ours it has; one that has been replaced closes when it has none any more."""

    def __init__(self, zygote: Zygote, given: bool) -> None:
        self.zygote = zygote
        self.given = given
        self.closed = False
        self._environment = dict.fromkeys(os.environ)
        self._lock = threading.Lock()
        self._running = 0
        self._retired = False

    def fork(self, name: str, fds: tuple[int, ...]) -> Worker:
        with self._lock:
            self._running += 1
        try:
            # Our environment as it is now: what has been taken from it since the zygote began is None.
            environment = {**self._environment, **os.environ}
            return self.zygote.fork(begin, fds=fds, name=name, env=environment)
        except BaseException:
            self.ended()
            raise

    def ended(self) -> None:
        with self._lock:
            self._running -= 1
            self.closed = self._retired and not self._running
        if self.closed:
            self.zygote.close()

    def retire(self) -> None:
        with self._lock:
            self._retired = not self.given
            self.closed = self._retired and not self._running
        if self.closed:
            self.zygote.close()


class Zygotes:
    """What the contexts of this process start processes from: one zygote at a time, the first time it is needed."""

    def __init__(self) -> None:
        self.start = "auto"  # as Zygote's
        self._preload: tuple[str, ...] = ("__main__",)
        self._forget()

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._held: Held | None = None
        self._retired: list[Held] = []
        self._pool: weakref.ref[Any] | None = None

    def _mine(self) -> None:
        """A fork of the owner has no zygote: that one's answers are for the owner."""
        if self._owner != os.getpid():
            self._forget()

    @property
    def current(self) -> Zygote | None:
        self._mine()
        return None if self._held is None else self._held.zygote

    def preload(self, names: Iterable[str]) -> None:
        names = tuple(names)
        if not all(type(name) is str for name in names):
            raise TypeError("module_names must be a list of strings")
        self._preload = names

    def use(self, zygote: Zygote | None) -> None:
        self._mine()
        with self._lock:
            self._replace(None if zygote is None else Held(zygote, given=True))

    def renew(self) -> Zygote:
        """Another zygote for what starts from now on."""
        self._mine()
        with self._lock:
            return self._renewed().zygote

    def for_pool(self, queue: object) -> Held:
        """A zygote as new as the pool that has this queue, so that all its workers begin with what it began with."""
        self._mine()
        with self._lock:
            if self._held is None or not (self._held.given or (self._pool and self._pool() is queue)):
                self._renewed()
            self._pool = weakref.ref(queue)
            assert self._held is not None
            return self._held

    def get(self) -> Held:
        self._mine()
        with self._lock:
            return self._held or self._renewed()

    def _renewed(self) -> Held:
        modules = [name for name in self._preload if name != "__main__"]
        zygote = Zygote(
            Preloads(modules), start=self.start, on_owner_death="drain", name="frostfork-context",
            import_main="__main__" in self._preload,
        ).start()  # fmt: skip
        self._replace(Held(zygote, given=False))
        assert self._held is not None
        return self._held

    def _replace(self, held: Held | None) -> None:
        if self._held is None and not self._retired:
            util.Finalize(None, self.close, exitpriority=_AFTER_JOINING)
        if held is not None:  # else it would end, at the end of the interpreter, before multiprocessing has waited
            held.zygote.stay_at_exit()
        if self._held is not None:
            self._held.retire()
            self._retired = [each for each in (*self._retired, self._held) if not each.closed]
        self._held = held

    def close(self) -> None:
        """End all zygotes of our own and what they still have running."""
        if self._owner != os.getpid():
            return
        with self._lock:
            every = [*self._retired, *([self._held] if self._held else [])]
            self._held, self._retired = None, []
        for held in every:
            if not held.given:
                held.zygote.close()


zygotes = Zygotes()

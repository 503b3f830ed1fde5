# SPDX-License-Identifier: Apache-2.0
"""The zygotes that a process has for the multiprocessing context: one, and those that still have processes."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import weakref
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from frostfork.zygote import Template, Zygote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from frostfork.zygote import Worker

_BEGIN = "frostfork._zygote_popen:begin"
_AFTER_JOINING = -100  # the place among what multiprocessing does at the end of a process


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
            return self.zygote.fork(_BEGIN, fds=fds, name=name, env=environment)
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
        if (
            held is not None
        ):  # else it would end, at the end of the interpreter, before multiprocessing has waited
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

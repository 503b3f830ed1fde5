# SPDX-License-Identifier: Apache-2.0
"""What each worker of a pool is given at its birth: a hook, the initializer and its arguments.

Among these may be what multiprocessing shares "through inheritance" only: queues, locks, connections, shared values. It
is pickled as for a process that is being spawned. Descriptors are duplicated and go to each worker with the request for
it; semaphores that have a name are opened by that. A semaphore of the start method fork has none: it is memory that is
inherited, at the same address or not at all.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable
from multiprocessing import context, reduction
from typing import Any, ClassVar

from frostfork._zygote.channel import MOST_FDS, close_all
from frostfork.errors import ConfigurationError
from frostfork.pool.payload import find_cloudpickle

_MOST = MOST_FDS - 4  # a worker has some of its own
_UNNAMED = (
    "what multiprocessing's start method fork makes, such as a lock or a queue, cannot be sent: only a zygote that is "
    "forked after it was made has it"
)
_ADVICE = (
    "make it with frostfork.get_context(), or with multiprocessing.get_context() of another method than fork"
)

_given: list[int] = []  # in a worker: the descriptors that came for it
_held: list[object] = []


class _Passed:
    """A descriptor on its way: its place among those that the worker gets."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        return _given[self._index]


class Outfit:
    """Pickled once, for all workers that a pool ever has: it holds what they need until close()."""

    DupFd = _Passed

    def __init__(self, *things: Any) -> None:
        """Raises what pickle raises, and OSError."""
        self._things: tuple[Any, ...] = (
            things  # a semaphore goes with its owner's object, and shared memory with its creator's
        )
        self._fds: list[int] = []
        self.is_inherited = False  # only a zygote that is forked from here has all of it
        try:
            self._data = b"" if things == (None, None, ()) else self._pickled(things)
            if len(self._fds) > _MOST:
                raise ConfigurationError(
                    f"initargs hold {len(self._fds)} descriptors; allowed are {_MOST} for a worker"
                )
        except BaseException:
            self.close()
            raise

    def duplicate_for_child(self, fd: int) -> int:
        """What multiprocessing asks of a process that it starts."""
        self._fds.append(os.dup(fd))
        return len(self._fds) - 1

    def _pickled(self, things: tuple[Any, ...]) -> bytes:
        try:
            return self._dump(_kind(reduction.ForkingPickler), things)
        except (pickle.PicklingError, AttributeError, TypeError):
            cloudpickle = find_cloudpickle()
            if cloudpickle is None:
                raise
            self._close_copies()
            return self._dump(_by_value(cloudpickle.CloudPickler), things)

    def _dump(self, kind: Callable[..., Any], things: tuple[Any, ...]) -> bytes:
        buffer = io.BytesIO()
        before = context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # it wants no more than ours has
        try:
            pickler = kind(buffer, 5)
            pickler.dump(things)
        finally:
            context.set_spawning_popen(before)
        self.is_inherited = pickler.is_inherited
        return buffer.getvalue()

    def parts(self) -> tuple[tuple[bool, bytes], tuple[int, ...]]:
        """What to tell a worker, and the descriptors to send along: the last is the resource tracker's, if it says so.

        Without it a worker's own tracker would remove, at the worker's end, what it found there.
        """
        tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
        fd = getattr(tracker, "_fd", None)
        if not self._data or fd is None:
            return (False, self._data), tuple(self._fds)
        return (True, self._data), (*self._fds, fd)

    def check(self, start: str) -> None:
        """ConfigurationError: a zygote that starts like this cannot have it."""
        if self.is_inherited and start == "exec":
            raise ConfigurationError(
                f"{_UNNAMED}. This pool's is a new interpreter (this process has threads, or start is 'exec'); "
                f"{_ADVICE}"
            )

    def close(self) -> None:
        self._things = ()
        self._close_copies()

    def _close_copies(self) -> None:
        close_all(self._fds)
        self._fds.clear()


def unpack(told: tuple[bool, bytes], fds: list[int]) -> Any:
    """In a worker: what Outfit was made of. Raises what unpickling raises."""
    has_tracker, data = told
    if not data:
        return None, None, ()
    if has_tracker:
        from multiprocessing import resource_tracker

        vars(resource_tracker._resource_tracker).update(_fd=fds.pop(), _pid=None)
    _given[:] = fds
    return pickle.loads(data)  # noqa: S301 - from our own kind


def _kind(base: type[Any]) -> type[Any]:
    """A pickler that knows what to do with semaphores that have no name."""
    # Whoever has one has imported this, which fails on systems without semaphores.
    semaphores: Any = getattr(sys.modules.get("multiprocessing.synchronize"), "SemLock", ())

    class Pickler(base):  # type: ignore[misc]  # it is what was asked for
        is_inherited = False

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, semaphores):
                semaphore: Any = vars(value)["_semlock"]
                if semaphore.name is None:
                    self.is_inherited = True
                    handle = semaphore.handle
                    return _inherit, (
                        type(value),
                        handle,
                        semaphore.kind,
                        semaphore.maxvalue,
                        _file_at(handle),
                    )
            return super().reducer_override(value) if hasattr(base, "reducer_override") else NotImplemented

    return Pickler


def _by_value(base: type[Any]) -> type[Any]:
    """The same, from cloudpickle's."""

    class Pickler(_kind(base)):  # type: ignore[misc]  # a class made at run time
        dispatch_table: ClassVar[Any] = ChainMap(
            vars(reduction.ForkingPickler)["_extra_reducers"], *base.dispatch_table.maps
        )

    return Pickler


def _inherit(kind: type[Any], handle: int, *state: Any) -> Any:
    *numbers, file = state
    if file is None or _file_at(handle) != file:
        raise RuntimeError(f"{_UNNAMED}. This one began before, or as a new interpreter; {_ADVICE}")
    semaphore: Any = object.__new__(kind)
    semaphore.__setstate__((handle, *numbers, None))
    _held.append(semaphore)  # its end would unmap it under the object that was inherited
    return semaphore


def _file_at(address: int) -> str | None:
    """Device and number of the file that is mapped there."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            area, _, _, device, number, *_ = line.split(maxsplit=5)
            first, last = (int(each, 16) for each in area.split("-"))
            if first <= address < last:
                return f"{device} {number}" if number != "0" else None
    return None

# SPDX-License-Identifier: Apache-2.0
"""What is there as long as a zygote and its workers are, though a warmup lets it go on dying.

A warmup cannot know that of a lock, a stream or a set of weak references, and so each worker writes the count of each,
on a page of its own, in the at-fork hooks of Python's libraries. A zygote knows what of this is never replaced, or
replaced once. Nothing is imported for it, and only these very objects are made immortal.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from frostfork import _core


def make_immortal(own: Iterable[object]) -> None:
    """own: what the zygote itself has."""
    found = list(own)
    for about in (_streams, _threads, _logging, _multiprocessing):
        with contextlib.suppress(AttributeError):  # a library that is not as we know it: less is shared
            found.extend(about())
    _core.immortalize_these(found)


def _streams() -> Iterator[object]:
    streams: tuple[Any, ...] = (sys.stdin, sys.stdout, sys.stderr)
    for stream in streams:
        yield stream
        if stream is not None:
            yield from (vars(stream), stream.buffer, stream.buffer.raw)


def _threads() -> Iterator[object]:
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return
    yield from _locks(vars(threading))
    main = threading.main_thread()
    yield main
    yield from weakref.getweakrefs(main)
    yield from _locks(vars(main))
    yield getattr(main, "_handle", None)
    started = main._started
    yield from (started, started._cond, started._cond._lock, started._cond._waiters)
    yield from _weak_set(threading._dangling)
    for name in ("concurrent.futures.thread", "asyncio.events", "random", "multiprocessing.util"):
        if (module := sys.modules.get(name)) is not None:
            yield from _locks(vars(module))


def _logging() -> Iterator[object]:
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return
    yield from _locks(vars(logging))
    yield from _weak_set(logging._at_fork_reinit_lock_weakset)
    for reference in logging._handlerList:
        handler = reference()
        if getattr(handler, "stream", None) in (
            sys.stdout,
            sys.stderr,
        ):  # another may be dropped and is to close then
            yield from (handler, handler.lock, *weakref.getweakrefs(handler))


def _multiprocessing() -> Iterator[object]:
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None:
        return
    yield from (process._current_process, process._current_process._config)


def _weak_set(found: Any) -> Iterator[object]:
    yield from (found, found.data, found._pending_removals, found._iterating, *weakref.getweakrefs(found))


def _locks(names: dict[str, Any]) -> Iterator[object]:
    import _thread

    kinds = (_thread.LockType, _thread.RLock)
    for value in list(names.values()):
        if isinstance(value, kinds):
            yield value

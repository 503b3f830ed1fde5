# SPDX-License-Identifier: Apache-2.0
"""What Python's own libraries keep for a process, and a forked one must not go on with.

Each function is about one library and does nothing where that is not loaded. None imports or frees anything: what is
dropped is held, since to free it would write into pages that are shared.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
from typing import Any

from frostfork import _core, _end

_held: list[object] = []
_STREAMS = (("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace"))


def disown(name: str) -> None:
    """Go on as a process of its own, of this name."""
    for about in (_exit_functions, _finalizers, _threads, _event_loop, _logging, _numpy):
        try:
            about()
        except Exception as error:  # a library that is not as we know it: the rest is to be done all the same
            _core.report_unraisable(error, about)
    _multiprocessing(name)


def descriptors() -> set[int]:
    """The open files that these libraries need in every process: where logs go, and multiprocessing's tracker."""
    if _settled_handlers >= 0 and _settled_handlers == _handlers_and_tracker():
        return set()
    found = set()
    for handler in _log_handlers():
        for attribute in ("stream", "socket"):
            try:
                found.add(getattr(handler, attribute).fileno())
            except Exception:  # noqa: S112 - there is none, or it is closed, or in memory
                continue
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    fd = getattr(tracker, "_fd", None)
    if fd is not None:
        found.add(fd)
    return found


def _handlers_and_tracker() -> int:
    """How many log handlers there are; -1 with a resource tracker, or where nobody knows."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and tracker._resource_tracker._fd is not None:
        return -1
    return len(getattr(sys.modules.get("logging"), "_handlerList", ()))


def share_tracker(share: bool) -> None:
    """Whether children of this thread go on with multiprocessing's tracker of shared memory, as it has it from 3.14 on.

    A child that had one of its own would lose what it shares with others, as soon as that one ends.
    """
    intent = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_fork_intent", None)
    if intent is not None:
        intent.preserve_fd = share


def renew_streams() -> None:
    """New sys.stdin, stdout and stderr: the old ones may hold what their process has yet to write, or be a test's.

    Whole lines are written at once: what a worker printed is there even if it is killed.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd, (name, mode, errors) in enumerate(_STREAMS):
        if fd == 0 or not _is_open(fd):
            os.dup2(null, fd)
        old = getattr(sys, f"__{name}__", None) or getattr(sys, name, None)
        _held.extend((getattr(sys, name, None), old))
        stream: Any = open(  # noqa: SIM115 - it stays open
            fd,
            mode,
            1 if fd else -1,
            encoding=getattr(old, "encoding", None) or "utf-8",
            errors=getattr(old, "errors", None) or errors,
            closefd=False,
        )
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if null > 2:
        os.close(null)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


_IMMORTAL = 1 << 28  # no count of references is so high, but that of an immortal object
_settled_exits = -1
_settled_finalizers = 0
_settled_handlers = -1  # how many there were, if none of them had a file of its own


def settle() -> None:
    """In a zygote, after foreign code: what each worker would do with what that registered, done once.

    A zygote runs none of what its template registered with atexit, so it has the worker's. It runs finalizers: see
    _zygote/ending.py.
    """
    global _settled_exits, _settled_handlers
    share_tracker(True)
    _settle_finalizers()
    _settled_handlers = -1
    if descriptors() <= {0, 1, 2}:
        _settled_handlers = _handlers_and_tracker()
    if atexit._ncallbacks() == _settled_exits:
        return
    _settled_exits = -1
    _exit_functions()
    if (finalize := getattr(sys.modules.get("weakref"), "finalize", None)) is not None:
        finalize._registered_with_atexit = False
    _settled_exits = atexit._ncallbacks()


def _settle_finalizers() -> None:
    """Those for immortal objects are called at the end only, and so never in a zygote."""
    global _settled_finalizers
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    if finalize is None or len(finalize._registry) == _settled_finalizers:
        return
    here = finalize._registry
    stay = {each: info for each, info in here.items() if sys.getrefcount(info.weakref()) < _IMMORTAL}
    if len(stay) < len(here):
        _held.append(here)
        finalize._registry = stay
    _settled_finalizers = len(stay)


def rehearse() -> None:
    """What at-fork hooks and disown() do, as far as it changes nothing in a process that is to go on as it is."""
    threading: Any = sys.modules.get("threading")
    if threading is None or len(threading._dangling) > 1:
        return
    threading._after_fork()
    if (logging := sys.modules.get("logging")) is not None:
        logging._after_at_fork_child_reinit_locks()
    _exit_functions()
    _threads()
    _log_handlers()
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        list(util._afterfork_registry.items())
    if (random := sys.modules.get("numpy.random")) is not None:
        state = random.get_state(legacy=False)
        _numpy()
        random.set_state(state)


def _exit_functions() -> None:
    """The parent's are its own. Libraries register theirs once, when they are imported: a worker needs them as well."""
    if atexit._ncallbacks() == _settled_exits:
        return
    atexit._clear()
    if _end.is_prepared():
        atexit.register(_end.go_last)
    for module, function in (("logging", "shutdown"), ("multiprocessing.util", "_exit_function")):
        if (end := getattr(sys.modules.get(module), function, None)) is not None:
            atexit.register(end)


def _finalizers() -> None:
    """weakref.finalize: those of TemporaryDirectory, which would take the parent's folder away, and of others."""
    if (finalize := getattr(sys.modules.get("weakref"), "finalize", None)) is not None:
        if finalize._registry:
            _held.append(finalize._registry)
            finalize._registry = {}
        if finalize._registered_with_atexit:
            finalize._registered_with_atexit = False


def _threads() -> None:
    """concurrent.futures would wake up and join threads that are not there."""
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return
    ends = []
    for module, waited in (
        ("concurrent.futures.thread", "_threads_queues"),
        ("concurrent.futures.process", "_threads_wakeups"),
    ):
        if (futures := sys.modules.get(module)) is not None:
            if len(getattr(futures, waited)):
                getattr(futures, waited).clear()
            ends.append(futures._python_exit)
    if threading._threading_atexits:
        _held.append(threading._threading_atexits)
        threading._threading_atexits = []
        for end in ends:
            threading._register_atexit(end)


def _event_loop() -> None:
    """From 3.12 on asyncio does so itself."""
    events: Any = sys.modules.get("asyncio.events")
    if events is None or sys.version_info >= (3, 12):
        return
    if events._event_loop_policy is not None:
        _held.append(getattr(events._event_loop_policy, "_local", None))
        events._event_loop_policy._local = events.BaseDefaultEventLoopPolicy._Local()
    events._set_running_loop(None)


def _log_handlers() -> list[Any]:
    references = getattr(sys.modules.get("logging"), "_handlerList", ())
    return [handler for handler in (reference() for reference in references) if handler is not None]


def _logging() -> None:
    """Records that wait in a handler are the parent's to write. A stream that the parent writes to would be torn."""
    handlers: Any = sys.modules.get("logging.handlers")
    if handlers is None:
        return
    for handler in _log_handlers():
        if isinstance(handler, handlers.BufferingHandler) and handler.buffer:
            _held.append(handler.buffer)
            handler.buffer = []
        elif isinstance(handler, handlers.SocketHandler) and handler.sock is not None:
            _held.append(handler.sock)
            handler.sock = None  # it connects when it has something to send


def _numpy() -> None:
    """The generator of numpy.random.seed() and its like; Python's own is seeded by Python, OpenSSL's by OpenSSL."""
    if (random := sys.modules.get("numpy.random")) is None:
        return
    # The generator's state itself, 624 words: seed() would take three times as many pages and as much time.
    key = memoryview(os.urandom(624 * 4)).cast("I")
    state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}, "has_gauss": 0, "gauss": 0.0}
    try:
        random.set_state(state)
    except ValueError:  # set_bit_generator() gave it another kind
        random.set_bit_generator(type(random.get_bit_generator())())


def _multiprocessing(name: str) -> None:
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None:
        return
    me = process._current_process
    me._name = name
    me._config.pop("tempdir", None)  # the parent takes it away at its end
    _held.append(process._children)
    process._children = set()
    process._process_counter = itertools.count(1)
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    if (tracking := sys.modules.get("multiprocessing.resource_tracker")) is not None:
        tracking._resource_tracker._pid = None  # whoever started it waits for it
        share_tracker(False)  # what this process forks by itself is not ours
    if (forkserver := sys.modules.get("multiprocessing.forkserver")) is not None:
        server = forkserver._forkserver
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None

# SPDX-License-Identifier: Apache-2.0
"""What a process does first when it was forked to be a worker, a zygote or a root: it becomes its own.

A fork copies everything: the owner's connections, its signal handlers, what it wanted done at its end, the state of its
random generators, its name. Some of it is put right by Python's at-fork hooks, the rest here: by allow list where there
can be one, so that what nobody named is not the worker's.

All that a worker needs for this is imported by the zygote, and all data that is dropped stays where it lies: to free
what was inherited would copy its pages. docs/pools.md says what a worker finds.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal's functions would make enum work, in each worker
import gc
import os
import sys
from collections.abc import Collection
from typing import Any, NamedTuple, NoReturn

from frostfork import _core, _end, _inherited

# Handlers that C code set there tell of crashes, as faulthandler's do, and hold nothing.
_FAULTS = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGABRT)
_PYTHON_IGNORES = (_signal.SIGPIPE, _signal.SIGXFSZ)
_SIG_DFL, _SIG_IGN = 0, 1
_REHEARSALS = 8
_UNWRITTEN = 120  # what Python exits with when standard output cannot be written


class Identity(NamedTuple):
    """Which worker this process is, or which zygote."""

    name: str
    generation: int

    def __str__(self) -> str:
        return f"{self.name}@{self.generation}" if self.generation else self.name


class _State:
    """Of this process; a child inherits it and goes on with it."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.ignored: frozenset[int] | None = None  # the signals that the owner ignores
        self.set_title: Any = None  # setproctitle's function


_state = _State()

# Descriptors that workers keep beside those that become_worker is told of; who has a use for them in a worker adds them
# in the zygote, before the fork. And those that no object will close: a worker closes them for good.
kept: set[int] = set()
disposable: set[int] = set()


def identity() -> Identity | None:
    """Who this process is; None in one that is neither a worker nor a zygote."""
    return _state.identity


def become_worker(name: str, generation: int, keep: Collection[int], drop: Collection[int] = ()) -> None:
    """First thing in a worker, with all signals still blocked. keep: descriptors, beside 0 to 2.

    drop: those that are closed for good, since no object that is left will close them.

    Signals do what they do by default, SIGINT raises KeyboardInterrupt, what the owner ignored is ignored, and none is
    blocked. sys.stdin, stdout and stderr are the zygote's, which has flushed them before the fork.
    """
    _reset_signals()
    if _signal.SIGINT not in (_state.ignored or ()):
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _state.ignored = None  # a zygote of its own would have other ones
    _become(Identity(name, generation), keep, drop)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def become_zygote(name: str, generation: int, keep: Collection[int]) -> None:
    """First thing in a root or zygote, forked or executed. keep: descriptors, beside 0 to 2; generation 0: a root.

    It has /dev/null for standard input, ignores SIGINT and SIGHUP, which a terminal sends to the owner's whole group,
    and blocks no signal.
    """
    disposable.clear()  # what a worker inherited of its zygote's, and left as it was
    if _state.ignored is None:
        _state.ignored = _ignored()
    _reset_signals()
    for number in (_signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _SIG_IGN)
    import multiprocessing  # noqa: F401 - logging asks it for the name of the process

    try:
        from setproctitle import setproctitle
    except ImportError:
        pass
    else:
        _state.set_title = setproctitle
    _inherited.renew_streams()
    # More than once: after some runs code is not changed any more by running, and its pages stay shared.
    for _ in range(_REHEARSALS):
        _become(Identity(name, generation), keep)
    _inherited.share_tracker(True)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def rehearse() -> None:
    """In a zygote that is ready, with all descriptors kept: what can be done of a worker's beginning without a trace.

    What was done once and again is not written any more by doing it: the code, once its instructions have been chosen,
    and the cache of attributes of classes, of which each entry lies on a page of its own.
    """
    who = _state.identity
    if who is None:
        return
    everything = {int(name) for name in os.listdir("/proc/self/fd")}
    for _ in range(_REHEARSALS):
        _inherited.rehearse()
        _core.release_descriptors((*everything, *kept, *_inherited.descriptors()), ())
        _core.signal_actions()
        _name(who)


def _become(who: Identity, keep: Collection[int], drop: Collection[int] = ()) -> None:
    _signal.set_wakeup_fd(-1)
    _core.release_descriptors((*keep, *kept, *_inherited.descriptors()), (*disposable, *drop))
    _inherited.disown(str(who))
    _name(who)
    gc.enable()
    _state.identity = who


def _name(who: Identity) -> None:
    """For ps and top: of a name that is too long for the kernel its end is kept."""
    text = str(who).encode("utf-8", "replace").replace(b"\0", b"?")
    if _state.set_title is not None:
        _state.set_title("frostfork: " + text.decode())
    _core.set_process_name(text[-15:])


def _ignored() -> frozenset[int]:
    """What is ignored as it would be across an exec, by nohup or a shell. Not SIGCHLD: it decides how to wait."""
    mine = {*_PYTHON_IGNORES, _signal.SIGCHLD}
    return frozenset(
        number
        for number, action in enumerate(_core.signal_actions(), 1)
        if action == _SIG_IGN and number not in mine
    )


def _reset_signals() -> None:
    ignored = _state.ignored or frozenset()
    for number, action in enumerate(_core.signal_actions(), 1):
        if action == _SIG_DFL:
            if number in ignored:
                _signal.signal(number, _SIG_IGN)
        elif action == _SIG_IGN:
            if number not in ignored and number not in _PYTHON_IGNORES:
                _signal.signal(number, _SIG_DFL)
        elif number not in _FAULTS or callable(_signal.getsignal(number)):
            _signal.signal(number, _SIG_IGN if number in ignored else _SIG_DFL)
    for number in _PYTHON_IGNORES:
        _signal.signal(number, _SIG_IGN)


def leave(code: int) -> NoReturn:
    """End a worker as Python would end it, but without taking its modules apart, which would copy all their pages.

    Its threads that are no daemons are waited for, atexit functions that were registered in it run, and its open files
    are written out. Objects get no last `__del__`.
    """
    try:
        import atexit
        import threading

        for end in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
            try:
                end()
            except BaseException as error:
                _core.report_unraisable(error, end)
        _end.write_out_own()
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except Exception:
                code = code or _UNWRITTEN
    finally:
        os._exit(code & 0xFF)

# SPDX-License-Identifier: Apache-2.0
"""Zygote: a process that holds what workers share, forks them, and can be replaced by a new one.

    owner ──▶ root ──▶ zygote, generation 1 ──▶ workers of generation 1
                 └───▶ zygote, generation 2 ──▶ workers of generation 2

A fork copies one thread of many, and all locks as they are: a process with threads cannot fork safely, and one that has
imported for others cannot un-import. A zygote has one thread, runs no user's task, and begins from a root that has
imported nothing. docs/pools.md has the processes step by step.
"""

from __future__ import annotations

import os
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from frostfork import _settings
from frostfork._zygote.channel import MOST_FDS, Parcel
from frostfork._zygote.coming import Coming
from frostfork._zygote.fleet import Fleet
from frostfork._zygote.handle import Handle
from frostfork._zygote.setup import Options
from frostfork._zygote.template import Template
from frostfork._zygote.worker import Ended, Worker
from frostfork.errors import ConfigurationError, ZygoteError

__all__ = ["Coming", "Ended", "Template", "Worker", "Zygote"]

_MOST_NAME = 1000  # characters


class Zygote:
    """Forks workers from a process that was prepared for it. Safe to use from any thread; a context manager.

    template: what the zygote does beside forking: see Template.
    start: how the root is started. "fork" is quick, shares what this process has imported, and is allowed only while
        this process has no other thread; "exec" starts a new interpreter, at any time; "auto" is "fork" where that is
        safe, else "exec". With "exec" the template is pickled. A root that was killed is started anew like this, but
        not by fork from a process that has threads by then.
    on_owner_death: "kill" ends workers at once when this process ends, however it does; "drain" lets them finish.
    keep_fds: descriptors that the zygote and its workers inherit from this process, under the same numbers.
    ready_timeout: seconds until the template has begun.
    import_main: with "exec", let the zygote import this program's main module as multiprocessing's spawn does, as
        __mp_main__, so that what is defined there can be a target.

    Dropped without close(), it ends its processes and warns (ResourceWarning). At the end of the interpreter it closes
    itself. In a fork of this process every method raises ZygoteError. Not for signal handlers: those may interrupt it.
    """

    def __init__(
        self,
        template: Template | None = None,
        *,
        start: str = "auto",
        on_owner_death: str = "kill",
        keep_fds: Iterable[int] = (),
        name: str = "frostfork",
        ready_timeout: float = 60.0,
        import_main: bool = True,
    ) -> None:
        _one_of("start", start, ("auto", "fork", "exec"))
        _one_of("on_owner_death", on_owner_death, ("kill", "drain"))
        if template is not None and not isinstance(template, Template):
            raise TypeError(f"template must be a frostfork.Template, not {template!r}")
        _settings.seconds("ready_timeout", ready_timeout)
        _settings.instance("name", name, str)
        keep_fds = tuple(keep_fds)
        for fd in keep_fds:
            _settings.whole("a descriptor of keep_fds", fd, 0)
        self._options = Options(
            template,
            start,
            on_owner_death == "kill",
            (*keep_fds, *(() if template is None else template.keep_fds)),
            name[:_MOST_NAME],
            ready_timeout,
            import_main,
        )
        self._fleet: Fleet | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._owner = os.getpid()
        self._closed = False

    # --- life

    def start(self) -> Zygote:
        """Start the root and the first zygote, and wait until it is ready. Once started, it does nothing."""
        self._check_owner()
        if self._closed:
            raise ZygoteError("this Zygote is closed")
        if self._fleet is None:
            fleet = Fleet(self._options)
            self._finalizer = weakref.finalize(self, _end, fleet, os.getpid())
            self._fleet = fleet
            try:
                fleet.in_charge()
            except BaseException:
                self._fleet = None
                self._finalizer.detach()
                fleet.close(0.0, False)
                raise
        return self

    def close(self, timeout: float = 10.0, *, drain: bool = False) -> None:
        """End all workers and all processes behind them; nothing is left afterwards. Once is enough.

        drain: first let workers run to their end, for `timeout` seconds at the longest.
        """
        self._check_owner()
        self._closed = True
        fleet = self._fleet
        if fleet is not None:
            fleet.close(timeout, drain)
        if self._finalizer is not None:
            self._finalizer.detach()

    def stay_at_exit(self) -> None:
        """Do not close at the end of the interpreter: whoever waits for workers there closes it when that is done.

        Not closed at all, it ends when the process has ended.
        """
        self._check_owner()
        if self._finalizer is not None:
            self._finalizer.atexit = False

    def __enter__(self) -> Zygote:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owner == os.getpid():
            self.close()

    def __del__(self) -> None:
        finalizer = getattr(self, "_finalizer", None)
        if finalizer is not None and finalizer.alive and self._owner == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    # --- what it does

    def fork(
        self,
        target: Callable[..., object] | str,
        args: Sequence[object] = (),
        *,
        fds: Sequence[int] | None = None,
        name: str = "",
        env: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
    ) -> Worker:
        """Run target(*args) in a new worker, or target(*args, fds=[...]) if descriptors are given.

        target: what pickle can name, or "package.module:function". Its result is the exit code: None is 0, an int is
            itself, an exception is 1 with its traceback on stderr, SystemExit as Python has it.
        fds: are duplicated into the worker, where they have other numbers.
        env: variables set in the worker before its target is imported; None takes one away.
        timeout: seconds until the zygote has forked: it may be busy with its template's work.
        OSError: the fork was refused (EAGAIN, ENOMEM), or there are too many descriptors (EMFILE).
        """
        _settings.instance("fds", fds, Sequence, or_none=True)
        each = None if fds is None or not len(fds) else [fds]
        return self.fork_many(1, target, tuple(args), fds=each, names=[name], env=env, timeout=timeout)[0]

    def ask(
        self,
        target: Callable[..., object] | str,
        args: Sequence[object] = (),
        *,
        fds: Sequence[int] | None = None,
        name: str = "",
        env: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
    ) -> Coming:
        """As fork(), but do not wait for the fork: Coming.worker() does.

        The worker begins at once, before this process knows of it. So nothing is tried a second time if the zygote ends
        meanwhile: the worker may be running, and nobody would know.
        timeout: seconds until the question is on its way.
        """
        fleet = self._running()
        _settings.seconds("timeout", timeout, or_none=True)
        _settings.instance("fds", fds, Sequence, or_none=True)
        _settings.instance("name", name, str)
        if fds is not None and len(fds) > MOST_FDS:
            raise ValueError(f"a worker can be given {MOST_FDS} descriptors at most")
        if not fds:
            fds = None
        (body,) = _pickled(target, [tuple(args)], _environment(env))
        parcel = Parcel(body)
        try:
            return fleet.ask(name[:_MOST_NAME], parcel, fds, timeout)
        finally:
            parcel.close()

    def fork_many(
        self,
        count: int,
        target: Callable[..., object] | str,
        args: tuple[object, ...] | list[tuple[object, ...]] = (),
        *,
        fds: Sequence[Sequence[int]] | None = None,
        names: Sequence[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
    ) -> list[Worker]:
        """Fork so many workers back to back: all, or none and an exception.

        args: a tuple for all of them, or a list with a tuple for each. fds, names: one for each.
        """
        fleet = self._running()
        _settings.whole("count", count, 0)
        _settings.seconds("timeout", timeout, or_none=True)
        for what, given in (
            ("fds", fds),
            ("names", names),
            ("args", args if isinstance(args, list) else None),
        ):
            if given is not None and len(given) != count:
                raise ValueError(f"{what} must have {count} items, one for each worker, not {len(given)}")
        if fds is not None and any(len(own) > MOST_FDS for own in fds):
            raise ValueError(f"a worker can be given {MOST_FDS} descriptors at most")
        if count == 0:
            return []
        names = list(names or [""] * count)
        for name in names:
            _settings.instance("name", name, str)
        names = [name[:_MOST_NAME] for name in names]
        env = _environment(env)
        bodies = _pickled(target, args if isinstance(args, list) else [args], env)
        parcels: list[Parcel] = []
        try:
            parcels.extend(map(Parcel, bodies))
            return fleet.fork(names, parcels, fds, timeout)
        finally:
            for parcel in parcels:
                parcel.close()

    def call(self, method: str, *args: object, timeout: float | None = None) -> object:
        """Run a public method of the template in the zygote, and return what it returned.

        An exception there becomes a ZygoteError with the zygote's traceback as its cause.
        timeout: seconds to wait for the result, which a zygote that is busy or hangs does not give; then ZygoteError.
            The method may be run all the same, later.
        """
        fleet = self._running()
        _settings.instance("method", method, str)
        if method.startswith("_"):
            raise ValueError(f"{method!r} is not public")
        return fleet.call(method, args, timeout)

    def replace(self, timeout: float | None = None) -> int:
        """Let a new zygote take over once its template has begun, beside the old one; returns its generation.

        The old one goes when its workers have. ZygoteError, OSError: there is no new one, and the old one stays in
        charge: it failed, or its fork was refused.
        timeout: seconds for the template to begin; ready_timeout by default.
        """
        _settings.seconds("timeout", timeout, or_none=True)
        return self._running().replace(timeout)

    # --- what it is

    @property
    def pid(self) -> int:
        """Of the zygote in charge."""
        return self._in_charge().pid

    @property
    def generation(self) -> int:
        return self._in_charge().generation

    @property
    def alive(self) -> bool:
        """Whether the zygote in charge is. If not, the next fork() starts another."""
        self._check_owner()
        fleet = self._fleet
        if self._closed or fleet is None:
            return False
        fleet.tidy()
        return fleet.current is not None and fleet.current.is_alive()

    def _in_charge(self) -> Handle:
        handle = self._running().current
        if handle is None:
            raise ZygoteError("this Zygote is closed")
        return handle

    def _running(self) -> Fleet:
        self._check_owner()
        if self._closed:
            raise ZygoteError("this Zygote is closed")
        if self._fleet is None:
            raise ZygoteError("this Zygote has not been started: call start(), or use it in a with statement")
        return self._fleet

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            raise ZygoteError(
                f"this Zygote belongs to process {self._owner}: a fork of it cannot use it, but can make its own"
            )

    def __repr__(self) -> str:
        return f"<Zygote {self._options.name!r} of process {self._owner}>"


def _end(fleet: Fleet, owner: int) -> None:
    """The Zygote was dropped, or the interpreter ends."""
    if os.getpid() == owner:
        fleet.close(0.0, False)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _environment(env: Mapping[str, str | None] | None) -> dict[str, str | None]:
    _settings.instance("env", env, Mapping, or_none=True)
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, (str, type(None))):
            raise TypeError(f"env must have strings or None under strings, not {value!r} under {name!r}")
        if not name or "=" in name or "\0" in name or "\0" in (value or ""):
            raise ValueError(f"env has {name!r}: {value!r}, which cannot be an environment variable")
    return dict(env or {})


def _pickled(target: object, each: list[tuple[object, ...]], env: dict[str, str | None]) -> list[bytes]:
    environment = pickle.dumps(env)
    try:
        return [environment + pickle.dumps((target, tuple(args))) for args in each]
    except Exception as error:
        raise ZygoteError(f"{target!r} and its arguments cannot be pickled: {error}") from error

# SPDX-License-Identifier: Apache-2.0
"""Puts what frostfork has in the place of what CPython's tests test, as $FROSTFORK_IN_PLACE names it.

Each interpreter that a test starts imports this first, by way of a .pth file (compare.py): many tests run scripts.
"""

from __future__ import annotations

import os
from typing import Any


def put_fork_context() -> None:
    """Our context, as it starts processes by fork, is what "fork" means."""
    from multiprocessing import context

    from frostfork.context import get_context

    stock = context._concrete_contexts["fork"]
    context._concrete_contexts["fork"] = get_context("fork")
    if context._default_context._default_context is stock:  # up to 3.13
        context._default_context._default_context = get_context("fork")


def put_zygote_context() -> None:
    """Our context, as it starts processes from a zygote, is what "forkserver" means."""
    from multiprocessing import context, forkserver

    stock = context._concrete_contexts["forkserver"]
    context._concrete_contexts["forkserver"] = ForkServerContext()
    if context._default_context._default_context is stock:  # from 3.14 on
        context._default_context._default_context = context._concrete_contexts["forkserver"]
    forkserver._forkserver = ForkServer()


def put_pool() -> None:
    """ForkPool is what a ProcessPoolExecutor is."""
    import concurrent.futures.process

    concurrent.futures.process.ProcessPoolExecutor = ProcessPoolExecutor
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor


def __getattr__(name: str) -> Any:
    """The classes, made when they are needed: a test of the one must not load the other."""
    if name in ("ForkServerProcess", "ForkServerContext", "ForkServer"):
        globals().update(_zygote_classes())
    elif name == "ProcessPoolExecutor":
        globals().update(_pool_classes())
    if name in globals():
        return globals()[name]
    raise AttributeError(name)


def _zygote_classes() -> dict[str, type]:
    from frostfork import context

    class ForkServerProcess(context.ZygoteProcess):
        _start_method = "forkserver"
        __qualname__ = "ForkServerProcess"

    class ForkServerContext(type(context.get_context("zygote"))):
        _name = "forkserver"
        Process = ForkServerProcess

    class ForkServer:
        """What tests ask of multiprocessing's: to run, and for its pid, which they send signals."""

        def ensure_running(self) -> None:
            zygote = context.get_context().zygote
            if zygote is None or not zygote.alive:
                context.get_context().start_zygote()

        @property
        def _forkserver_pid(self) -> int:
            return context.get_context().zygote.pid

        def _stop(self) -> None:
            from frostfork._zygote_popen import zygotes

            zygotes.close()

    return {"ForkServerProcess": ForkServerProcess, "ForkServerContext": ForkServerContext, "ForkServer": ForkServer}


def _pool_classes() -> dict[str, type]:
    import frostfork

    class ProcessPoolExecutor(frostfork.ForkPool):
        """With the parameters of the one that it stands for; the context makes no difference to ours."""

        def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *,
                     max_tasks_per_child=None) -> None:  # fmt: skip
            recycle = frostfork.RecyclePolicy(max_tasks=max_tasks_per_child, jitter=0.0)
            super().__init__(max_workers, initializer=initializer, initargs=initargs, recycle=recycle)

    return {"ProcessPoolExecutor": ProcessPoolExecutor}


_PLACES = {"fork": put_fork_context, "zygote": put_zygote_context, "pool": put_pool}
if os.environ.get("FROSTFORK_IN_PLACE") in _PLACES:
    _PLACES[os.environ["FROSTFORK_IN_PLACE"]]()

# SPDX-License-Identifier: Apache-2.0
"""What the interpreter keeps: paths, filters, hooks, what was registered, and how garbage is collected."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from frostfork.fingerprint.probe import Effect, Identities, Probe, becomes, labelled, named


def _paths() -> tuple[list[object], Identities, Identities]:
    return list(sys.path), Identities(sys.meta_path), Identities(sys.path_hooks)


def _explain_paths(before: Any, after: Any) -> Iterator[Effect]:
    for entry in (entry for entry in after[0] if entry not in before[0]):
        yield "path", f"put {entry} on sys.path"
    for entry in (entry for entry in before[0] if entry not in after[0]):
        yield "path", f"took {entry} from sys.path"
    if before[0] != after[0] and sorted(map(str, before[0])) == sorted(map(str, after[0])):
        yield "path", "put sys.path in another order"
    for label, old, new in zip(("sys.meta_path", "sys.path_hooks"), before[1:], after[1:], strict=True):
        for thing in new.without(old):
            yield "path", f"put {named(thing)} on {label}"
        for thing in old.without(new):
            yield "path", f"took {named(thing)} from {label}"


def _filters() -> tuple[tuple[Any, ...], Identities]:
    return tuple(warnings.filters), Identities((warnings.showwarning, warnings.formatwarning))


def _explain_filters(before: Any, after: Any) -> Iterator[Effect]:
    for verb, some, others in (("added", after[0], before[0]), ("removed", before[0], after[0])):
        for each in (each for each in some if each not in others):
            message = getattr(each[1], "pattern", each[1])
            yield "warnings", f"{verb} the filter {each[0]}:{message or ''}:{named(each[2])}"
    if before[0] != after[0] and set(before[0]) == set(after[0]):
        yield "warnings", "put the filters in another order"
    if before[1] != after[1]:
        yield "warnings", f"shows warnings with {named(warnings.showwarning)}"


def _logging() -> tuple[int, int, bool, Identities]:
    root = logging.root
    logger_class = logging.getLoggerClass()
    handlers = (each for each in root.handlers if type(each) is not logging.NullHandler)
    return root.level, root.manager.disable, root.disabled, Identities((logger_class, *handlers))


def _explain_logging(before: Any, after: Any) -> Iterator[Effect]:
    for label, old, new in zip(("level", "threshold", "state"), before, after, strict=False):
        if old != new:
            yield "logging", f"changed the {label} of the root logger from {old} to {new}"
    for thing in after[3].without(before[3]):
        yield "logging", f"gave the root logger, or made the class of loggers, {named(thing)}"
    for thing in before[3].without(after[3]):
        yield "logging", f"took {named(thing)} away from the root logger"


_HOOKS = ("sys.excepthook", "sys.unraisablehook", "sys.displayhook", "sys.breakpointhook", "threading.excepthook",
          "the first asyncgen hook", "the last asyncgen hook")  # fmt: skip


def _hooks() -> Identities:
    first, last = sys.get_asyncgen_hooks()
    own = (sys.excepthook, sys.unraisablehook, sys.displayhook, sys.breakpointhook)
    return Identities((*own, threading.excepthook, first, last))


def _start_method() -> str | None:
    """None for what is the default anyway: to ask for it fixes it, and changes nothing.

    3.14.10 finds out what the default is when the attribute is looked at, by imports of its own: not to be done in the
    midst of one. Its dict says what was found out.
    """
    context = getattr(sys.modules.get("multiprocessing.context"), "_default_context", None)
    state = getattr(context, "__dict__", {})
    chosen, default = state.get("_actual_context"), state.get("_default_context")
    return None if chosen is default else getattr(chosen, "_name", None)


def _loop_policy() -> Identities:
    policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    # asyncio makes its own when a loop is asked for.
    own = type(policy).__module__.startswith("asyncio.")
    return Identities((None if own else policy,))


_at_fork: list[str] = []
_audit_hooks: list[str] = []


def watch_registrations() -> None:
    """Once in a canary: nothing tells later what was registered, so what registers is wrapped."""
    import posix

    register, add = os.register_at_fork, sys.addaudithook

    def register_at_fork(**functions: Any) -> None:
        register(**functions)
        _at_fork.append(", ".join(f"{when} {named(function)}" for when, function in functions.items()))

    def addaudithook(hook: Any) -> None:
        add(hook)
        _audit_hooks.append(named(hook))

    os.register_at_fork = posix.register_at_fork = register_at_fork
    sys.addaudithook = addaudithook


def _explain_at_fork(before: int, after: int) -> Iterator[Effect]:
    for which, functions in enumerate(_at_fork[before:after], before + 1):
        yield "at_fork", f"registered at each fork: {functions} ({which})"


_TRACES = ("sys.settrace's function", "sys.setprofile's function", "threading's trace function",
           "threading's profile function", *(f"monitoring tool {i}" for i in range(6)))  # fmt: skip


def _traces() -> tuple[Identities, int]:
    new = (getattr(threading, "_trace_hook", None), getattr(threading, "_profile_hook", None))
    monitoring = getattr(sys, "monitoring", None)
    tools = [monitoring.get_tool(i) if monitoring else None for i in range(6)]
    return Identities((sys.gettrace(), sys.getprofile(), *new, *tools)), len(_audit_hooks)


def _explain_traces(before: Any, after: Any) -> Iterator[Effect]:
    yield from labelled("trace", _TRACES)(before[0], after[0])
    for hook in _audit_hooks[before[1] : after[1]]:
        yield "trace", f"added the audit hook {hook}"


def _explain_atexit(before: int, after: int) -> Iterator[Effect]:
    # By their counts, so that each is one effect for whoever contains this import.
    for which in range(before, after):
        yield "atexit", f"registered a function for the end of the process (number {which + 1})"
    if after < before:
        yield "atexit", f"took {before - after} functions for the end of the process away"


def _collector() -> tuple[bool, tuple[int, int, int], int, Identities]:
    return gc.isenabled(), gc.get_threshold(), gc.get_debug(), Identities(gc.callbacks)


def _explain_collector(before: Any, after: Any) -> Iterator[Effect]:
    for label, old, new in zip(("enabled", "thresholds", "debug flags"), before, after, strict=False):
        if old != new:
            yield "gc", f"set the garbage collector's {label} from {old} to {new}"
    if before[3] != after[3]:
        yield "gc", "changed gc.callbacks"


def _limits() -> tuple[int, float, int]:
    digits = getattr(sys, "get_int_max_str_digits", int)
    return sys.getrecursionlimit(), sys.getswitchinterval(), digits()


PROBES = (
    Probe(_paths, _explain_paths),
    Probe(_filters, _explain_filters),
    Probe(_logging, _explain_logging),
    Probe(_hooks, labelled("hook", _HOOKS)),
    Probe(_start_method, becomes("start_method", "set the start method of multiprocessing to {after!r}")),
    Probe(_loop_policy, labelled("event_loop", ("the event-loop policy",))),
    Probe(lambda: len(_at_fork), _explain_at_fork),
    Probe(_traces, _explain_traces),
    Probe(atexit._ncallbacks, _explain_atexit),
    Probe(_collector, _explain_collector),
    Probe(
        _limits, becomes("limit", "set recursion limit, switch interval and digits from {before} to {after}")
    ),
)

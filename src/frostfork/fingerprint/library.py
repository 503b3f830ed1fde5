# SPDX-License-Identifier: Apache-2.0
"""What takes longer to look at: the standard library's functions, loggers, limits, shared libraries.

It is looked at after each module that was asked for, with all that it brought along, not after each of those.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Any

from frostfork import _core
from frostfork.fingerprint.probe import Effect, Probe, named, read

_MODULES = ("builtins", "importlib", "json", "logging", "multiprocessing", "os", "pickle", "queue", "random", "select",
            "selectors", "signal", "socket", "ssl", "subprocess", "sys", "threading", "time")  # fmt: skip
_CLASSES = (("http.client", "HTTPConnection"), ("json", "JSONDecoder"), ("json", "JSONEncoder"), ("logging", "Handler"),
            ("logging", "Logger"), ("socket", "socket"), ("ssl", "SSLContext"), ("ssl", "SSLSocket"),
            ("subprocess", "Popen"), ("threading", "Thread"))  # fmt: skip
_PRIVATE = ("_create_default_https_context",)  # which many put another in the place of
_HOOKS = ("excepthook", "unraisablehook", "displayhook", "breakpointhook")  # another probe's


class _Standard(dict[str, dict[str, object]]):
    """Compared by identity."""

    __hash__ = None

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __eq__(self, other: object) -> bool:
        return not any(True for _ in self.replaced(other))

    def replaced(self, other: Any) -> Iterator[tuple[str, str, object]]:
        for place, values in other.items():
            before = self.get(place)
            if before is None:
                yield from ((place, key, value) for key, value in values.items() if _is_foreign(value))
                continue
            for key, value in values.items():
                if before.get(key, value) is not value or (key not in before and place == "builtins"):
                    yield place, key, value
            yield from ((place, key, None) for key in before if key not in values)


def _standard() -> _Standard:
    """By module or class: what code elsewhere calls by its name."""
    found = _Standard()
    for name in _MODULES:
        if (module := sys.modules.get(name)) is not None:
            found[name] = {
                key: value
                for key, value in module.__dict__.items()
                if (key[0] != "_" or name == "builtins" or key in _PRIVATE)
                and key not in _HOOKS
                and (callable(value) or key in ("environ", "stdout", "stderr"))
            }
    for name, attribute in _CLASSES:
        kind = getattr(sys.modules.get(name), attribute, None)
        if isinstance(kind, type):
            # Annotations are made when they are first asked for.
            values = kind.__dict__.items()
            found[f"{name}.{attribute}"] = {key: value for key, value in values if "annot" not in key}
    return found


def _is_foreign(value: object) -> bool:
    """Whether a function or class in a module of the standard library, just loaded, is another's."""
    if not isinstance(value, (FunctionType, type)):
        return False
    place = getattr(value, "__module__", None)
    return isinstance(place, str) and place.partition(".")[0] not in sys.stdlib_module_names


def _explain_standard(before: _Standard, after: _Standard) -> Iterator[Effect]:
    for place, key, value in before.replaced(after):
        yield "patched", f"put {named(value)} in the place of {place}.{key}"


def _explain_modules(before: dict[str, object], after: dict[str, object]) -> Iterator[Effect]:
    for name in before:
        if after.get(name) is not before[name]:
            yield "path", f"{'put another object into' if name in after else 'removed'} sys.modules[{name!r}]"


class _Modules(dict[str, object]):
    """sys.modules as it was; new ones do not count."""

    __hash__ = None

    def __ne__(self, other: object) -> bool:
        return any(True for _ in _explain_modules(self, other))  # type: ignore[arg-type]


class Loggers:
    """The named loggers that there were when a canary began: those of its parent."""

    def __init__(self) -> None:
        known = logging.root.manager.loggerDict.items()
        self._loggers = {name: logger for name, logger in known if isinstance(logger, logging.Logger)}

    def take(self) -> list[tuple[object, ...]]:
        return [
            (logger.level, logger.propagate, bool(logger.disabled), *_audible(logger.handlers))
            for logger in self._loggers.values()
        ]

    def explain(self, before: list[tuple[object, ...]], after: list[tuple[object, ...]]) -> Iterator[Effect]:
        for name, old, new in zip(self._loggers, before, after, strict=True):
            if old != new:
                what = "handlers" if old[:3] == new[:3] else "level, propagation or state"
                yield "logging", f"changed the {what} of the logger {name}"


def _audible(handlers: Iterable[logging.Handler]) -> Iterator[int]:
    """By their numbers: a handler that is taken away does not make room for a new one so soon."""
    return (id(each) for each in handlers if type(each) is not logging.NullHandler)


def _limits() -> tuple[object, ...]:
    limits = tuple(resource.getrlimit(number) for number in range(16))
    return limits, os.getpriority(os.PRIO_PROCESS, 0), frozenset(os.sched_getaffinity(0))


def _explain_limits(before: Any, after: Any) -> Iterator[Effect]:
    labels = ("the limits of resources", "the priority", "the CPUs that it may run on")
    for label, old, new in zip(labels, before, after, strict=True):
        if old != new:
            yield "limit", f"changed {label}"


class Libraries:
    """Shared libraries that match one of some patterns. The maps are read only if something was loaded."""

    def __init__(self, unsafe: Iterable[tuple[str, str]]) -> None:
        self._unsafe = tuple(unsafe)
        self._names = _mapped()

    def take(self) -> int:
        return _core.libraries_loaded()

    def explain(self, before: int, after: int) -> Iterator[Effect]:
        present = _mapped()
        for name in sorted(present - self._names):
            for pattern, reason in self._unsafe:
                if fnmatchcase(name, pattern):
                    yield "library", f"loaded {name}: {reason}"
                    break
        self._names = present


def _mapped() -> frozenset[str]:
    lines = (read("/proc/self/maps") or "").splitlines()
    return frozenset(line.rpartition("/")[2] for line in lines if ".so" in line)


def library_probes(unsafe: Iterable[tuple[str, str]]) -> tuple[Probe, ...]:
    """For one canary."""
    loggers, libraries = Loggers(), Libraries(unsafe)
    return (
        Probe(_standard, _explain_standard),
        Probe(lambda: _Modules(sys.modules), _explain_modules),
        Probe(loggers.take, loggers.explain),
        Probe(_limits, _explain_limits),
        Probe(libraries.take, libraries.explain),
    )

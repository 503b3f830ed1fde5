# SPDX-License-Identifier: Apache-2.0
"""Attributes of classes, looked up once in a zygote.

The interpreter keeps what it found in a table of 96 KB, each entry at a place that the class and the name decide. A
worker that looks up twenty for the first time writes twenty pages. Found before the fork, they are only read.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable
from types import FunctionType
from weakref import WeakSet, WeakValueDictionary

from frostfork import _core

# Where the code is that a worker runs before its first task.
_MODULES = tuple(
    f"frostfork.{name}"
    for name in ("_inherited", "_observed", "_worker", "_zygote.life", "_zygote.nursery", "journal")
)
_KINDS = (bytes, deque, dict, int, list, set, str, tuple, WeakSet, WeakValueDictionary)


def refresh(own: Iterable[object]) -> None:
    """Empty the table and fill it with what workers will look up. own: objects of frostfork's that they use."""
    _core.clear_type_cache()
    names: set[str] = set()
    for name in _MODULES:
        for thing in list(vars(sys.modules[name]).values()) if name in sys.modules else []:
            if isinstance(thing, type) and thing.__module__ == name:
                _look_up(thing, names_in(thing))
                names |= names_in(thing)
            elif isinstance(thing, FunctionType):
                names.update(thing.__code__.co_names)
    for kind in {type(each) for each in own if type(each).__module__.startswith("frostfork.")}:
        _look_up(kind, names_in(kind))
    for kind in _KINDS:
        _look_up(kind, names & vars(kind).keys())


def names_in(kind: type) -> set[str]:
    """Of its attributes, and of all that its methods ask for: instances are asked for what the class does not have."""
    found = set(vars(kind))
    for member in vars(kind).values():
        code = getattr(getattr(member, "fget", member), "__code__", None)
        found.update(getattr(code, "co_names", ()))
    return found


def _look_up(kind: type, names: Collection[str]) -> None:
    for name in names:
        getattr(kind, name, None)

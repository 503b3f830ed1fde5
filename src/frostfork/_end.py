# SPDX-License-Identifier: Apache-2.0
"""The end of a process that froze its objects or made them immortal.

A process that ends normally, not by os._exit, collects its garbage last. That is what writes out a file that nobody
closed. A frozen object is out of the collector's sight and an immortal one never dies, so what they hold would be cut
off without a word. So the objects are thawed, and files are written out, at the moment at which the interpreter drops
its modules: later than all that atexit runs, while everything still works.

Not done: the finalizers (`__del__`) of objects that something immortal holds. Python promises none of them either.
"""

from __future__ import annotations

import _io  # the classes in C: io.IOBase is an ABC, and asks each object for its class
import atexit
import gc
import sys
from types import ModuleType
from typing import Any

_BUFFERED = (_io.BufferedWriter, _io.BufferedRandom, _io.BufferedRWPair)
# Bound once: whoever mocks gc.freeze does not change how we end.
_unfreeze, _get_objects = gc.unfreeze, gc.get_objects
_state = {"prepared": False}


def prepare() -> None:
    """Once for a process and for all that it forks."""
    if not _state["prepared"]:
        _state["prepared"] = True
        atexit.register(go_last)


def is_prepared() -> bool:
    return _state["prepared"]


class _Last:
    """Dies when its module does."""

    def __init__(self, spared: set[int]) -> None:
        self._spared = spared

    def __del__(self) -> None:
        _unfreeze()
        _write_out([thing for thing in _get_objects() if _is_file(thing) and id(thing) not in self._spared])


def go_last() -> None:
    """The last that atexit runs. A module that only sys.modules holds goes when the interpreter drops all modules."""
    module = ModuleType("frostfork._last")
    module.__dict__["last"] = _Last(_standard_streams())
    sys.modules[module.__name__] = module


def write_out_own() -> None:
    """For a child that ends by os._exit: write out the files that it opened itself. What is frozen is its parent's."""
    spared = _standard_streams()
    _write_out([thing for thing in _get_objects() if _is_file(thing) and id(thing) not in spared])


def write_out_all() -> None:
    """The same for who has no parent's objects to spare: whose files are the parent's has no descriptor for them."""
    _unfreeze()
    write_out_own()


def _standard_streams() -> set[int]:
    found = set()
    for name in ("stdin", "stdout", "stderr"):
        for stream in (getattr(sys, name, None), getattr(sys, f"__{name}__", None)):
            buffer = getattr(stream, "buffer", None)
            found |= {id(stream), id(buffer), id(getattr(buffer, "raw", None))}
    return found


def _is_file(thing: object) -> bool:
    return issubclass(type(thing), _io._IOBase)  # not isinstance, which would ask the object for its class


def _write_out(files: list[Any]) -> None:
    """Text goes into a buffer, a compressed file's end too; a compressed file may also be what a buffer is above."""
    buffers = [file for file in files if isinstance(file, _BUFFERED)]
    for file in files:
        if isinstance(file, _io.TextIOWrapper):
            _quietly(file, "flush")
    for file in buffers:
        _quietly(file, "flush")
    for file in files:
        if type(file).__module__ not in ("_io", "io"):
            _quietly(file, "close")
    for file in buffers:
        _quietly(file, "flush")


def _quietly(file: Any, verb: str) -> None:
    """As at any end of the interpreter, there is nobody left to hear of a failure."""
    try:
        if not file.closed:
            getattr(file, verb)()
    except Exception:  # noqa: S110 - see above
        pass

# SPDX-License-Identifier: Apache-2.0
"""Lay hot functions' code side by side.

The interpreter writes into code that runs: counters, caches, specialized instructions. Hot code lies scattered among
ten times as much that nobody runs, so that a child copies a page for each few hundred bytes. A function takes a new
copy of its code without noticing, and copies made one after the other lie one after the other.

Each code moves once, and its old copy stays in memory. Whoever keeps code objects themselves as keys finds new ones
afterwards. Code to which something is tied already (a weak reference, a debugger's data) stays where it is, and all
code stays while a tool watches it.
"""

from __future__ import annotations

import operator
import sys
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from frostfork import _core
from frostfork.steps.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_placed: set[tuple[str, int, str]] = set()
# The old code stays: freed, it would leave thousands of holes in shared pages, and children fill holes. Measured, that
# cost twice what the move had gained.
_kept: list[CodeType] = []


def compact_code(hot_code: Iterable[tuple[str, int, str]]) -> Outcome:
    """Move what children ran, in this order. count: functions; bytes: of code."""
    hot = {key: None for key in hot_code if key not in _placed}
    if not hot:
        return Outcome(0, "functions", idle="children have shown no code that is not in its place already")
    watcher = _watcher()
    if watcher:
        return Outcome(0, "functions", idle=f"{watcher} watches code")
    loaded = _loaded({file for file, _, _ in hot})
    if not loaded:
        return Outcome(0, "functions", idle="the modules whose code children run are not here")
    found = _core.functions(hot)
    order = {key: at for at, key in enumerate(hot)}
    found.sort(key=lambda function: order[_key(function.__code__)])
    # What was not found in a module that is here belongs to no function any more, and is not looked for again.
    _placed.update(key for key in hot if key[0] in loaded or key[0].startswith("<"))
    _placed.update(_key(function.__code__) for function in found)
    codes = [function.__code__ for function in found]
    moved = _copies(codes, hot)
    _kept.extend(old for old, _ in moved.values())  # first: an audit hook may end what follows
    for function, code in zip(found, codes, strict=True):
        if function.__code__ is code:  # another thread may have given it other code meanwhile
            _core.set_code(function, moved[id(code)][1])
    size = sum(sys.getsizeof(new) for _, new in moved.values())
    return Outcome(
        len(found),
        "functions",
        bytes=size,
        bytes_held=size,
        details={"code_objects": len(moved)},
    )


def _key(code: CodeType) -> tuple[str, int, str]:
    return code.co_filename, code.co_firstlineno, getattr(code, "co_qualname", code.co_name)


def _loaded(files: set[str]) -> set[str]:
    """Those of these files that loaded modules were read from.

    Without a call of code that a module may have for its attributes: a lazy one would import itself here.
    """
    found = (
        ModuleType.__getattribute__(module, "__dict__").get("__file__")
        for module in list(sys.modules.values())
        if issubclass(type(module), ModuleType)
    )
    return {file for file in found if isinstance(file, str)} & files


def _copies(
    codes: Sequence[CodeType], hot: Mapping[tuple[str, int, str], object]
) -> dict[int, tuple[CodeType, CodeType]]:
    """Each code and its copy, by the code's id: equal code of two files is not the same.

    Hot code within it, of functions that it will make, is copied too and lies before it.
    """
    copies: dict[int, tuple[CodeType, CodeType]] = {}

    def copy(code: CodeType) -> CodeType:
        if id(code) not in copies:
            constants = tuple(copy(part) if _is_hot(part, hot) else part for part in code.co_consts)
            moved = any(map(operator.is_not, constants, code.co_consts))
            copies[id(code)] = (code, _core.copy_code(code, constants if moved else code.co_consts))
        return copies[id(code)][1]

    # What a code object makes when it is asked, and keeps, must not come to lie between the copies.
    for code in codes:
        _ask(code, hot)
    for code in codes:
        copy(code)
    return copies


def _is_hot(part: object, hot: Mapping[tuple[str, int, str], object]) -> bool:
    return isinstance(part, CodeType) and _key(part) in hot


def _ask(code: CodeType, hot: Mapping[tuple[str, int, str], object]) -> None:
    _ = code.co_code, code.co_varnames, code.co_cellvars, code.co_freevars
    for part in code.co_consts:
        if isinstance(part, CodeType) and _is_hot(part, hot):
            _ask(part, hot)


def _watcher() -> str:
    """What looks at code as it runs, and may keep notes by code object; "" if nothing does."""
    if sys.gettrace() is not None:
        return "a trace function"
    if sys.getprofile() is not None:
        return "a profile function"
    threading = sys.modules.get("threading")  # what a debugger gives to threads that start later
    if getattr(threading, "_trace_hook", None) or getattr(threading, "_profile_hook", None):
        return "a trace or profile function of threads"
    monitoring = getattr(sys, "monitoring", None)
    names = [monitoring.get_tool(tool) for tool in range(6)] if monitoring else []
    return next((name for name in names if name), "")

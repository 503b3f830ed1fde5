# SPDX-License-Identifier: Apache-2.0
"""The code that a zygote runs for each fork: what it writes there, it copies away from its workers."""

from __future__ import annotations

import sys
from types import CodeType, FunctionType

from frostfork.observe import CodeName

_MODULES = (
    *(f"frostfork._zygote.{name}" for name in ("nursery", "outbox", "channel", "brood", "signals", "life")),
    *(f"frostfork.{name}" for name in ("learning_template", "_observed", "journal", "pool.pool_template")),
)


def own_code() -> list[CodeName]:
    found: list[CodeName] = []
    for name in _MODULES:
        module = sys.modules.get(name)
        for thing in [] if module is None else vars(module).values():
            inside = vars(thing).values() if isinstance(thing, type) else (thing,)
            for function in inside:
                if isinstance(function, FunctionType) and thing.__module__ == module.__name__:
                    found += _named(function.__code__)
    return found


def _named(code: CodeType) -> list[CodeName]:
    """It, and what functions it makes."""
    made = [name for part in code.co_consts if isinstance(part, CodeType) for name in _named(part)]
    return [*made, (code.co_filename, code.co_firstlineno, getattr(code, "co_qualname", code.co_name))]

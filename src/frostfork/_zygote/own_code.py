# SPDX-License-Identifier: Apache-2.0
"""The code that a zygote runs for each fork: what it writes there, it copies away from the workers forked before."""

from __future__ import annotations

import contextlib
import importlib
from types import CodeType
from typing import Any

from frostfork.observe import CodeName

# In the order in which it runs. A name that is gone is left out: its code then lies where it was.
_FUNCTIONS = {
    "frostfork._zygote.nursery": (
        "Nursery._turn", "Nursery._patience", "Nursery._serve", "Nursery._fork_all", "Nursery._fork",
        "Nursery._become", "Nursery._child_ended", "Nursery._report",
    ),
    "frostfork._zygote.signals": (
        "wait_readable", "Waker.fileno", "Waker.clear", "Waker._child_ended", "hold", "release",
    ),
    "frostfork._zygote.brood": ("Brood.reap", "Brood._reap_all", "Brood._reap_one"),
    "frostfork._zygote.outbox": ("Outbox.__len__", "Outbox.put", "Outbox.flush", "Outbox.descriptors"),
    "frostfork._zygote.channel": (
        "Channel.fileno", "Channel.receive", "Parcel.__init__", "encode", "Channel.send_encoded", "Message.drop",
        "close_all",
    ),
    "frostfork.pool.pool_template": ("PoolTemplate.before_fork", "PoolTemplate.descriptors"),
    "frostfork.learning_template": (
        "LearningTemplate.before_fork", "LearningTemplate._is_settled", "LearningTemplate.descriptors",
    ),
    "frostfork._observed": ("ObservedWorkers.expect", "ObservedWorkers.expected", "ObservedWorker.__init__"),
    "frostfork.journal": ("Journal.__init__", "_memory_file", "_nameless_file", "_identity"),
    "frostfork.fork": ("fork_quietly",),
    "frostfork._end": ("prepare",),
    "contextlib": ("suppress.__init__", "suppress.__enter__", "suppress.__exit__"),
}  # fmt: skip


def own_code() -> list[CodeName]:
    found: list[CodeName] = []
    for name, functions in _FUNCTIONS.items():
        module = importlib.import_module(name)
        for path in functions:
            with contextlib.suppress(AttributeError):
                found += _named(_find(module, path))
    return found


def _find(module: Any, path: str) -> CodeType:
    found = module
    for name in path.split("."):
        found = vars(found).get(name) or getattr(found, name)
    code: CodeType = getattr(found, "fget", found).__code__
    return code


def _named(code: CodeType) -> list[CodeName]:
    """It, and what functions it makes."""
    made = [name for part in code.co_consts if isinstance(part, CodeType) for name in _named(part)]
    return [*made, (code.co_filename, code.co_firstlineno, getattr(code, "co_qualname", code.co_name))]

# SPDX-License-Identifier: Apache-2.0
"""Put what stays out of the collector's sight, so that its runs write into no page that children share.

gc.freeze() takes all that is alive at that moment, what is about to become garbage too, and a frozen cycle is never
freed: a parent that freezes again and again leaks. So that is done once, and what is then part of a cycle stays: a
connection of sqlite3, which is one with its cache of statements, is open until somebody closes it. What is new later is
immortal for the most part, and the collector sorts immortal objects out by itself the next time it meets them: one
collection is enough, and keeps nothing that is not immortal. Where there are no immortal objects, the frozen ones are
let go, collected together with the rest and frozen again, which costs a full collection.
"""

from __future__ import annotations

import gc

from frostfork import _core
from frostfork.steps.report import Outcome

# Bound once: a test that puts a mock in the place of gc.freeze must not change what a warmup does.
_collect, _freeze, _unfreeze, _frozen = gc.collect, gc.freeze, gc.unfreeze, gc.get_freeze_count


_done = False


def freeze() -> Outcome:
    """count: objects that are frozen now and were not before."""
    global _done
    before = _frozen()
    if _done and not _core.immortalized():
        _unfreeze()
    _collect()
    if not _done or not _core.immortalized():
        _freeze()
    _done = True
    return Outcome(max(0, _frozen() - before), "objects")

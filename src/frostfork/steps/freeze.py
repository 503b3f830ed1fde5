# SPDX-License-Identifier: Apache-2.0
"""Put what stays out of the collector's sight, so that its runs write into no page that children share.

gc.freeze() takes all that is alive at that moment, what is about to become garbage too, and a frozen cycle is never
freed: a parent that freezes again and again leaks. Immortal objects stay anyway, and the collector sorts them out by
itself the next time it meets them. So where there are immortal objects, one collection freezes them and nothing else.
Elsewhere the frozen ones are let go, collected together with the rest and frozen again, which costs a full collection.
"""

from __future__ import annotations

import gc

from frostfork import _core
from frostfork.steps.report import Outcome

# Bound once: a test that puts a mock in the place of gc.freeze must not change what a warmup does.
_collect, _freeze, _unfreeze, _frozen = gc.collect, gc.freeze, gc.unfreeze, gc.get_freeze_count


def freeze() -> Outcome:
    """count: objects that are frozen now and were not before."""
    before = _frozen()
    if _core.immortalized():
        _collect()
    else:
        _unfreeze()
        _collect()
        _freeze()
    return Outcome(max(0, _frozen() - before), "objects")

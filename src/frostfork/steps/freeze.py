# SPDX-License-Identifier: Apache-2.0
"""Put all objects out of the collector's sight, so that its runs write into no page that children share."""

from __future__ import annotations

import gc

from frostfork.steps.report import Outcome

# Bound once: a test that puts a mock in the place of gc.freeze must not change what a warmup does.
_collect, _freeze, _frozen = gc.collect, gc.freeze, gc.get_freeze_count


def freeze() -> Outcome:
    """Collect what is garbage now, for a frozen object is never collected, then freeze the rest."""
    before = _frozen()
    _collect()
    _freeze()
    return Outcome(_frozen() - before, "objects")

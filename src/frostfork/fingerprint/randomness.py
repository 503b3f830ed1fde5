# SPDX-License-Identifier: Apache-2.0
"""The global random generators: a seed that an import sets, all children would share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from frostfork.fingerprint.probe import Effect, Probe

_first: dict[str, object] = {}


def _states() -> dict[str, object]:
    """By generator that is loaded: its state."""
    states: dict[str, object] = {}
    if (generator := getattr(sys.modules.get("random"), "_inst", None)) is not None:
        states["random"] = generator.getstate()
    if (generator := getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)) is not None:
        state = generator.get_state(legacy=False)["state"]
        states["numpy.random"] = repr(state.get("pos")), bytes(state["key"])
    for name, state in states.items():
        # Looked at when its own import ends: so who loads a generator and then seeds it is seen, too.
        _first.setdefault(name, state)
    return states


def _explain(before: dict[str, object], after: dict[str, object]) -> Iterator[Effect]:
    for name, state in after.items():
        if before.get(name, _first[name]) != state:
            yield "random", f"seeded {name}, or drew from it"


PROBES = (Probe(_states, _explain),)
